// The exponential of short vectors, for x <= 0, and the logarithm of what such
// exponentials add up to. In an unnamed namespace: one copy per instruction
// set.
#ifndef CUDA_KERNELS_PAIRWISE_MATH_H_
#define CUDA_KERNELS_PAIRWISE_MATH_H_

#include <cstdint>
#include <type_traits>

#include "cuda_kernels/cpu/vectors.h"

namespace san::pairwise {
namespace {

// exp(x) = 2^n exp(r), |r| <= ln(2) / 2. Adding `kRounder` leaves n in the low
// bits of the sum. Below kLowest the result is the smallest normal number, not
// zero: next to a softmax's largest term it vanishes all the same.
template <typename A>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = uint32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLowest = -87.0f, kRounder = 12582912.0f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  // Minimax, from Cephes' expf.
  static constexpr float kTerms[] = {1.9875691500e-4f, 1.3981999507e-3f,
                                     8.3334519073e-3f, 4.1665795894e-2f,
                                     1.6666665459e-1f, 5.0000001201e-1f};
};

template <>
struct ExpConstants<double> {
  using Bits = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLowest = -708.0, kRounder = 6755399441055744.0;
  static constexpr double kLn2High = 6.93145751953125e-1,
                          kLn2Low = 1.42860682030941723212e-6;
  // Taylor's: 1 / n! for n = 13, 12, ..., 2.
  static constexpr double kTerms[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
      1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
      1.0 / 120,        1.0 / 24,        1.0 / 6,        1.0 / 2};
};

template <typename A, int L>
inline __attribute__((always_inline)) cpu::Vector<A, L> exp_below_zero(
    cpu::Vector<A, L> x) {
  using C = ExpConstants<A>;
  using V = cpu::Vector<A, L>;
  x = x < C::kLowest ? V{} + C::kLowest : x;  // keeps NaN
  const V shifted = x * A(1.44269504088896340736) + C::kRounder;
  const V n = shifted - C::kRounder;
  const V r = x - n * C::kLn2High - n * C::kLn2Low;
  V sum = V{} + C::kTerms[0];
  for (int i = 1; i < int(sizeof C::kTerms / sizeof(A)); ++i)
    sum = sum * r + C::kTerms[i];
  sum = sum * (r * r) + r + A(1);
  const auto power = (cpu::bits_at<L, typename C::Bits>(&shifted) + C::kBias)
                     << C::kMantissa;
  return sum * cpu::bits_at<L, A>(&power);
}

// log(x) for x >= 1, from the exponential. The bits of x, read as an integer,
// are its logarithm to within 0.03; a step of Halley's method makes an error e
// one of e^3 / 12.
template <typename A, int L>
inline __attribute__((always_inline)) cpu::Vector<A, L> log_above_one(
    cpu::Vector<A, L> x) {
  using C = ExpConstants<A>;
  using V = cpu::Vector<A, L>;
  constexpr A kLn2 = A(0.693147180559945309417), kMiddle = A(0.0298);
  const auto integer =
      cpu::bits_at<L, std::make_signed_t<typename C::Bits>>(&x);
  V log = __builtin_convertvector(integer, V) *
              (kLn2 / (typename C::Bits(1) << C::kMantissa)) +
          (kMiddle - kLn2 * C::kBias);
  for (int step = 0; step < 2; ++step) {
    const V ratio = x * exp_below_zero<A, L>(-log);
    log += 2 * (ratio - 1) / (ratio + 1);
  }
  return log;
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_MATH_H_
