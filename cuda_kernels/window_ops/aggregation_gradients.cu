// Fast aggregation on CUDA: the gradients of its weight and of its input.
//
// Idea and letters as in aggregation.cu: each weight, or its gradient, is moved
// once for all channels that share it.
//
// Memory plan (cuda_tiles.h, cuda_steps.h).
//   weight gradient  A unit is (image, weight channel). The padded pixels of
//                    all M channels are in shared memory; a thread owns all
//                    taps of kRows outputs and has their gradients in
//                    registers.
//   input gradient   A unit is (image, weight channel, eight of the M
//                    channels). Shared memory has the gradients of the outputs
//                    that read a tile of the padded image, zeros around; a
//                    thread owns kRows positions of that tile and gathers what
//                    all taps send there. Then these sums go to shared memory,
//                    and each pixel of the tile adds up its own and those of
//                    its mirror images, which are in the same tile.
// One writer per element, sums in a fixed order: no atomics.
//
// Elements moved per output pixel of eight channels: K + 16 by either, and the
// tiles' rims. They are two kernels: all they could share is grad_output, 8
// elements beside 2 K.
#include "cuda_kernels/window_ops/cuda_aggregation.h"
#include "cuda_kernels/window_ops/cuda_small_images.h"

namespace san::fast {
namespace {

// The gradients of a thread's outputs in kMembers channels from `first` on.
template <int kRows, typename T>
__device__ void load_grads(const T* grad_output, int64_t stride, int first,
                           int members, const int (&offsets)[kRows],
                           Accumulator<T> (&grads)[kRows][kMembers]) {
#pragma unroll
  for (int m = 0; m < kMembers; ++m) {
    const T* channel = grad_output + (first + m) * stride;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      grads[r][m] =
          first + m < members ? wide(channel[offsets[r]]) : Accumulator<T>(0);
  }
}

// kIsOneChunk: a weight channel has kMembers channels at most.
template <typename T, int kTaps, int kRows, bool kIsOneChunk>
__global__ void __launch_bounds__(kMostThreads, 1) grad_weight(Task<T> task) {
  using A = Accumulator<T>;
  const Window& window = task.shape.window;
  const Tiling& tiling = task.tiling;
  const Steps<kTaps> steps(window);
  const Place place(tiling);
  const Unit unit(task.shape, task.sizes, place.unit);
  const UnitMemory<A, kMembers> tile(tiling, place, tiling.source_positions());
  load_pixels(task, place, unit, tile);
  if (!place.active) return;

  const int64_t outputs = window.outputs();
  const int64_t stride = task.shape.weight_channels * outputs;
  const T* grad_output = task.grad_output + unit.plane * outputs;
  T* result = task.result + unit.weight_plane * window.taps() * outputs;
  int offsets[kRows];
  place.find_offsets(window.columns, offsets);
  A grads[kRows][kMembers];
  load_grads(grad_output, stride, 0, unit.members, offsets, grads);
#pragma unroll 1
  for (int step = 0; step < steps.count; ++step) {
    A sums[kTaps][kRows] = {};
    const int source = steps.source(place, step, tiling.shared.pitch);
    auto from = tile;
#pragma unroll 1
    for (int first = 0; first < unit.members;) {
#pragma unroll
      for (int j = 0; j < kTaps + kRows - 1; ++j) {
        A x[kMembers];
        from.load(source + j * tiling.shared.pitch, x);
#pragma unroll
        for (int m = 0; m < kMembers; ++m)
#pragma unroll
          for (int r = 0; r < kRows; ++r)
            if (j >= r && j - r < kTaps) sums[j - r][r] += grads[r][m] * x[m];
      }
      if (kIsOneChunk) break;
      // Those of the next chunk or, for the next step, of the first.
      first += kMembers;
      load_grads(grad_output, stride, first < unit.members ? first : 0,
                 unit.members, offsets, grads);
      from.advance();
    }
    store_column<T, kTaps>(result, outputs, step, offsets, place,
                           [&](int kh, int r) { return sums[kh][r]; });
  }
}

// What all outputs send to a thread's positions. `weight` is its weight
// channel; `tile` has the output gradients from output (top, left) on.
template <typename T, int kTaps, int kRows>
struct Gather {
  using A = Accumulator<T>;
  const Window& window;
  const T* weight;
  UnitMemory<A, kMembers> tile;
  int pitch, top, left;

  // kTaps > 1: the outputs that read positions y, y + 1, ... in column x.
  __device__ void run(const Place& place, int y, int x,
                      A (&sums)[kRows][kMembers]) const {
    const int height = static_cast<int>(window.rows.outputs);
    const int width = static_cast<int>(window.columns.outputs);
    const int64_t outputs = window.outputs();
    const unsigned rows =
        place.owns(0) ? reading_rows<kTaps, kRows>(y, height) : 0;
    const T* corner = weight + (y * width + x);
    T next[kTaps][kRows];
    const auto load = [&](int kw) {
      const unsigned exist = x - kw >= 0 && x - kw < width ? rows : 0;
      load_readers(corner + kw * (outputs - 1), outputs, width, exist, next);
    };
    const auto add_products = [&](int kw, const T(&weights)[kTaps][kRows]) {
      A w[kTaps][kRows];
      widen(weights, w);
      const int from = (y - (kTaps - 1) - top) * pitch + x - kw - left;
#pragma unroll
      for (int j = 0; j < kTaps + kRows - 1; ++j) {
        A grads[kMembers];
        tile.load(from + j * pitch, grads);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const int kh = r + kTaps - 1 - j;
          if (kh >= 0 && kh < kTaps)
#pragma unroll
            for (int m = 0; m < kMembers; ++m)
              sums[r][m] += w[kh][r] * grads[m];
        }
      }
    };
    load(0);
#pragma unroll(kRows == 1 ? kTaps : 1)
    for (int kw = 0; kw < kTaps - 1; ++kw) {
      T now[kTaps][kRows];
      memcpy(now, next, sizeof now);
      load(kw + 1);
      add_products(kw, now);
    }
    add_products(kTaps - 1, next);
  }

  // kTaps = kRows = 1: any stride and dilation.
  __device__ void run_generic(int y, int x, A (&sums)[kRows][kMembers]) const {
    const Axis &rows = window.rows, &columns = window.columns;
    const int64_t outputs = window.outputs();
    const T* tap = weight;
    const int dilation = static_cast<int>(rows.dilation);
    for (int kh = 0; kh < rows.taps; ++kh) {
      const int ho = output_at(y - kh * dilation, rows);
      for (int kw = 0; kw < columns.taps; ++kw, tap += outputs) {
        const int wo = output_at(x - kw * dilation, columns);
        if (ho < 0 || wo < 0) continue;
        const A w = wide(tap[ho * static_cast<int>(columns.outputs) + wo]);
        A grads[kMembers];
        tile.load((ho - top) * pitch + wo - left, grads);
#pragma unroll
        for (int m = 0; m < kMembers; ++m) sums[0][m] += w * grads[m];
      }
    }
  }
};

// The first output that reads a position `distance` after the padding begins,
// whether it exists or not.
__device__ inline int first_reader(int distance, const Axis& axis) {
  const int stride = static_cast<int>(axis.stride);
  const int least =
      distance - static_cast<int>((axis.taps - 1) * axis.dilation);
  return (least > 0 ? least + stride - 1 : least) / stride;
}

__device__ inline Axis output_axis(const Axis& axis) {
  return {axis.outputs, 1, 1, 1, 0, 1, PaddingMode::kZeros};
}

template <typename T, int kTaps, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1) grad_input(Task<T> task) {
  using A = Accumulator<T>;
  const Window& window = task.shape.window;
  const Tiling& tiling = task.tiling;
  const Place place(tiling);
  const Unit unit(task.shape, task.sizes, place.unit);
  const UnitMemory<A, kMembers> tile(tiling, place, tiling.source_positions());
  const int padding = static_cast<int>(window.rows.padding);
  const int top = first_reader(place.top + padding, window.rows);
  const int left = first_reader(place.left + padding, window.columns);
  const Axis rows = output_axis(window.rows);
  const Axis columns = output_axis(window.columns);
  find_sources(tiling, rows, top, columns, left);
  __syncthreads();
  if (place.active)
    fill(tiling, place,
         unit.planes(task.grad_output, task.shape, window.outputs(), columns),
         tile);
  __syncthreads();
  A sums[kRows][kMembers] = {};
  if (place.active) {
    const T* weight =
        task.weight + unit.weight_plane * window.taps() * window.outputs();
    const Gather<T, kTaps, kRows> gather = {
        window, weight, tile, tiling.shared.pitch, top, left};
    const int y = place.top + place.row + padding;
    const int x = place.left + place.column + padding;
    if constexpr (kTaps > 1)
      gather.run(place, y, x, sums);
    else if (place.owns(0))
      gather.run_generic(y, x, sums);
  }
  __syncthreads();
  const UnitMemory<A, kMembers> positions(tiling, place, tiling.positions());
  if (place.active)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      positions.store((place.row + r) * tiling.thread_columns + place.column,
                      sums[r]);
  __syncthreads();
  if (!place.active) return;
  const int64_t pixels = window.pixels();
  T* result = task.result + unit.plane * pixels;
  const int64_t stride = task.shape.weight_channels * pixels;
  fold(tiling, place, window, positions,
       [&](int pixel, const A(&sums)[kMembers]) {
         T* at = result + pixel;
#pragma unroll
         for (int m = 0; m < kMembers; ++m, at += stride)
           if (m < unit.members) *at = rounded<T>(sums[m]);
       });
}

// Gradients of the outputs that can read a tile of positions, and then its
// sums, in kMembers planes of shared memory.
SharedTile reader_tile(const Window& window, int rows, int columns) {
  const auto readers = [](const Axis& axis, int64_t positions) {
    return (positions - 1 + (axis.taps - 1) * axis.dilation) / axis.stride + 1;
  };
  const int64_t height = readers(window.rows, rows);
  const int64_t width = readers(window.columns, columns);
  const int64_t sums = static_cast<int64_t>(rows) * columns;
  return {static_cast<int>(height), static_cast<int>(width),
          kMembers * std::max(height * width, sums)};
}

// Launches, if there are tiles that fit.
template <typename T>
bool run_grad_weight(const AggregationShape& shape, Task<T> task,
                     void* stream) {
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels;
  const auto run = [&](auto kernel, int rows) {
    const auto tiling = fast::tiling(
        units, outputs_of(window.rows, rows), outputs_of(window.columns, 1), 1,
        sizeof(Accumulator<T>), [&](int height, int width) {
          return padded_tile(window, height, width, kMembers * chunks(shape));
        });
    if (!tiling) return false;
    task.tiling = *tiling;
    task.sizes = UnitSizes(shape, 1);
    launch(kernel, tiling->launch_shape(sizeof(Accumulator<T>)), stream, task);
    return true;
  };
  // With the gradients of several chunks, those of several rows would spill.
  return with_steps<T>(window, units, [&](auto taps, auto rows) {
    return chunks(shape) == 1 ? run(&grad_weight<T, taps, rows, true>, rows)
                              : run(&grad_weight<T, taps, 1, false>, 1);
  });
}

template <typename T>
bool run_grad_input(const AggregationShape& shape, Task<T> task, void* stream) {
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  if (units == 0) return true;
  return with_steps<T>(window, units, [&](auto taps, auto rows) {
    const auto tiling = fast::tiling(
        units, padded_positions(window.rows, rows),
        padded_positions(window.columns, 1), fold_part(window.rows),
        sizeof(Accumulator<T>), [&](int height, int width) {
          return reader_tile(window, height, width);
        });
    if (!tiling) return false;
    task.tiling = *tiling;
    launch(&grad_input<T, taps, rows>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream, task);
    return true;
  });
}

// Runs what it can and returns the rest of the task.
template <typename T>
AggregationBackward run(AggregationBackward task, void* stream) {
  const AggregationShape& shape = task.shape;
  const Task<T> operands = {shape,
                            UnitSizes(shape, chunks(shape)),
                            {},
                            static_cast<const T*>(task.grad_output),
                            static_cast<const T*>(task.input),
                            static_cast<const T*>(task.weight),
                            nullptr};
  const auto with_result = [&](void* result) {
    Task<T> copy = operands;
    copy.result = static_cast<T*>(result);
    return copy;
  };
  if (task.grad_weight &&
      run_grad_weight(shape, with_result(task.grad_weight), stream))
    task.grad_weight = nullptr;
  if (task.grad_input &&
      (run_small_images(task, stream) ||
       run_grad_input(shape, with_result(task.grad_input), stream)))
    task.grad_input = nullptr;
  return task;
}

}  // namespace

void run_on_cuda(const AggregationBackward& task, void* stream) {
  AggregationBackward rest = task;
  if (suits_tiles(task.shape))
    with_scalar_type(task.type, [&](auto zero) {
      rest = run<decltype(zero)>(task, stream);
    });
  simple::run_on_cuda(rest, stream);
}

}  // namespace san::fast
