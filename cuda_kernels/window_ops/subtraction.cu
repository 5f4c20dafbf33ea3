// Fast subtraction2 on CUDA: the output.
//
// Idea. Almost all traffic is the output, K elements a pixel, which has to be
// moved once, in runs of adjacent elements; all else is kept out of the way of
// that.
//
// N batch, C channels, a unit is a plane, one (n, c); K taps, P outputs.
//
// Memory plan (cuda_tiles.h, cuda_steps.h). The padded pixels of b under a tile
// of outputs are in shared memory; a thread owns all taps of kWidth adjacent
// outputs, in one row after the other, and has their centres in registers. One
// writer per element: no atomics.
//
// Elements moved per output: K + 2.
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

template <typename T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kMostThreads, 1)
    forward(ForwardTask<T> task) {
  using A = Accumulator<T>;
  using S = Steps<kTaps, kWidth>;
  const Axis &rows = task.window.rows, &columns = task.window.columns;
  const S steps(task.window, task.tiling);
  const Place place(task.tiling);
  const int64_t pixels = task.window.pixels();
  const UnitMemory<A, 1> tile(task.tiling, place,
                              task.tiling.source_positions());
  find_sources(task.tiling, rows, position(rows, place.top, 0), columns,
               position(columns, place.left, 0));
  __syncthreads();
  if (place.exists)
    fill<false, true, kWidth>(task.tiling, place,
                              Planes<T>{task.b + place.unit * pixels, 0, 1,
                                        static_cast<int>(columns.size)},
                              tile);
  __syncthreads();
  const int x = place.left + place.column;
  if (!place.active) return;

  const int centre_row = static_cast<int>(rows.centre_tap());
  const int centre_column = static_cast<int>(columns.centre_tap());
  int centre_columns[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    centre_columns[j] =
        source(columns, position(columns, x + j, centre_column));
  const T* a = task.a + place.unit * pixels;
  const int64_t outputs = task.window.outputs();
  T* output = task.output + place.unit * task.window.taps() * outputs + x;
#pragma unroll 1
  for (int y = place.top + place.row; y < place.end; ++y) {
    const int centre = source(rows, position(rows, y, centre_row));
    A centres[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      centres[j] = centre >= 0 && centre_columns[j] >= 0
                       ? wide(a[centre * static_cast<int>(columns.size) +
                                centre_columns[j]])
                       : A(0);
    T* tap = output + y * static_cast<int>(columns.outputs);
#pragma unroll 1
    for (int step = 0; step < steps.count; ++step) {
      const int from = steps.source(place, y, step);
      A band[S::kColumns][1];
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c)
        tile.load(from + steps.next(c), band[c]);
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw, tap += outputs) {
        A values[kWidth];
#pragma unroll
        for (int j = 0; j < kWidth; ++j)
          values[j] = centres[j] - band[kw + j][0];
        store_adjacent(tap, values);
      }
    }
  }
}

template <typename T>
bool run(const SubtractionForward& task, void* stream) {
  const Window& window = task.shape.window;
  const int64_t planes = task.shape.planes();
  const auto run = [&](auto taps, auto width, int rows) {
    const auto tiling =
        fast::tiling(planes, outputs_of(window.rows, rows),
                     outputs_of(window.columns, width), 1,
                     sizeof(Accumulator<T>), [&](int height, int columns) {
                       return padded_tile(window, height, columns, 1, width);
                     });
    if (!tiling) return false;
    launch(&forward<T, taps, width>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           ForwardTask<T>{window, *tiling, static_cast<const T*>(task.a),
                          static_cast<const T*>(task.b),
                          static_cast<T*>(task.output)});
    return true;
  };
  return with_steps<T>(window, planes, window.columns.outputs, {task.output},
                       run);
}

}  // namespace

void run_on_cuda(const SubtractionForward& task, void* stream) {
  bool done = false;
  if (is_small(task.shape.window) && task.shape.layout == Layout::kRowMajor)
    with_scalar_type(task.type, [&](auto zero) {
      done = run<decltype(zero)>(task, stream);
    });
  if (!done) simple::run_on_cuda(task, stream);
}

}  // namespace san::fast
