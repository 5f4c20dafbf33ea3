// What the tensor-core kernels of the fused patchwise attention multiply. For
// .cu files only.
//
// Elements T are bfloat16 or float16, or float, which tensor cores take as
// TF32. A step is 16 deep for all of them. The order of what is summed over is
// free, so a lane holds four neighbours of each row, at 4 * member: they lie
// side by side in memory. With group = lane / 4 and member = lane % 4, of
//
//   sums [16, 8]   a lane has [group + i / 2 * 8, 2 * member + i % 2]
//   left [16, 16]  [group + {0, 1} * 8, 4 * member + {0, 1, 2, 3}]
//   right [16, 8]  [4 * member + {0, 1, 2, 3}, group]
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_

#include <type_traits>

#include "cuda_kernels/cuda/matrix.h"
#include "cuda_kernels/cuda/pairs.h"
#include "cuda_kernels/relu.h"

namespace san::patchwise {
namespace {

// Columns and depth of a step, and its rows.
constexpr int kWide = 8, kDeep = 16, kHigh = 16;

template <typename T>
constexpr bool kIsHalf = sizeof(T) == 2;

template <typename T>
struct alignas(16) Left {
  uint32_t words[kIsHalf<T> ? 4 : 8];
};

// On a boundary of its size, for one load.
template <typename T>
struct alignas(kIsHalf<T> ? 8 : 16) Right {
  uint32_t words[kIsHalf<T> ? 2 : 4];
};

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
        left.words[4 * j + i] = tf32(kRectified ? relu(low) : low);
        left.words[4 * j + 2 + i] = tf32(kRectified ? relu(high) : high);
      }
    }
  return left;
}

// Of two rows' neighbours in memory that are factors already.
template <typename T>
__device__ Left<T> left_at(const T* low, const T* high) {
  const Right<T> rows[2] = {*reinterpret_cast<const Right<T>*>(low),
                            *reinterpret_cast<const Right<T>*>(high)};
  Left<T> left;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < static_cast<int>(sizeof(Right<T>) / 4); ++j)
      left.words[i + 2 * j] = rows[i].words[j];
  return left;
}

template <typename T>
__device__ Right<T> right_of(const float (&values)[4]) {
  Right<T> right;
  if constexpr (kIsHalf<T>) {
    right.words[0] = rounded_pair<T>(values[0], values[1]);
    right.words[1] = rounded_pair<T>(values[2], values[3]);
  } else {
    for (int j = 0; j < 4; ++j) right.words[j] = tf32(values[j]);
  }
  return right;
}

// sums += left right
template <typename T>
__device__ void multiply(float (&sums)[4], const Left<T>& left,
                         const Right<T>& right) {
  if constexpr (kIsHalf<T>) {
    multiply_16x8x16<T>(sums, left.words, right.words);
  } else {
    const auto& a = left.words;
    const auto& b = right.words;
    multiply_16x8x8(sums, {a[0], a[1], a[2], a[3]}, {b[0], b[1]});
    multiply_16x8x8(sums, {a[4], a[5], a[6], a[7]}, {b[2], b[3]});
  }
}

// A value as an element that products take.
template <typename T>
__device__ T as_factor(float value) {
  if constexpr (kIsHalf<T>)
    return rounded<T>(value);
  else
    return bits_float(tf32(value));
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

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_OPERANDS_H_
