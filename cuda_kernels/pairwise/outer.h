// Outer products that a block sums over its pairs: transpose(u) v of buffers
// u [rows, R or G] and v [rows, R]. For .cu files only.
//
// In a FixedTile a thread keeps its 4 x 4 sums in registers, in float32, over
// all taps of up to kTilesOfSum tiles, and then adds them to the block's part,
// in float64. Otherwise it adds them chunk by chunk.
#ifndef CUDA_KERNELS_PAIRWISE_OUTER_H_
#define CUDA_KERNELS_PAIRWISE_OUTER_H_

#include "cuda_kernels/pairwise/fixed_block.h"

namespace san::pairwise {
namespace {

// So few that float32 loses no more than a chunk's sums do.
constexpr int kTilesOfSum = 8;

enum class Height { kR, kG };

template <typename Block, Height kHeight, bool kFixed = Block::Tile::kFixed>
class OuterProduct {
 public:
  using A = typename Block::A;

  __device__ explicit OuterProduct(double* sums) : sums_(sums) {}
  __device__ void add(const Block& block, const A* u, const A* v) {
    const auto& t = block.t;
    block.add_outer(u, kHeight == Height::kR ? t.R : t.G, v, t.R, sums_);
  }
  __device__ void flush() {}

 private:
  double* sums_;
};

template <typename Block, Height kHeight>
class OuterProduct<Block, kHeight, true> {
 public:
  using A = typename Block::A;

  __device__ explicit OuterProduct(double* sums) : sums_(sums) {}

  __device__ void add(const Block& block, const A* u, const A* v) {
    const auto& t = block.t;
    const int item = item_of(0), pitch = t.pitch();
    if (segment() >= kSegments) return;
    const A* left = u + item / kAcross * 4;
    const A* right = v + item % kAcross * 4;
#pragma unroll 2
    for (int row = segment(); row < t.rows(); row += kSegments) {
      const Four<A> y = four(right + row * pitch);
#pragma unroll
      for (int n = 0; n < kOfThread; ++n) {
        const Four<A> x =
            four(left + row * pitch + n * (kThreads / kAcross) * 4);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum_[n][i][j] += x.v[i] * y.v[j];
      }
    }
  }

  __device__ void flush() {
    if (segment() >= kSegments) return;
#pragma unroll
    for (int n = 0; n < kOfThread; ++n) {
      double* to = sums_ + int64_t(segment()) * 16 * kItems + item_of(n);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        to[i * kItems] += sum_[n][i / 4][i % 4];
        sum_[n][i / 4][i % 4] = 0;
      }
    }
  }

 private:
  // As OuterSums has them.
  static constexpr int kAcross = padded(Block::R) / 4;
  static constexpr int kItems =
      padded(kHeight == Height::kR ? Block::R : Block::G) / 4 * kAcross;
  static constexpr int kSegments = kItems < kThreads ? kThreads / kItems : 1;
  static constexpr int kOfThread = kItems > kThreads ? kItems / kThreads : 1;

  __device__ static int item_of(int n) {
    return static_cast<int>(threadIdx.x) %
               (kItems < kThreads ? kItems : kThreads) +
           n * kThreads;
  }
  __device__ static int segment() {
    return static_cast<int>(threadIdx.x) /
           (kItems < kThreads ? kItems : kThreads);
  }

  double* sums_;
  A sum_[kOfThread][4][4] = {};
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_OUTER_H_
