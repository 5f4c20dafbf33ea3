// Pairs of bfloat16 side by side, which AVX512_BF16 multiplies and adds to a
// float by one instruction. The flags of AVX-512 do not include it, so that it
// is written out here; multiplies_bfloat16() says whether it may run. Like its
// rounding it takes what is smaller than a normal number for zero.
//
// Everything is in an unnamed namespace: each instruction set compiles its own.
#ifndef CUDA_KERNELS_CPU_PAIRS_H_
#define CUDA_KERNELS_CPU_PAIRS_H_

#include "cuda_kernels/cpu/vectors.h"

namespace san::cpu {
namespace {

// Elements that one step of a product takes.
template <typename T>
constexpr int kStep = sizeof(T) == 2 ? 2 : 1;

// sum + *element * factor in each lane; of bfloat16 both products of the pair
// at `element` and of the pair that a lane of `factor` holds.
template <typename T, typename V>
inline V multiply_add(const T* element, V factor, V sum) {
  if constexpr (kStep<T> == 1) sum += *element * factor;
#ifdef __AVX512F__
  else {
    const auto& pair = *reinterpret_cast<const T(*)[2]>(element);
    if constexpr (sizeof(V) == 64)
      asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(factor), "m"(pair));
    else if constexpr (sizeof(V) == 32)
      asm("vdpbf16ps %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(factor), "m"(pair));
    else
      asm("vdpbf16ps %2%{1to4%}, %1, %0" : "+v"(sum) : "v"(factor), "m"(pair));
  }
#endif
  return sum;
}

#ifdef __AVX512F__
template <int... i>
inline Vector<float, 16> paired(Vector<float, 16> first,
                                Vector<float, 16> second,
                                std::integer_sequence<int, i...>) {
  Vector<uint16_t, 32> halves;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(halves) : "v"(first), "v"(second));
  const auto pairs =
      __builtin_shufflevector(halves, halves, (i / 2 + i % 2 * 16)...);
  return bits_at<16, float>(&pairs);
}
// The pair of both, rounded, in each lane.
inline Vector<float, 16> paired(Vector<float, 16> first,
                                Vector<float, 16> second) {
  return paired(first, second, std::make_integer_sequence<int, 32>());
}
#endif

// Stores lanes, of bfloat16 by an instruction of the same kind where v is a
// whole vector.
template <typename Lanes, typename T, typename V>
inline void store_rounded(Lanes lanes, T* to, V v) {
#ifdef __AVX512F__
  if constexpr (kStep<T> == 2 && sizeof(V) >= 32) {
    constexpr int L = sizeof(V) / sizeof(float);
    Vector<uint16_t, L> halves;
    asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(v));
    T elements[16];
    memcpy(elements, &halves, sizeof halves);
    return lanes.copy(elements, to);
  }
#endif
  lanes.store(to, v);
}

}  // namespace
}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_PAIRS_H_
