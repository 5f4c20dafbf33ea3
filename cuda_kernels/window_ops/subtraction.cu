// Fast subtraction2 on CUDA.
//
// Idea. Almost all traffic is the output, K elements a pixel, or its gradient,
// which has to be moved once, in runs of adjacent elements; all else is kept
// out of the way of that.
//
// N batch, C channels, a unit is a plane, one (n, c); K taps, P outputs.
//
// Memory plan (cuda_tiles.h, cuda_steps.h).
//   output     The padded pixels of b under a tile of outputs are in shared
//              memory; a thread owns all taps of kRows outputs and has their
//              centres in registers.
//   gradients  A thread owns kRows positions of the padded image: the gradient
//              of b there, a gather over all taps, and that of a, all taps of
//              the output with its centre there. Both come from the same
//              gradients of one column of taps at a time, so that the second
//              reading is served by the L1 cache. Then the sums go to shared
//              memory, and each pixel of the tile adds up its own and those of
//              its mirror images, which are in the same tile.
// One writer per element, sums in a fixed order: no atomics.
//
// Elements moved per output: K + 2, forward and backward.
#include "cuda_kernels/window_ops/cuda_small_images.h"
#include "cuda_kernels/window_ops/cuda_steps.h"
#include "cuda_kernels/window_ops/subtraction.h"

namespace san::fast {
namespace {

template <typename T>
struct ForwardTask {
  Window window;
  Tiling tiling;
  const T *a, *b;
  T* output;
};

template <typename T, int kTaps, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1)
    forward(ForwardTask<T> task) {
  using A = Accumulator<T>;
  const Axis &rows = task.window.rows, &columns = task.window.columns;
  const Steps<kTaps> steps(task.window);
  const Place place(task.tiling);
  const int64_t pixels = task.window.pixels();
  const UnitMemory<A, 1> tile(task.tiling, place,
                              task.tiling.source_positions());
  find_sources(task.tiling, rows, position(rows, place.top, 0), columns,
               position(columns, place.left, 0));
  __syncthreads();
  if (place.active)
    fill(task.tiling, place,
         Planes<T>{task.b + place.unit * pixels, 0, 1,
                   static_cast<int>(columns.size)},
         tile);
  __syncthreads();
  if (!place.active) return;

  int offsets[kRows];
  place.find_offsets(columns, offsets);
  A centres[kRows];
  const int centre_row = static_cast<int>(rows.centre_tap());
  const int centre_column = static_cast<int>(columns.centre_tap());
  const int width = static_cast<int>(columns.size);
  const int x = source(
      columns, position(columns, place.left + place.column, centre_column));
  const T* a = task.a + place.unit * pixels;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int y =
        source(rows, position(rows, place.top + place.row + r, centre_row));
    centres[r] =
        place.owns(r) && y >= 0 && x >= 0 ? wide(a[y * width + x]) : A(0);
  }
  const int64_t outputs = task.window.outputs();
  T* output = task.output + place.unit * task.window.taps() * outputs;
#pragma unroll 1
  for (int step = 0; step < steps.count; ++step) {
    const int pitch = task.tiling.shared.pitch;
    const int from = steps.source(place, step, pitch);
    A band[kTaps + kRows - 1][1];
#pragma unroll
    for (int j = 0; j < kTaps + kRows - 1; ++j)
      tile.load(from + j * pitch, band[j]);
    store_column<T, kTaps>(
        output, outputs, step, offsets, place,
        [&](int kh, int r) { return centres[r] - band[kh + r][0]; });
  }
}

template <typename T>
struct BackwardTask {
  Window window;
  Tiling tiling;
  const T* grad_output;
  T *grad_a, *grad_b;
};

// Both gradients at a thread's positions, the first of which is `y` rows and
// `x` columns after the beginning of the padding.
template <typename T, int kTaps, int kRows>
struct Gather {
  using A = Accumulator<T>;
  const Window& window;
  const T* grad_output;  // of the plane
  bool needs_a, needs_b;

  // kTaps > 1.
  __device__ void run(const Place& place, int y, int x, A (&a)[kRows],
                      A (&b)[kRows]) const {
    const int height = static_cast<int>(window.rows.outputs);
    const int width = static_cast<int>(window.columns.outputs);
    const int64_t outputs = window.outputs();
    constexpr int kCentre = (kTaps - 1) / 2;
    const unsigned rows =
        place.owns(0) ? reading_rows<kTaps, kRows>(y, height) : 0;
    const T* corner = grad_output + (y * width + x);
    const auto inside = [&](int column) {
      return column >= 0 && column < width ? rows : 0;
    };
    const unsigned a_exist = needs_a ? inside(x - kCentre) : 0;
#pragma unroll(kRows == 1 ? 2 : 1)
    for (int kw = 0; kw < kTaps; ++kw) {
      const unsigned b_exist = needs_b ? inside(x - kw) : 0;
      T b_terms[kTaps][kRows], a_terms[kTaps][kRows];
      load_readers(corner + kw * (outputs - 1), outputs, width, b_exist,
                   b_terms);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const bool exists = a_exist >> (r + kTaps - 1 - kCentre) & 1;
        const char* at = reinterpret_cast<const char*>(
            corner + kw * outputs - kCentre * (width + 1) + r * width);
#pragma unroll
        for (int kh = 0; kh < kTaps; ++kh) {
          a_terms[kh][r] = exists ? *reinterpret_cast<const T*>(at) : T();
          at += kTaps * outputs * int64_t{sizeof(T)};
        }
      }
#pragma unroll
      for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          b[r] -= wide(b_terms[kh][r]);
          a[r] += wide(a_terms[kh][r]);
        }
    }
  }

  // kTaps = kRows = 1: any stride and dilation.
  __device__ void run_generic(int y, int x, A& a, A& b) const {
    const Axis &rows = window.rows, &columns = window.columns;
    const int dilation = static_cast<int>(rows.dilation);
    const int width = static_cast<int>(columns.outputs);
    const int ha =
        output_at(y - static_cast<int>(rows.centre_tap()) * dilation, rows);
    const int wa = output_at(
        x - static_cast<int>(columns.centre_tap()) * dilation, columns);
    const T* tap = grad_output;
    for (int kh = 0; kh < rows.taps; ++kh) {
      const int hb = output_at(y - kh * dilation, rows);
      for (int kw = 0; kw < columns.taps; ++kw, tap += window.outputs()) {
        const int wb = output_at(x - kw * dilation, columns);
        if (needs_b && hb >= 0 && wb >= 0) b -= wide(tap[hb * width + wb]);
        if (needs_a && ha >= 0 && wa >= 0) a += wide(tap[ha * width + wa]);
      }
    }
  }
};

template <typename T, int kTaps, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1)
    backward(BackwardTask<T> task) {
  using A = Accumulator<T>;
  const Window& window = task.window;
  const Place place(task.tiling);
  const UnitMemory<A, 2> sums(task.tiling, place, task.tiling.positions());
  if (place.active) {
    const T* grad_output =
        task.grad_output + place.unit * window.taps() * window.outputs();
    const Gather<T, kTaps, kRows> gather = {
        window, grad_output, task.grad_a != nullptr, task.grad_b != nullptr};
    const int padding = static_cast<int>(window.rows.padding);
    const int y = place.top + place.row + padding;
    const int x = place.left + place.column + padding;
    A a[kRows] = {}, b[kRows] = {};
    if constexpr (kTaps > 1)
      gather.run(place, y, x, a, b);
    else if (place.owns(0))
      gather.run_generic(y, x, a[0], b[0]);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums.store((place.row + r) * task.tiling.thread_columns + place.column,
                 {a[r], b[r]});
  }
  __syncthreads();
  if (!place.active) return;
  const int64_t first = place.unit * window.pixels();
  fold(task.tiling, place, window, sums, [&](int pixel, const A(&sums)[2]) {
    if (task.grad_a) task.grad_a[first + pixel] = rounded<T>(sums[0]);
    if (task.grad_b) task.grad_b[first + pixel] = rounded<T>(sums[1]);
  });
}

template <typename T>
bool run(const SubtractionForward& task, void* stream) {
  const Window& window = task.shape.window;
  const int64_t planes = task.shape.planes();
  return with_steps<T>(window, planes, [&](auto taps, auto rows) {
    const auto tiling = fast::tiling(
        planes, outputs_of(window.rows, rows), outputs_of(window.columns, 1), 1,
        sizeof(Accumulator<T>), [&](int height, int width) {
          return padded_tile(window, height, width, 1);
        });
    if (!tiling) return false;
    launch(&forward<T, taps, rows>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           ForwardTask<T>{window, *tiling, static_cast<const T*>(task.a),
                          static_cast<const T*>(task.b),
                          static_cast<T*>(task.output)});
    return true;
  });
}

template <typename T>
bool run(const SubtractionBackward& task, void* stream) {
  const Window& window = task.shape.window;
  const int64_t planes = task.shape.planes();
  return with_steps<T>(window, planes, [&](auto taps, auto rows) {
    const auto tiling = fast::tiling(
        planes, padded_positions(window.rows, rows),
        padded_positions(window.columns, 1), fold_part(window.rows),
        sizeof(Accumulator<T>), [](int64_t height, int64_t width) {
          return SharedTile{0, 0, 2 * height * width};
        });
    if (!tiling) return false;
    launch(&backward<T, taps, rows>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           BackwardTask<T>{
               window, *tiling, static_cast<const T*>(task.grad_output),
               static_cast<T*>(task.grad_a), static_cast<T*>(task.grad_b)});
    return true;
  });
}

template <typename Task>
void run_or_fall_back(const Task& task, void* stream) {
  bool done = false;
  if (is_small(task.shape.window) && task.shape.layout == Layout::kRowMajor)
    with_scalar_type(task.type, [&](auto zero) {
      done = run<decltype(zero)>(task, stream);
    });
  if (!done) simple::run_on_cuda(task, stream);
}

}  // namespace

void run_on_cuda(const SubtractionForward& task, void* stream) {
  run_or_fall_back(task, stream);
}
void run_on_cuda(const SubtractionBackward& task, void* stream) {
  if (task.shape.layout != Layout::kRowMajor || !run_small_images(task, stream))
    run_or_fall_back(task, stream);
}

}  // namespace san::fast
