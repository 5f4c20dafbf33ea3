// The gradients of the weights of the footprint, for the tensor-core kernels
// that use them up. For .cu files only.
//
// A lane has two weight channels and correlates the 8 channels of grad_output
// that each of them weighed with what a tap shows of value, for two taps at a
// time: these make a step of 16 with those of the other lanes. In memory, tap
// 2 q + u and weight channel 8 * unit + j of a step are its 8 u + j, and in the
// order of a lane's neighbours {2 * member, 2 * member + 1} of tap 2 q, then of
// 2 q + 1. Where there are two weight channels all lanes have both, a step has
// eight taps, and 2 * member + u takes the place of u.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_

#include "cuda_kernels/patchwise/gradients.h"
#include "cuda_kernels/patchwise/tensor_weights.h"

namespace san::patchwise {
namespace {

constexpr int kOwnGradients = 2;

// Taps of a step.
SAN_HOST_DEVICE constexpr int taps_of_step(int unit) {
  return unit == 2 ? 8 : 2;
}

// The unit of G weight channels.
SAN_HOST_DEVICE int gradient_unit(int64_t G) { return G == 2 ? 2 : kWide; }

// Of the step's tap that is a lane's u-th.
template <int kUnit>
__device__ int tap_of(int step, int member, int u) {
  return step * taps_of_step(kUnit) + (kUnit == 2 ? 2 * member : 0) + u;
}

// The lane's first weight channel in a unit.
template <int kUnit>
__device__ int first_gradient(int member) {
  return kUnit == 2 ? 0 : member * kOwnGradients;
}

// grad_output at the lane's two pixels: its two weight channels of each member.
using LaneGrads = float[kMembers][2][2];

// sums[pixel][first, first + 1] = what the pixel gives and sees; both are
// neighbours of `from` of its halo, member by member.
template <int kUnit, typename T>
__device__ void correlate(const T* from, int step, const LaneGrads& grads,
                          float (&sums)[2][4], int first) {
  constexpr int kNear = kUnit == 2 ? kBoundary / (2 * sizeof(T)) : 1;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float low = 0, high = 0;
#pragma unroll
    for (int m = 0; m < kMembers; m += kNear) {
      float seen[2 * kNear];
      load(from + i * step + m * kUnit, seen);
#pragma unroll
      for (int j = 0; j < kNear; ++j) {
        low += grads[m + j][i][0] * seen[2 * j];
        high += grads[m + j][i][1] * seen[2 * j + 1];
      }
    }
    sums[i][first] = low;
    sums[i][first + 1] = high;
  }
}

// The gradients of the weights of the lane's two taps of a step, zero beyond
// the last and where there is no pixel, or no channel of the lane. `from` is
// what the lane's first pixel sees at the first tap.
template <int kUnit, typename T>
__device__ void make_gradients(const Layout& layout, const int* taps, int q,
                               int member, const T* from,
                               const LaneGrads& grads, const bool (&exists)[2],
                               float (&to)[2][4]) {
  const int K = layout.taps(), step = layout.stride * kPixelPitch<kUnit>;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const int tap = tap_of<kUnit>(q, member, u);
    if ((kUnit > 2 && u == 0) || tap < K)
      correlate<kUnit>(from + taps[tap] * kPixelPitch<kUnit>, step, grads, to,
                       2 * u);
    else
      to[0][2 * u] = to[0][2 * u + 1] = to[1][2 * u] = to[1][2 * u + 1] = 0;
    // What both taps see at once would fill the registers.
    if (u == 0) warp_sync();
  }
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
// steps of a unit of weight channels and, where they are few, some rows of the
// tiles; a block eight warps and a chunk of the tiles.
struct CoreWeightPlan {
  static constexpr int kWarps = 8;

  int tiles;          // of 8 channels of hidden
  int owners;         // warps that have all steps of a unit
  int row_parts;      // into which the rows are dealt out
  int units, shares;  // of weight channels; blocks that share the steps of one
  Chunks chunks;

  // Steps whose products fill the registers; of few taps one.
  static SAN_HOST_DEVICE constexpr int steps_of(int tiles, int unit) {
    return unit == 2 ? 1 : tiles == 1 ? 4 : tiles == 2 ? 2 : 1;
  }

  explicit CoreWeightPlan(const PatchwiseCoreForward& task)
      : tiles(tiles_of(task.weight_channels)),
        owners(owners_of(task, tiles)),
        row_parts(row_parts_of(owners)),
        units(static_cast<int>(pieces(task.weight_channels, kWide))),
        shares(static_cast<int>(pieces(owners, kWarps))),
        chunks(task.window, task.batch, int64_t{units} * shares * row_parts) {}

  // Partial sums of each gradient.
  int64_t parts() const { return chunks.count * row_parts; }

 private:
  static int tiles_of(int64_t G) {
    int tiles = 1;
    while (tiles * kWide < G && tiles < 8) tiles *= 2;
    return tiles;
  }
  static int owners_of(const PatchwiseCoreForward& task, int tiles) {
    const int unit = gradient_unit(task.weight_channels);
    return static_cast<int>(
        pieces(task.window.taps(), taps_of_step(unit) * steps_of(tiles, unit)));
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
// Writes partial sums: [parts, G, K, G] and [parts, G, K].
template <typename T>
void launch_core_weights(const PatchwiseCoreBackward& task, float* weights,
                         float* bias, void* stream);
template <typename T>
size_t core_weight_bytes(const PatchwiseCoreForward& task);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_GRADIENTS_H_
