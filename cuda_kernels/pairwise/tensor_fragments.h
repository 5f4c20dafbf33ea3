// The fused pairwise attention on tensor cores: a lane's share of the factors
// and results of products, 16 pairs by 16 channels. For .cu files only.
//
// A lane has of 16 channels, in float, Share: share[n][i] is of row
// lane / 4 + i / 2 * 8 and channel 8 n + 2 (lane % 4) + i % 2, as the sums of
// two products lie (cuda/matrix.h). Rounded it is the left factor of a product
// of depth 16, or of two products of depth 8 in TF32, which take the channels
// in another order, the same in both factors.
//
// SplitFloat is float32 as the sum of three bfloat16, each what the ones before
// are off by: 24 bits, so nothing is lost. Of the nine products of two numbers
// the three smallest are left out, 2^-26 of them in all. Each step has sums of
// its own, which are added in float32: tensor cores cut off where float32
// rounds, and a long sum would show it. Infinities become NaN.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_FRAGMENTS_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_FRAGMENTS_H_

#include "cuda_kernels/cuda/matrix.h"
#include "cuda_kernels/cuda/pairs.h"
#include "cuda_kernels/pairwise/tensor_tile.h"

namespace san::pairwise {
namespace {

using Share = float[2][4];

template <typename T>
constexpr bool kIsTf32 = std::is_same_v<T, float>;
template <typename T>
constexpr int kParts = kIsSplit<T> ? 3 : 1;
// What products of 16 bits take.
template <typename T>
using Factor = std::conditional_t<kIsSplit<T>, bfloat16, T>;

// The left factor, and the right one, of 16 channels by 8 columns; one part
// after the other.
template <typename T>
struct Left {
  static constexpr int kWords = kIsTf32<T> ? 8 : 4 * kParts<T>;
  uint32_t words[kWords];
};
template <typename T>
struct Right {
  static constexpr int kWords = kIsTf32<T> ? 4 : 2 * kParts<T>;
  uint32_t words[kWords];
};

// The words of a part, kCount of them.
template <int kCount, typename F>
__device__ auto& part_of(F& factor, int part) {
  using Word = std::remove_reference_t<decltype(factor.words[0])>;
  return *reinterpret_cast<Word(*)[kCount]>(factor.words + kCount * part);
}

// Calls f(part, pair) with the parts of two numbers, or of their relu.
template <typename T, bool kRectified, typename F>
__device__ void split(float first, float second, F f) {
  if constexpr (!kIsSplit<T>) {
    f(0, kRectified ? rectified_pair<T>(first, second)
                    : rounded_pair<T>(first, second));
  } else {
    if (kRectified) first = relu(first), second = relu(second);
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part) {
      const uint32_t pair = rounded_pair<bfloat16>(first, second);
      f(part, pair);
      first -= first_of<bfloat16>(pair);
      second -= second_of<bfloat16>(pair);
    }
  }
}

// relu(share), rounded, or share itself.
template <typename T, bool kRectified>
__device__ Left<T> left_of(const Share& share) {
  Left<T> left;
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float first = share[n][2 * row], second = share[n][2 * row + 1];
      if constexpr (kIsTf32<T>) {
        left.words[4 * n + row] = tf32(kRectified ? relu(first) : first);
        left.words[4 * n + row + 2] = tf32(kRectified ? relu(second) : second);
      } else {
        split<T, kRectified>(first, second, [&](int part, uint32_t pair) {
          left.words[4 * part + 2 * n + row] = pair;
        });
      }
    }
  return left;
}

// Of the column that the lane has; factor(i) is that of channel i of 16.
template <typename T, typename F>
__device__ Right<T> right_of(F factor) {
  Right<T> right;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int i = 8 * n + 2 * (lane() % 4);
    const float first = factor(i), second = factor(i + 1);
    if constexpr (kIsTf32<T>) {
      right.words[2 * n] = tf32(first);
      right.words[2 * n + 1] = tf32(second);
    } else {
      split<T, false>(first, second, [&](int part, uint32_t pair) {
        right.words[2 * part + n] = pair;
      });
    }
  }
  return right;
}

// sums += left right.
template <typename T>
__device__ void multiply(float (&sums)[4], const Left<T>& left,
                         const Right<T>& right) {
  const auto& a = left.words;
  const auto& b = right.words;
  if constexpr (kIsTf32<T>) {
    multiply_16x8x8(sums, {a[0], a[1], a[2], a[3]}, {b[0], b[1]});
    multiply_16x8x8(sums, {a[4], a[5], a[6], a[7]}, {b[2], b[3]});
  } else if constexpr (!kIsSplit<T>) {
    multiply_16x8x16<T>(sums, a, b);
  } else {
    float step[4] = {};
#pragma unroll
    for (int order = 2; order >= 0; --order)  // the small products first
#pragma unroll
      for (int i = order; i >= 0; --i)
        multiply_16x8x16<bfloat16>(step, part_of<4>(left, i),
                                   part_of<2>(right, order - i));
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] += step[i];
  }
}

// Two elements side by side, on a boundary of both.
template <typename T>
struct Two {
  float first, second;
};
template <typename T>
__device__ Two<T> two(const void* from) {
  if constexpr (sizeof(T) == 4) {
    const float2 pair = *static_cast<const float2*>(from);
    return {pair.x, pair.y};
  } else {
    const uint32_t pair = *static_cast<const uint32_t*>(from);
    return {first_of<T>(pair), second_of<T>(pair)};
  }
}

template <typename T>
__device__ void store_two(T* to, float first, float second) {
  if constexpr (sizeof(T) == 4)
    *reinterpret_cast<float2*>(to) = {first, second};
  else
    *reinterpret_cast<uint32_t*>(to) = rounded_pair<T>(first, second);
}

// The left factors that the warps of a team make, each of its 16 channels, for
// all of them; kStages in turn. A warp alone keeps its own, the newest.
template <typename S, int kStages>
class Exchange {
 public:
  using T = typename S::T;

  SAN_HOST_DEVICE explicit Exchange(Arena& memory) {
    if (S::kWarps > 1)
      shared_ = memory.take<uint4>(S::kTeams * kStages * kStage);
  }

  __device__ void put(const Lane<S>& lane, int stage, const Left<T>& left) {
    if constexpr (S::kWarps == 1) {
      own_ = left;
    } else {
#pragma unroll
      for (int i = 0; i < kEach; ++i)
        at(lane, stage, lane.warp)[32 * i] = {
            left.words[4 * i], left.words[4 * i + 1], left.words[4 * i + 2],
            left.words[4 * i + 3]};
    }
  }

  // That of one warp.
  __device__ Left<T> get(const Lane<S>& lane, int stage, int warp) const {
    if constexpr (S::kWarps == 1) {
      return own_;
    } else {
      Left<T> left;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const uint4 words = at(lane, stage, warp)[32 * i];
        left.words[4 * i] = words.x;
        left.words[4 * i + 1] = words.y;
        left.words[4 * i + 2] = words.z;
        left.words[4 * i + 3] = words.w;
      }
      return left;
    }
  }

 private:
  static constexpr int kEach = Left<T>::kWords / 4;
  static constexpr int kStage = S::kWarps * kEach * 32;

  __device__ uint4* at(const Lane<S>& lane, int stage, int warp) const {
    return shared_ + (lane.team * kStages + stage) * kStage +
           warp * kEach * 32 + 4 * lane.group + lane.member;
  }

  uint4* shared_ = nullptr;
  Left<T> own_;
};

// Waits for the warps of a team; each sees then what the others have put.
template <typename S>
__device__ void wait_for_team(const Lane<S>& lane) {
  if constexpr (S::kWarps > 1) {
    if constexpr (S::kTeams > 1)
      barrier(1 + lane.team, 32 * S::kWarps);
    else
      __syncthreads();
  }
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_FRAGMENTS_H_
