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
// shared memory, zeros for channels that there are not; a thread owns kRows
// outputs of eight channels, in registers, and has the weights of one step in
// use and those of the next under way. One writer per element: no atomics.
//
// Elements moved per output pixel of eight channels: K + 16, and the tile's
// rim.
#include "cuda_kernels/window_ops/cuda_aggregation.h"

namespace san::fast {
namespace {

// The weights of a step for the outputs of a thread.
template <int kTaps, int kRows, typename T>
__device__ void load_weights(const T* weight, int64_t outputs, int step,
                             const int (&offsets)[kRows],
                             T (&values)[kTaps][kRows]) {
#pragma unroll
  for (int kh = 0; kh < kTaps; ++kh) {
    const T* tap = weight + Steps<kTaps>::tap(step, kh) * outputs;
#pragma unroll
    for (int r = 0; r < kRows; ++r) values[kh][r] = tap[offsets[r]];
  }
}

template <typename T, int kTaps, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1) forward(Task<T> task) {
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
  const T* weight = task.weight + unit.weight_plane * window.taps() * outputs;
  int offsets[kRows];
  place.find_offsets(window.columns, offsets);
  A sums[kRows][kMembers] = {};
  const auto add_products = [&](int step, const T(&weights)[kTaps][kRows]) {
    A w[kTaps][kRows];
    widen(weights, w);
    const int from = steps.source(place, step, tiling.shared.pitch);
#pragma unroll
    for (int j = 0; j < kTaps + kRows - 1; ++j) {
      A x[kMembers];
      tile.load(from + j * tiling.shared.pitch, x);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (j >= r && j - r < kTaps)
#pragma unroll
          for (int m = 0; m < kMembers; ++m) sums[r][m] += w[j - r][r] * x[m];
    }
  };
  // Loads a step ahead, so that memory works during the products.
  T next[kTaps][kRows];
  load_weights(weight, outputs, 0, offsets, next);
#pragma unroll(kRows == 1 && kTaps > 1 ? kTaps : 1)
  for (int step = 0; step < steps.count - 1; ++step) {
    T now[kTaps][kRows];
    memcpy(now, next, sizeof now);
    load_weights(weight, outputs, step + 1, offsets, next);
    add_products(step, now);
  }
  add_products(steps.count - 1, next);
  T* result = task.result + unit.plane * outputs;
  const int64_t stride = task.shape.weight_channels * outputs;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (!place.owns(r)) continue;
    T* at = result + offsets[r];
#pragma unroll
    for (int m = 0; m < kMembers; ++m, at += stride)
      if (m < unit.members) *at = rounded<T>(sums[r][m]);
  }
}

template <typename T>
bool run(const AggregationForward& task, void* stream) {
  const AggregationShape& shape = task.shape;
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  return with_steps<T>(window, units, [&](auto taps, auto rows) {
    const auto tiling = fast::tiling(
        units, outputs_of(window.rows, rows), outputs_of(window.columns, 1), 1,
        sizeof(Accumulator<T>), [&](int height, int width) {
          return padded_tile(window, height, width, kMembers);
        });
    if (!tiling) return false;
    launch(&forward<T, taps, rows>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           Task<T>{shape, UnitSizes(shape, chunks(shape)), *tiling, nullptr,
                   static_cast<const T*>(task.input),
                   static_cast<const T*>(task.weight),
                   static_cast<T*>(task.output)});
    return true;
  });
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
