// The four element types: storage of float16 and bfloat16 with conversions that
// are the same on host and device, and the type each one is summed in.
#ifndef CUDA_KERNELS_SCALAR_TYPES_H_
#define CUDA_KERNELS_SCALAR_TYPES_H_

#include <cstdint>
#include <cstring>

#include "cuda_kernels/window.h"

// Compiled for a GPU that converts by itself: the same numbers, but every NaN
// gets the bits that this GPU gives to one.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define SAN_HALF_INSTRUCTIONS 1
#else
#define SAN_HALF_INSTRUCTIONS 0
#endif

namespace san {

enum class ScalarType { kFloat32, kFloat64, kFloat16, kBfloat16 };

SAN_HOST_DEVICE uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

SAN_HOST_DEVICE float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Storage only: arithmetic happens in float. Rounds to nearest, ties to even.
struct bfloat16 {
  uint16_t bits;

  SAN_HOST_DEVICE explicit operator float() const {
    return bits_float(static_cast<uint32_t>(bits) << 16);
  }
  static SAN_HOST_DEVICE bfloat16 round(float value) {
#if SAN_HALF_INSTRUCTIONS
    uint32_t nearest;  // the lower of a pair: converting one alone is slow
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;"
        : "=r"(nearest)
        : "f"(0.0f), "f"(value));
    return {static_cast<uint16_t>(nearest)};
#endif
    const uint32_t word = float_bits(value);
    if (value != value) return {static_cast<uint16_t>(word >> 16 | 0x40)};
    const uint32_t tie = word >> 16 & 1;
    return {static_cast<uint16_t>((word + 0x7fff + tie) >> 16)};
  }
};

// IEEE half precision, likewise. 2^112 moves an exponent from one bias to the
// other, and the multiplication makes subnormals come out exactly.
struct float16 {
  uint16_t bits;

  SAN_HOST_DEVICE explicit operator float() const {
#if SAN_HALF_INSTRUCTIONS
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fff) << 13;
    const bool special = magnitude >= 0x7c00u << 13;
    const float scaled = bits_float(magnitude) * bits_float(0x77800000);
    const uint32_t word = special ? magnitude | 0x7f800000 : float_bits(scaled);
    return bits_float(sign | word);
  }
  static SAN_HOST_DEVICE float16 round(float value) {
#if SAN_HALF_INSTRUCTIONS
    uint16_t nearest;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest) : "f"(value));
    return {nearest};
#endif
    const uint32_t sign = float_bits(value) >> 16 & 0x8000;
    const uint32_t word = float_bits(value) & 0x7fffffff;
    uint32_t half;
    if (word > 0x7f800000) {
      half = 0x7e00;  // NaN
    } else if (word >= 0x477ff000) {
      half = 0x7c00;  // at least 65520: infinity
    } else if (word < 0x38800000) {
      // Below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits.
      half = float_bits(bits_float(word) + 0.5f) - 0x3f000000;
    } else {
      half = (word - 0x38000000 + 0xfff + (word >> 13 & 1)) >> 13;
    }
    return {static_cast<uint16_t>(sign | half)};
  }
};

template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

// The element as the kernels compute with it.
template <typename T>
SAN_HOST_DEVICE Accumulator<T> wide(T value) {
  return static_cast<Accumulator<T>>(value);
}

// Rounds an accumulated value to its storage type.
template <typename T>
SAN_HOST_DEVICE T rounded(Accumulator<T> value) {
  return T::round(value);
}
template <>
SAN_HOST_DEVICE float rounded<float>(float value) {
  return value;
}
template <>
SAN_HOST_DEVICE double rounded<double>(double value) {
  return value;
}

// Calls f(T()) with the C++ type of `type`.
template <typename F>
void with_scalar_type(ScalarType type, F f) {
  switch (type) {
    case ScalarType::kFloat32:
      return f(float());
    case ScalarType::kFloat64:
      return f(double());
    case ScalarType::kFloat16:
      return f(float16());
    case ScalarType::kBfloat16:
      return f(bfloat16());
  }
}

}  // namespace san

#endif  // CUDA_KERNELS_SCALAR_TYPES_H_
