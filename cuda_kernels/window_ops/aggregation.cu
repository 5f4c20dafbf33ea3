// Fast aggregation on CUDA: the output.
//
// Idea. Three quarters of the traffic are weights, which eight channels share:
// they are computed together, so that a weight is read once, while the pixels,
// read K times each, lie in shared memory.
//
// N batch, C channels, G weight channels, M = C / G channels that share one
// (c = g, g + G, ...), K taps, H W image, P outputs.
//
// Memory plan (cuda_tiles.h, cuda_steps.h). A unit is (image, weight channel,
// eight of the M channels). Its padded pixels under a tile of outputs are in
// shared memory, zeros for channels that there are not; a thread owns kWidth
// adjacent outputs of eight channels, in registers, in one row after the other.
// One writer per element: no atomics.
//
// Elements moved per output pixel of eight channels: K + 16, and the tile's
// rim.
#include "cuda_kernels/window_ops/cuda_aggregation.h"

namespace san::fast {
namespace {

template <typename T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kMostThreads, 1) forward(Task<T> task) {
  using A = Accumulator<T>;
  using S = Steps<kTaps, kWidth>;
  const Window& window = task.shape.window;
  const S steps(window, task.tiling);
  const Place place(task.tiling);
  const Unit unit(task.shape, task.sizes, place.unit);
  const UnitMemory<A, kMembers> tile(task.tiling, place,
                                     task.tiling.source_positions());
  load_pixels<kWidth>(task, place, unit, tile);
  const int x = place.left + place.column;
  if (!place.active) return;

  const int64_t outputs = window.outputs();
  const int width = static_cast<int>(window.columns.outputs);
  const T* weight =
      task.weight + unit.weight_plane * window.taps() * outputs + x;
  T* result = task.result + unit.plane * outputs + x;
  const int64_t stride = task.shape.weight_channels * outputs;
#pragma unroll 1
  for (int y = place.top + place.row; y < place.end; ++y) {
    const T* tap = weight + y * width;
    // Loads a step ahead, so that memory works during the products.
    Adjacent<T, kWidth> next[kTaps];
    const auto load_next = [&] {
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw, tap += outputs)
        next[kw] = Adjacent<T, kWidth>::at(tap);
    };
    load_next();
    A sums[kMembers][kWidth] = {};
#pragma unroll(kTaps > 3 ? kTaps : 1)
    for (int step = 0; step < steps.count; ++step) {
      Adjacent<T, kWidth> weights[kTaps];
      memcpy(weights, next, sizeof weights);
      if (step < steps.count - 1) load_next();
      const int from = steps.source(place, y, step);
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) {
        A pixels[kMembers];
        tile.load(from + steps.next(c), pixels);
#pragma unroll
        for (int j = 0; j < kWidth; ++j)
          if (c >= j && c - j < kTaps)
#pragma unroll
            for (int m = 0; m < kMembers; ++m)
              sums[m][j] += weights[c - j][j] * pixels[m];
      }
    }
    T* at = result + y * width;
#pragma unroll
    for (int m = 0; m < kMembers; ++m, at += stride) {
      if (m >= unit.members) break;
      store_adjacent(at, sums[m]);
    }
  }
}

template <typename T>
bool run(const AggregationForward& task, void* stream) {
  const AggregationShape& shape = task.shape;
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  const auto run = [&](auto taps, auto width, int rows) {
    const auto tiling = fast::tiling(
        units, outputs_of(window.rows, rows), outputs_of(window.columns, width),
        1, sizeof(Accumulator<T>), [&](int height, int columns) {
          return padded_tile(window, height, columns, kMembers, width);
        });
    if (!tiling) return false;
    launch(&forward<T, taps, width>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           Task<T>{shape, UnitSizes(shape, chunks(shape)), *tiling, nullptr,
                   static_cast<const T*>(task.input),
                   static_cast<const T*>(task.weight),
                   static_cast<T*>(task.output)});
    return true;
  };
  return with_steps<T>(window, units, window.columns.outputs,
                       {task.weight, task.output}, run);
}

}  // namespace

void run_on_cuda(const AggregationForward& task, void* stream) {
  bool done = false;
  if (suits_tiles(task.shape))
    with_scalar_type(task.type, [&](auto zero) {
      done = run<decltype(zero)>(task, stream);
    });
  if (!done) simple::run_on_cuda(task, stream);
}

}  // namespace san::fast
