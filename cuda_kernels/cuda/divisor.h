// Division by a number that is known when a kernel is launched, by a
// multiplication and a shift: GPUs have no instruction for it. Granlund and
// Montgomery, Division by Invariant Integers using Multiplication (1994).
#ifndef CUDA_KERNELS_CUDA_DIVISOR_H_
#define CUDA_KERNELS_CUDA_DIVISOR_H_

#include <cstdint>

#include "cuda_kernels/window.h"

namespace san {

// Of numbers below 2^31 (uint32_t) or 2^63 (uint64_t).
template <typename Index>
class Divisor {
 public:
  // 0 only if nothing is going to be divided.
  Divisor() : Divisor(1) {}
  explicit Divisor(Index number) : number_(number) {
    const Wide one = 1, d = number > 0 ? number : 1;
    while (one << shift_ < d) ++shift_;
    factor_ =
        static_cast<Index>((one << kBits) * ((one << shift_) - d) / d + 1);
  }

  SAN_HOST_DEVICE Index quotient(Index value) const {
    const Index product = static_cast<Index>(Wide{value} * factor_ >> kBits);
    return (product + value) >> shift_;
  }
  struct Parts {
    Index quotient, remainder;
  };
  SAN_HOST_DEVICE Parts divide(Index value) const {
    const Index whole = quotient(value);
    return {whole, value - whole * number_};
  }
  SAN_HOST_DEVICE Index number() const { return number_; }

 private:
  template <typename I, bool kSmall = sizeof(I) == 4>
  struct WideOf {
    using type = uint64_t;
  };
  template <typename I>
  struct WideOf<I, false> {
    using type = unsigned __int128;
  };
  using Wide = typename WideOf<Index>::type;
  static constexpr int kBits = 8 * sizeof(Index);

  Index number_, factor_;
  int shift_ = 0;
};

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_DIVISOR_H_
