// Matrices of the taps of a slab and the pixels of a tile, made and used in
// shared memory by the CUDA kernels of the fused patchwise attention. For .cu
// files only.
#ifndef CUDA_KERNELS_PATCHWISE_MIX_H_
#define CUDA_KERNELS_PATCHWISE_MIX_H_

#include <stdexcept>
#include <string>

#include "cuda_kernels/patchwise/tile.h"

namespace san::patchwise {
namespace {

// Channels of the image that `mix` has in shared memory at a time.
constexpr int kDepth = 16;

// sums[tap, p] = sum over d of weight[tap * tap_step + d * depth_step]
//                              * image[p * depth + d]
template <typename T>
struct Mix {
  const T *image, *weight;
  int depth;
  int64_t tap_step, depth_step;
};

template <typename T>
struct MixMemory {
  T *pixels, *weights;
  int stride;  // from one channel's weights to the next

  // A stride of 4 more than a multiple of 32 spreads a column over the banks.
  SAN_HOST_DEVICE MixMemory(const Layout& layout, Arena& arena)
      : pixels(arena.take<T>(kDepth * kTapStride)),
        weights(arena.take<T>(kDepth * ((layout.rows() + 27) / 32 * 32 + 4))),
        stride((layout.rows() + 27) / 32 * 32 + 4) {}
};

// Transposes where the channels of a tap lie side by side. Rows beyond the taps
// become zero.
template <typename T>
__device__ void stage_weights(const Mix<T>& m, const MixMemory<T>& memory,
                              int taps, int rows, int first, int depth) {
  const int fast = m.depth_step == 1 ? kDepth : 32;
  const int lane = threadIdx.x % fast, at = threadIdx.x / fast;
  const int step = blockDim.x / fast;
  const T* from = m.weight + first * m.depth_step;
  if (m.depth_step == 1) {
    if (lane < depth)
      copy<T>(
          at, rows, step,
          [&](int tap) {
            return tap < taps ? from[tap * m.tap_step + lane] : T(0);
          },
          [&](int tap, T value) {
            memory.weights[lane * memory.stride + tap] = value;
          });
  } else {
    for (int tap = lane; tap < rows; tap += fast)
      copy<T>(
          at, depth, step,
          [&](int d) {
            return tap < taps ? from[tap * m.tap_step + d * m.depth_step]
                              : T(0);
          },
          [&](int d, T value) {
            memory.weights[d * memory.stride + tap] = value;
          });
  }
}

// The sums of the thread's 8 taps, from 8 * slot on, for its quad.
template <typename T>
__device__ void mix(const Layout& layout, const Tile& tile, const Slab& slab,
                    const Mix<T>& m, const MixMemory<T>& memory,
                    T (&sums)[kOwned][4]) {
  const Place place;
  for (int first = 0; first < m.depth; first += kDepth) {
    const int depth = m.depth - first < kDepth ? m.depth - first : kDepth;
    __syncthreads();
    stage_rows<T>(layout, tile, {m.image + first, m.depth}, depth,
                  memory.pixels);
    stage_weights(m, memory, slab.taps, layout.rows(), first, depth);
    __syncthreads();
    if (place.slot * kOwned >= slab.taps) continue;
    const T* weights = memory.weights + place.slot * kOwned;
    for (int d = 0; d < depth; ++d) {
      const Quad<T> x =
          quad_at(memory.pixels + d * kTapStride + place.quad * 4);
      const Quad<T> low = quad_at(weights + d * memory.stride);
      const Quad<T> high = quad_at(weights + d * memory.stride + 4);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sums[i][j] += low.at[i] * x.at[j];
          sums[i + 4][j] += high.at[i] * x.at[j];
        }
    }
  }
}

// Writes what `mix` left with each thread, as matrix[tap * kTapStride + pixel].
template <typename T>
__device__ void store_taps(const Slab& slab, const T (&sums)[kOwned][4],
                           T* matrix) {
  const Place place;
  if (place.slot * kOwned >= slab.taps) return;
  T* to = matrix + place.slot * kOwned * kTapStride + place.quad * 4;
#pragma unroll
  for (int i = 0; i < kOwned; ++i)
    quad_at(to + i * kTapStride) = {sums[i][0], sums[i][1], sums[i][2],
                                    sums[i][3]};
}

// The weights of the footprint of one weight channel: what the core's forward
// and the gradient of value make of hidden. `bias` and `weight` begin with the
// slab's first tap. A barrier has to follow.
template <typename T>
__device__ void make_weights(const Layout& layout, const Tile& tile,
                             const Slab& slab, const T* hidden, const T* weight,
                             const T* bias, int G, const MixMemory<T>& memory,
                             T* matrix) {
  const Place place;
  T sums[kOwned][4];
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int tap = place.slot * kOwned + i;
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = tap < slab.taps ? bias[tap] : T(0);
  }
  mix(layout, tile, slab, {hidden, weight, G, G, 1}, memory, sums);
  store_taps(slab, sums, matrix);
}

// As many threads as the taps of a slab occupy.
inline unsigned threads_for(const Layout& layout) {
  return layout.rows() * kQuads <= kOwned * kMostThreads / 2 ? kMostThreads / 2
                                                             : kMostThreads;
}

// The largest slabs with which a block of a kernel fits into shared memory.
// Throws std::invalid_argument if one row of the footprint is too much.
template <typename Bytes>
Layout fitting_layout(const Window& window, Bytes bytes) {
  Layout layout = layout_of(window);
  if (bytes(layout) <= kOrdinarySharedBytes) return layout;
  const size_t most = most_shared_bytes();
  while (layout.lines > 1 && bytes(layout) > most) --layout.lines;
  if (bytes(layout) <= most) return layout;
  throw std::invalid_argument(
      "patchwise attention: kernel_size must leave room in a block's shared "
      "memory, got " +
      std::to_string(layout.k()));
}

// Likewise for kernels that have at hand what some neighbouring weight channels
// weigh, whose members number M each: of one alone, whose channels lie G apart,
// memory would hand out a whole sector for each element.
template <typename Bytes>
Layout grouped_layout(const Window& window, int G, int M, Bytes bytes,
                      int most = kMostGroup) {
  Layout layout = layout_of(window);
  if (layout.slabs() > 1 || M > kOwned) return fitting_layout(window, bytes);
  while (layout.group < most && G % (2 << layout.group) == 0) ++layout.group;
  for (; layout.group > 0; --layout.group)
    if (bytes(layout) <= most_shared_bytes()) return layout;
  return fitting_layout(window, bytes);
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_MIX_H_
