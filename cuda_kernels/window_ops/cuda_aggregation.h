// What aggregation and its gradients share on CUDA. For .cu files only.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_AGGREGATION_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_AGGREGATION_H_

#include "cuda_kernels/window_ops/aggregation.h"
#include "cuda_kernels/window_ops/cuda_steps.h"

namespace san::fast {

constexpr int kMembers = 8;

// Of kMembers channels, or fewer in the last one.
inline int64_t chunks(const AggregationShape& shape) {
  const int64_t members = shape.channels / shape.weight_channels;
  return (members + kMembers - 1) / kMembers;
}

// Whether the tiled kernels take it: planes of pixels, and indices that fit
// into int.
inline bool suits_tiles(const AggregationShape& shape) {
  return shape.layout == Layout::kRowMajor && is_small(shape.window) &&
         shape.channels <= 0x7fffffff;
}

// How units are cut: a weight channel's in chunks of its channels, or whole.
struct UnitSizes {
  UnitSizes(const AggregationShape& shape, int64_t chunks)
      : by_chunks(static_cast<uint32_t>(chunks)),
        by_groups(static_cast<uint32_t>(shape.weight_channels)),
        members(static_cast<int>(shape.channels / shape.weight_channels)) {}

  Divisor<uint32_t> by_chunks, by_groups;
  int members;  // of a weight channel
};

// A unit: the weight channel's plane, (n, g), and the first of its channels,
// (n, c).
struct Unit {
  __device__ Unit(const AggregationShape& shape, const UnitSizes& sizes,
                  unsigned index) {
    const auto [whole, chunk] = sizes.by_chunks.divide(index);
    const auto [n, g] = sizes.by_groups.divide(whole);
    const unsigned first = chunk * kMembers;
    weight_plane = whole;
    plane = n * shape.channels + g + first * shape.weight_channels;
    members = sizes.members - static_cast<int>(first);
    if (sizes.by_chunks.number() > 1 && members > kMembers) members = kMembers;
  }

  // Its channels in a tensor that has `size` elements a channel.
  template <typename T>
  __device__ Planes<T> planes(const T* tensor, const AggregationShape& shape,
                              int64_t size, const Axis& columns) const {
    return {tensor + plane * size, shape.weight_channels * size, members,
            static_cast<int>(columns.size)};
  }

  int64_t weight_plane, plane;
  int members;  // from the first on
};

// Computes the gradient of the input of row-major images for which there is
// such a kernel; false if there is none.
bool run_small_images(const AggregationBackward& task, void* stream);

template <typename T>
struct Task {
  AggregationShape shape;
  UnitSizes sizes;
  Tiling tiling;
  const T *grad_output, *input, *weight;
  T* result;
};

// Brings the padded pixels under the tile of outputs to shared memory, all
// channels of the unit, kMembers behind kMembers. All threads call it.
template <int kWidth, typename T>
__device__ void load_pixels(const Task<T>& task, const Place& place,
                            const Unit& unit,
                            UnitMemory<Accumulator<T>, kMembers> tile) {
  const Axis& rows = task.shape.window.rows;
  const Axis& columns = task.shape.window.columns;
  find_sources(task.tiling, rows, position(rows, place.top, 0), columns,
               position(columns, place.left, 0));
  __syncthreads();
  if (place.exists) {
    Planes<T> from = unit.planes(task.input, task.shape,
                                 task.shape.window.pixels(), columns);
    for (; from.count > 0; tile.advance()) {
      if (rows.mode == PaddingMode::kZeros)
        fill<true, kWidth>(task.tiling, place, from, tile);
      else
        fill<false, kWidth>(task.tiling, place, from, tile);
      from.data += kMembers * from.stride;
      from.count -= kMembers;
    }
  }
  __syncthreads();
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_AGGREGATION_H_
