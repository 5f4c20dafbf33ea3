// What the tensor-core kernels of the fused patchwise attention multiply. For
// .cu files only.
//
// Elements T are bfloat16 or float16, or float, which tensor cores take as
// TF32, or SplitFloat. A step is 16 deep for all of them. The order of what is
// summed over is free, so a lane holds four neighbours of each row, at
// 4 * member: they lie side by side in memory. With group = lane / 4 and
// member = lane % 4, of
//
//   sums [16, 8]   a lane has [group + i / 2 * 8, 2 * member + i % 2]
//   left [16, 16]  [group + {0, 1} * 8, 4 * member + {0, 1, 2, 3}]
//   right [16, 8]  [4 * member + {0, 1, 2, 3}, group]
//
// SplitFloat is float32 as the sum of two TF32, the second what the first is
// off by: together they have 22 bits or more. The product of both second parts
// is left out, so a product is off by 3 * 2^-22 of it at most, either way. Each
// step has sums of its own, which are added in float32: tensor cores cut off
// where float32 rounds, and a long sum would show it. Infinities become NaN.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_

#include <type_traits>

#include "cuda_kernels/cuda/matrix.h"
#include "cuda_kernels/cuda/pairs.h"
#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/relu.h"

namespace san::patchwise {
namespace {

// Columns and depth of a step, and its rows.
constexpr int kWide = 8, kDeep = 16, kHigh = 16;

template <typename T>
constexpr bool kIsHalf = sizeof(T) == 2;
template <typename T>
constexpr bool kIsSplit = std::is_same_v<T, SplitFloat>;

// Words of a left side in a lane; a right side has half as many.
template <typename T>
constexpr int kLeftWords = kIsHalf<T>    ? 4
                           : kIsSplit<T> ? 16
                                         : 8;

template <typename T>
struct alignas(16) Left {
  uint32_t words[kLeftWords<T>];
};

// On a boundary for one load, or two.
template <typename T>
struct alignas(kIsHalf<T> ? 8 : 16) Right {
  uint32_t words[kLeftWords<T> / 2];
};

// Sets element i of a side in float32.
template <typename T, int kCount>
__device__ void set(uint32_t (&words)[kCount], int i, float value) {
  if constexpr (kIsSplit<T>) {
    // Of a NaN the first part may be none, the second is.
    constexpr uint32_t kBits = ~0x1fffu;
    words[i] = (float_bits(value) + 0x1000) & kBits;
    words[kCount / 2 + i] = float_bits(value - bits_float(words[i])) & kBits;
  } else {
    words[i] = tf32(value);
  }
}

// values[i][j]: of row group + i * 8, rectified if asked for.
template <typename T, bool kRectified = false>
__device__ Left<T> left_of(const float (&values)[2][4]) {
  Left<T> left;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float low = values[i][2 * j], high = values[i][2 * j + 1];
      if constexpr (kIsHalf<T>) {
        left.words[i + 2 * j] = kRectified ? rectified_pair<T>(low, high)
                                           : rounded_pair<T>(low, high);
      } else {
        set<T>(left.words, 4 * j + i, kRectified ? relu(low) : low);
        set<T>(left.words, 4 * j + 2 + i, kRectified ? relu(high) : high);
      }
    }
  return left;
}

template <typename T>
__device__ Right<T> right_of(const float (&values)[4]) {
  Right<T> right;
  if constexpr (kIsHalf<T>) {
    right.words[0] = rounded_pair<T>(values[0], values[1]);
    right.words[1] = rounded_pair<T>(values[2], values[3]);
  } else {
    for (int j = 0; j < 4; ++j) set<T>(right.words, j, values[j]);
  }
  return right;
}

// sums += left right
template <typename T>
__device__ void multiply(float (&sums)[4], const Left<T>& left,
                         const Right<T>& right) {
  const auto& a = left.words;
  const auto& b = right.words;
  if constexpr (kIsHalf<T>) {
    multiply_16x8x16<T>(sums, a, b);
  } else {
    const auto add = [&](int l, int r, float (&to)[4]) {
      multiply_16x8x8(to, {a[l], a[l + 1], a[l + 2], a[l + 3]},
                      {b[r], b[r + 1]});
      multiply_16x8x8(to, {a[l + 4], a[l + 5], a[l + 6], a[l + 7]},
                      {b[r + 2], b[r + 3]});
    };
    if constexpr (kIsSplit<T>) {
      float step[4] = {};  // the small products first
      add(8, 0, step);
      add(0, 4, step);
      add(0, 0, step);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] += step[i];
    } else {
      add(0, 0, sums);
    }
  }
}

// A value as an element that products take.
template <typename T>
__device__ T as_factor(float value) {
  if constexpr (std::is_same_v<T, float>)
    return bits_float(tf32(value));
  else
    return rounded<T>(value);
}

// Sets element i of a side in float32 to a factor.
template <typename T, int kCount>
__device__ void set_factor(uint32_t (&words)[kCount], int i, T factor) {
  if constexpr (kIsSplit<T>)
    set<T>(words, i, factor.value);
  else
    words[i] = float_bits(factor);
}

// kCount neighbours, on a boundary of as many elements.
template <int kCount, typename T>
__device__ void load(const T* from, float (&to)[kCount]) {
  constexpr int kWords = kCount * sizeof(T) / 4;
  struct alignas(kWords * 4) Words {
    uint32_t at[kWords];
  };
  const Words words = *reinterpret_cast<const Words*>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if constexpr (!kIsHalf<T>)
      to[i] = bits_float(words.at[i]);
    else
      to[i] =
          i % 2 ? second_of<T>(words.at[i / 2]) : first_of<T>(words.at[i / 2]);
}

// Four neighbours in memory that are factors.
template <typename T>
__device__ Right<T> right_at(const T* from) {
  if constexpr (!kIsSplit<T>) return *reinterpret_cast<const Right<T>*>(from);
  float values[4];
  load(from, values);
  return right_of<T>(values);
}

// Likewise of two rows.
template <typename T>
__device__ Left<T> left_at(const T* low, const T* high) {
  const Right<T> rows[2] = {right_at(low), right_at(high)};
  constexpr int kHalf = kIsHalf<T> ? 2 : 4;  // words of a row's part
  Left<T> left;
#pragma unroll
  for (int part = 0; part < (kIsSplit<T> ? 2 : 1); ++part)
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < kHalf; ++j)
        left.words[part * 2 * kHalf + i + 2 * j] =
            rows[i].words[part * kHalf + j];
  return left;
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_
