// Two 16-bit elements in a register, the first in its lower half, as the
// products of cuda/matrix.h take them; and 2^x. For .cu files only.
//
// Rounding is to nearest, ties to even; a NaN stays one. What is not compiled
// for a GPU says the same in plain C++.
#ifndef CUDA_KERNELS_CUDA_PAIRS_H_
#define CUDA_KERNELS_CUDA_PAIRS_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda_kernels/relu.h"
#include "cuda_kernels/scalar_types.h"

namespace san {

template <typename T>
__device__ float first_of(uint32_t pair) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return bits_float(pair << 16);
  else
    return float(T{static_cast<uint16_t>(pair)});
}

template <typename T>
__device__ float second_of(uint32_t pair) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return bits_float(pair & 0xffff0000);
  else
    return float(T{static_cast<uint16_t>(pair >> 16)});
}

template <typename T>
__device__ uint32_t rounded_pair(float first, float second) {
#if SAN_HALF_INSTRUCTIONS
  uint32_t pair;
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return T::round(first).bits | uint32_t(T::round(second).bits) << 16;
#endif
}

// Of relu(first) and relu(second).
template <typename T>
__device__ uint32_t rectified_pair(float first, float second) {
#if SAN_HALF_INSTRUCTIONS
  uint32_t pair;
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;"
        : "=r"(pair)
        : "f"(second), "f"(first));
  else
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;"
        : "=r"(pair)
        : "f"(second), "f"(first));
  return pair;
#else
  return rounded_pair<T>(relu(first), relu(second));
#endif
}

// 2^x, off by 2^-22 of it; 0 where that is no normal number.
inline __device__ float power_of_two(float x) {
#if SAN_HALF_INSTRUCTIONS
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  const float power = exp2f(x);
  return power < 1.17549435e-38f ? 0 : power;
#endif
}

// Off by 2^-22, or by as much of it if x is not between 1/2 and 2.
inline __device__ float logarithm_to_two(float x) {
#if SAN_HALF_INSTRUCTIONS
  float logarithm;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(logarithm) : "f"(x));
  return logarithm;
#else
  return log2f(x);
#endif
}

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_PAIRS_H_
