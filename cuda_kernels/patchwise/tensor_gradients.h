// The gradients of the weights of the footprint, for the tensor-core kernels
// that use them up. For .cu files only.
//
// A lane has two weight channels, of a unit of 8 or 2, and correlates the 8
// channels of grad_output that each of them weighed with what a tap shows of
// value. Two taps make a step of 16: tap 2 q + u and weight channel 8 * unit +
// j are its 8 u + j in memory, and in the order of a lane's neighbours {2 *
// member, 2 * member + 1} of tap 2 q, then of 2 q + 1.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_

#include "cuda_kernels/patchwise/gradients.h"
#include "cuda_kernels/patchwise/tensor_weights.h"

namespace san::patchwise {
namespace {

constexpr int kOwnGradients = 2;

// grad_output at the lane's two pixels: its two weight channels of each member.
using LaneGrads = float[kMembers][2][2];

// sums[pixel][0, 1] += what the pixel gives and sees; both are neighbours of
// `from` of its halo, member by member.
template <int kUnit, typename T>
__device__ void correlate(const T* from, int step, const LaneGrads& grads,
                          float (&sums)[2][4], int first) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float low = 0, high = 0;
#pragma unroll
    for (int m = 0; m < kMembers; ++m) {
      float seen[2];
      load(from + i * step + m * kUnit, seen);
      low += grads[m][i][0] * seen[0];
      high += grads[m][i][1] * seen[1];
    }
    sums[i][first] = low;
    sums[i][first + 1] = high;
  }
}

// The gradients of the weights of taps 2 q and 2 q + 1, zero beyond the last
// and where there is no pixel, or no channel of the lane. `from` is what the
// lane's first pixel sees at the first tap.
template <int kUnit, typename T>
__device__ void make_gradients(const Layout& layout, const int* taps, int q,
                               const T* from, const LaneGrads& grads,
                               const bool (&exists)[2], float (&to)[2][4]) {
  const int K = layout.taps(), step = layout.stride * kPixelPitch<kUnit>;
  correlate<kUnit>(from + taps[2 * q] * kPixelPitch<kUnit>, step, grads, to, 0);
  warp_sync();  // what both taps see at once would fill the registers
  if (2 * q + 1 < K)
    correlate<kUnit>(from + taps[2 * q + 1] * kPixelPitch<kUnit>, step, grads,
                     to, 2);
  else
    to[0][2] = to[0][3] = to[1][2] = to[1][3] = 0;
  // Times a NaN that a tap shows, the zeros of no pixel would be NaN.
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if (!exists[i])
#pragma unroll
      for (int j = 0; j < 4; ++j) to[i][j] = 0;
}

// grad_output at the lane's pixels, neighbours in a tile: `from` is the
// first's.
template <int kUnit, typename T>
__device__ void load_grads(const T* from, LaneGrads& grads) {
#pragma unroll
  for (int m = 0; m < kMembers; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      load(from + i * kSide * kPixelPitch<kUnit> + m * kUnit, grads[m][i]);
}

// How the gradients of weight and bias are cut into work: a warp owns some
// pairs of taps of a unit of 8 weight channels, a block eight warps and a chunk
// of the tiles.
struct CoreWeightPlan {
  static constexpr int kWarps = 8;

  int tiles;          // of 8 channels of hidden
  int units, shares;  // of weight channels; blocks that share the taps of one
  Chunks chunks;

  // Pairs of taps whose products fill the registers.
  static SAN_HOST_DEVICE constexpr int pairs_of(int tiles) {
    return tiles == 1 ? 4 : tiles == 2 ? 2 : 1;
  }

  explicit CoreWeightPlan(const PatchwiseCoreForward& task)
      : tiles(tiles_of(task.weight_channels)),
        units(static_cast<int>(pieces(task.weight_channels, kWide))),
        shares(static_cast<int>(
            pieces(task.window.taps(), 2 * kWarps * pairs_of(tiles)))),
        chunks(task.window, task.batch, int64_t{units} * shares) {}

 private:
  static int tiles_of(int64_t G) {
    int tiles = 1;
    while (tiles * kWide < G && tiles < 8) tiles *= 2;
    return tiles;
  }
};

}  // namespace

// The other parts of the core's backward pass, each in a file of its own, and
// the shared memory of their blocks.
template <typename T>
void launch_tensor_value_gradients(const PatchwiseCoreBackward& task,
                                   void* workspace, void* stream);
template <typename T>
size_t value_gradient_bytes(const PatchwiseCoreForward& task);
// Writes partial sums: [chunks, G, K, G] and [chunks, G, K].
template <typename T>
void launch_core_weights(const PatchwiseCoreBackward& task, float* weights,
                         float* bias, void* stream);
template <typename T>
size_t core_weight_bytes(const PatchwiseCoreForward& task);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_
