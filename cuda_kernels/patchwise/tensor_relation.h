// Parameters of the hidden layer in the order in which the tensor-core kernels
// of its gradients use them. For .cu files only.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_RELATION_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_RELATION_H_

#include "cuda_kernels/patchwise/gradients.h"
#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/patchwise/tensor_images.h"

namespace san::patchwise {
namespace {

// Channels of the relation: entry e is tap e of psi, or phi where e = K.
struct Entries {
  int R, G, K;
  int blocks, depth;  // of 16 relation channels, of 16 weight channels

  explicit Entries(const PatchwiseHiddenForward& task)
      : R(static_cast<int>(task.relation_channels)),
        G(static_cast<int>(task.weight_channels)),
        K(static_cast<int>(task.window.taps())),
        blocks(static_cast<int>(pieces(R, kDeep))),
        depth(static_cast<int>(pieces(G, kDeep))) {}

  SAN_HOST_DEVICE int64_t S() const { return R * int64_t{K + 1}; }
  // Where channel r of an entry is among all S.
  SAN_HOST_DEVICE int64_t at(int e, int r) const {
    return e == K ? r : R + int64_t{r} * K + e;
  }
};

template <typename T>
struct RelationParameters : Entries {
  Left<T>* left;  // weights: [K + 1, blocks, depth, lanes]
  float* affine;  // scale, shift: [K + 1, blocks, 16, 2]

  RelationParameters(const PatchwiseHiddenForward& task, Arena& arena)
      : Entries(task),
        left(arena.take<Left<T>>(fragments() * 32)),
        affine(arena.take<float>(affines() * 2)) {}

  SAN_HOST_DEVICE int64_t fragments() const {
    return int64_t{K + 1} * blocks * depth;
  }
  SAN_HOST_DEVICE int64_t affines() const {
    return int64_t{K + 1} * blocks * kDeep;
  }
};

template <typename T>
struct PackRelation {
  RelationParameters<T> to;
  const float *scale, *shift, *weight;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    pack_relation(PackRelation<T> a) {
  const RelationParameters<T>& p = a.to;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = first; i < p.fragments() * 32; i += stride) {
    const int lane = static_cast<int>(i % 32);
    const int64_t step = i / 32, block = step / p.depth;
    const int e = static_cast<int>(block / p.blocks);
    const int r = static_cast<int>(block % p.blocks) * kDeep + lane / 4;
    const int g = static_cast<int>(step % p.depth) * kDeep + lane % 4 * 4;
    float values[2][4];
    for (int j = 0; j < 2; ++j)
      for (int m = 0; m < 4; ++m)
        values[j][m] = r + j * 8 < p.R && g + m < p.G
                           ? a.weight[(g + m) * p.S() + p.at(e, r + j * 8)]
                           : 0;
    p.left[i] = left_of<T>(values);
  }
  for (int64_t i = first; i < p.affines(); i += stride) {
    const int64_t block = i / kDeep;
    const int e = static_cast<int>(block / p.blocks);
    const int r = static_cast<int>(block % p.blocks) * kDeep +
                  static_cast<int>(i % kDeep);
    p.affine[i * 2] = r < p.R ? a.scale[p.at(e, r)] : 0;
    p.affine[i * 2 + 1] = r < p.R ? a.shift[p.at(e, r)] : 0;
  }
}

// How grad_weight is cut into work: a warp owns [16, tiles * 8] of it for each
// of some entries, `taps` of psi's or phi's, and, where such units are few,
// some rows of the tiles; a block eight warps and a chunk of the tiles of the
// image.
struct HiddenWeightPlan {
  static constexpr int kWarps = 8;

  int tiles, taps, columns;  // tiles of 8 weight channels; blocks of those
  int groups, units;         // of entries; of a column
  int row_parts, shares;     // of the rows; blocks that share the units
  Chunks chunks;

  explicit HiddenWeightPlan(const PatchwiseHiddenForward& task)
      : HiddenWeightPlan(task, Entries(task)) {}

  HiddenWeightPlan(const PatchwiseHiddenForward& task, const Entries& p)
      : tiles(p.G > 16  ? 4
              : p.G > 8 ? 2
                        : 1),
        taps(taps_of(p, 8 / tiles)),
        columns(static_cast<int>(pieces(p.G, tiles * kWide))),
        groups(groups_of(p, taps)),
        units(p.blocks * groups),
        row_parts(row_parts_of(units)),
        shares(static_cast<int>(pieces(units, kWarps))),
        chunks(task.window, task.batch, columns * shares * row_parts) {}

  // Partial sums of the gradient.
  int64_t parts() const { return chunks.count * row_parts; }

 private:
  static int groups_of(const Entries& p, int taps) {
    return static_cast<int>(pieces(p.K, taps)) + 1;
  }
  // As few as leave half of a block's warps for the other rows.
  static int taps_of(const Entries& p, int most) {
    for (int taps = 1; taps < most; ++taps)
      if (row_parts_of(p.blocks * groups_of(p, taps)) > 1) return taps;
    return most;
  }
};

}  // namespace

// Writes the parts of grad_weight of the hidden layer, [parts, G, S].
template <typename T>
void launch_hidden_weights(const PatchwiseHiddenForward& task,
                           const float* affine, const float* grad_hidden,
                           float* parts, void* stream);
// The shared memory of a block of that.
template <typename T>
size_t hidden_weight_bytes(const PatchwiseHiddenForward& task);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_RELATION_H_
