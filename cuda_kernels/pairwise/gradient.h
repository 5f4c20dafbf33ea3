// What two backwards on CUDA end with: from the gradient of the relation a to
// phi (by blocks that own p) or psi (q), and, for p, to scale and shift. A
// block's buffers have sums [P, R] for it, for p two. For .cu files only.
#ifndef CUDA_KERNELS_PAIRWISE_GRADIENT_H_
#define CUDA_KERNELS_PAIRWISE_GRADIENT_H_

#include "cuda_kernels/pairwise/fixed_block.h"

namespace san::pairwise {
namespace {

template <typename Block>
__device__ void clear_relation_sums(const Block& block) {
  for_each_cell(block.t.pixels(), block.t.R, [&](int p, int i) {
    block.b.relation[0][p * block.t.R + i] = 0;
    if (Block::kOwn == Own::kP) block.b.relation[1][p * block.t.R + i] = 0;
  });
}

template <typename Block, typename A = typename Block::A>
__device__ void add_relation_gradients(const Block& block, const A* grad_a) {
  if constexpr (Block::Tile::kFixed)
    return block.add_relation_gradients(grad_a);
  const auto& t = block.t;
  for_each_cell(t.pixels(), t.R, [&](int p, int i) {
    if (block.first + p >= t.count) return;
    const A x = block.own_relation(p, i);
    A sum = 0, scale_sum = 0;
    block.for_each_pair(p, [&](int row, int64_t other) {
      const A g = grad_a[row * t.pitch() + i];
      sum += g;
      if (Block::kOwn == Own::kP)
        scale_sum += g * (x - block.other_relation(other, i));
    });
    block.b.relation[0][p * t.R + i] += sum;
    if (Block::kOwn == Own::kP) block.b.relation[1][p * t.R + i] += scale_sum;
  });
}

template <typename Block, typename T, typename A>
__device__ void write_relation_gradients(const Block& block, const A* scale,
                                         T* grad_features, double* part,
                                         const PairwisePart& at) {
  const A* sums = block.b.relation[0];
  block.write_relation(grad_features, [&](int p, int i) {
    const A grad = scale[i] * sums[p * block.t.R + i];
    return Block::kOwn == Own::kP ? grad : -grad;
  });
  if (Block::kOwn == Own::kQ) return;
  block.add_pixels(block.b.relation[1], part + at.first);
  block.add_pixels(sums, part + at.second);
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_GRADIENT_H_
