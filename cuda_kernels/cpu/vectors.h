// Short vectors for the CPU's inner loops: loads and stores that convert
// between a storage type and its accumulator, whole or only the first elements.
// Arithmetic is the compiler's own vector extension; intrinsics appear only
// where it has no words: masks and half precision.
//
// Everything is in an unnamed namespace: each instruction set compiles its own.
#ifndef CUDA_KERNELS_CPU_VECTORS_H_
#define CUDA_KERNELS_CPU_VECTORS_H_

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cuda_kernels/scalar_types.h"

namespace san::cpu {
namespace {

#if defined(__AVX512F__)  // with VL and BW, see instruction_sets.cc
constexpr int kWideBytes = 64, kNarrowBytes = 32;
#elif defined(__AVX2__)
constexpr int kWideBytes = 32, kNarrowBytes = 32;
#else
constexpr int kWideBytes = 16, kNarrowBytes = 16;
#endif

#ifdef __AVX2__
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#endif
// Every lane: GCC 12 warns inside the intrinsics that have no mask.
constexpr unsigned kAll = 0xffff;

template <int N>
using Constant = std::integral_constant<int, N>;

// f(0), f(1), ... f(N - 1), by constants: arrays that are indexed so stay in
// registers.
template <typename F, int... I>
inline __attribute__((always_inline)) void unrolled(
    F f, std::integer_sequence<int, I...>) {
  (f(Constant<I>()), ...);
}
template <int N, typename F>
inline __attribute__((always_inline)) void unrolled(F f) {
  unrolled(f, std::make_integer_sequence<int, N>());
}

// Lanes of a wide and of a narrow vector of accumulators.
template <typename A>
constexpr int kWide = kWideBytes / sizeof(A);
template <typename A>
constexpr int kNarrow = kNarrowBytes / sizeof(A);

template <typename A, int L>
struct VectorOf {
  typedef A type __attribute__((vector_size(L * sizeof(A))));
};
template <typename A, int L>
using Vector = typename VectorOf<A, L>::type;

template <int L, typename T>
inline Vector<T, L> bits_at(const void* from) {
  Vector<T, L> result;
  memcpy(&result, from, sizeof result);
  return result;
}

template <int L>
inline Vector<float, L> load(const float* from) {
  return bits_at<L, float>(from);
}
template <int L>
inline Vector<double, L> load(const double* from) {
  return bits_at<L, double>(from);
}
// By one instruction, where GCC takes five of the plain words.
template <int L>
inline Vector<uint32_t, L> widened(Vector<uint16_t, L> v) {
#ifdef __AVX512F__
  if constexpr (L == 16)
    return (Vector<uint32_t, L>)_mm512_maskz_cvtepu16_epi32(kAll, (__m256i)v);
#endif
#ifdef __AVX2__
  if constexpr (L == 8)
    return (Vector<uint32_t, L>)_mm256_cvtepu16_epi32((__m128i)v);
#endif
  return __builtin_convertvector(v, Vector<uint32_t, L>);
}
template <int L>
inline Vector<float, L> load(const bfloat16* from) {
  const auto words = widened<L>(bits_at<L, uint16_t>(from)) << 16;
  return bits_at<L, float>(&words);
}
template <int L>
inline Vector<float, L> load(const float16* from) {
#ifdef __AVX512F__
  if constexpr (L == 16)
    return _mm512_maskz_cvtph_ps(kAll, (__m256i)bits_at<16, uint16_t>(from));
#endif
#ifdef __AVX2__
  if constexpr (L == 8)
    return _mm256_cvtph_ps((__m128i)bits_at<8, uint16_t>(from));
#endif
  Vector<float, L> result;
  for (int i = 0; i < L; ++i) result[i] = wide(from[i]);
  return result;
}

template <int L>
inline void store(float* to, Vector<float, L> v) {
  memcpy(to, &v, sizeof v);
}
template <int L>
inline void store(double* to, Vector<double, L> v) {
  memcpy(to, &v, sizeof v);
}
template <int L>
inline void store(bfloat16* to, Vector<float, L> v) {
  const auto words = bits_at<L, uint32_t>(&v);
  const auto nearest = (words + 0x7fff + (words >> 16 & 1)) >> 16;
  const auto chosen = v == v ? nearest : words >> 16 | 0x40;
  const auto halves = __builtin_convertvector(chosen, Vector<uint16_t, L>);
  memcpy(to, &halves, sizeof halves);
}
template <int L>
inline void store(float16* to, Vector<float, L> v) {
#ifdef __AVX512F__
  if constexpr (L == 16)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                               _mm512_maskz_cvtps_ph(kAll, v, kNearest));
#endif
#ifdef __AVX2__
  if constexpr (L == 8)
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                            _mm256_cvtps_ph(v, kNearest));
#endif
  for (int i = 0; i < L; ++i) to[i] = float16::round(v[i]);
}

// Stores past the caches, without reading the line that is overwritten. `to` is
// aligned to the vector; end_stream() comes before anyone may read it.
template <int L, typename T, typename V>
inline void stream(T* to, V v) {
#ifdef __AVX2__
  T elements[L];
  store<L>(elements, v);
  char* address = reinterpret_cast<char*>(to);
#ifdef __AVX512F__
  if constexpr (sizeof elements == 64)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(address),
                               (__m512i)bits_at<8, int64_t>(elements));
#endif
  if constexpr (sizeof elements == 32)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(address),
                               (__m256i)bits_at<4, int64_t>(elements));
  if constexpr (sizeof elements == 16)
    return _mm_stream_si128(reinterpret_cast<__m128i*>(address),
                            (__m128i)bits_at<2, int64_t>(elements));
#endif
  store<L>(to, v);
}

inline void end_stream() {
#ifdef __AVX2__
  _mm_sfence();
#endif
}

// Elements before the first one that stream() takes, in wide vectors.
template <typename T>
inline int64_t unaligned_elements(const T* from) {
  constexpr uintptr_t kBytes = kWideBytes / sizeof(Accumulator<T>) * sizeof(T);
  const auto address = reinterpret_cast<uintptr_t>(from);
  return static_cast<int64_t>((kBytes - address % kBytes) % kBytes / sizeof(T));
}

// L lanes in memory as a kernel's loop sees them: all of them ...
template <typename A, int L>
struct AllLanes {
  using V = Vector<A, L>;

  template <typename T>
  V load(const T* from) const {
    return cpu::load<L>(from);
  }
  template <typename T>
  void store(T* to, V v) const {
    cpu::store<L>(to, v);
  }
  template <typename T>
  void stream(T* to, V v) const {
    cpu::stream<L>(to, v);
  }
  template <typename T>
  void copy(const T* from, T* to) const {
    memcpy(to, from, L * sizeof(T));
  }
};

// ... or the first `count`: the others load as zero and their memory is not
// touched. By masked instructions where there are any, else one by one.
template <typename A, int L>
struct FirstLanes {
  using V = Vector<A, L>;

  template <typename T>
  V load(const T* from) const {
    T elements[16] = {};
#ifdef __AVX512F__
    const __m256i words = _mm256_maskz_loadu_epi16(mask, from);
    memcpy(elements, &words, sizeof words);
#else
    copy(from, elements);
#endif
    return cpu::load<L>(elements);
  }
  template <typename T>
  void store(T* to, V v) const {
    T elements[16];
    cpu::store<L>(elements, v);
    copy(elements, to);
  }
  template <typename T>
  void stream(T* to, V v) const {
    store(to, v);
  }
  template <typename T>
  void copy(const T* from, T* to) const {
#ifdef __AVX512F__
    _mm256_mask_storeu_epi16(to, mask, _mm256_maskz_loadu_epi16(mask, from));
#else
    for (int i = 0; i < count; ++i) to[i] = from[i];
#endif
  }

  // clang-format off
#if defined(__AVX512F__)
#define SAN_MASKED(T, type)                                             \
  V load(const T* from) const {                                         \
    if constexpr (kWhole) return _mm512_maskz_loadu_##type(mask, from); \
    else return _mm256_maskz_loadu_##type(mask, from);                  \
  }                                                                     \
  void store(T* to, V v) const {                                        \
    if constexpr (kWhole) _mm512_mask_storeu_##type(to, mask, v);       \
    else _mm256_mask_storeu_##type(to, mask, v);                        \
  }
  SAN_MASKED(float, ps)
  SAN_MASKED(double, pd)
  static constexpr bool kWhole = sizeof(V) == 64;
  using Mask = std::conditional_t<L == 16, __mmask16, __mmask8>;
  static Mask first(int count) { return (1u << count) - 1; }
#elif defined(__AVX2__)
#define SAN_MASKED(T, type)                                             \
  V load(const T* from) const {                                         \
    return _mm256_maskload_##type(from, (__m256i)mask);                 \
  }                                                                     \
  void store(T* to, V v) const {                                        \
    _mm256_maskstore_##type(to, (__m256i)mask, v);                      \
  }
  SAN_MASKED(float, ps)
  SAN_MASKED(double, pd)
  using Mask = Vector<std::conditional_t<L == 8, int32_t, int64_t>, L>;
  static Mask first(int count) {
    Mask lane;
    for (int i = 0; i < L; ++i) lane[i] = i;
    return lane < count;
  }
#else
  using Mask = int;
  static Mask first(int count) { return count; }
#endif
  // clang-format on

  explicit FirstLanes(int count) : count(count), mask(first(count)) {}
  int count;
  Mask mask;
};

// Calls f(lanes, i) for vectors that cover the columns: whole wide ones from
// column i on, then the first lanes of a wide or narrow one.
template <typename A, typename F>
inline __attribute__((always_inline)) void for_each_vector(int64_t columns,
                                                           F f) {
  constexpr int kL = kWide<A>, kN = kNarrow<A>;
  int64_t i = 0;
  for (; i + kL <= columns; i += kL) f(AllLanes<A, kL>(), i);
  const int rest = static_cast<int>(columns - i);
  if (rest > kN)
    f(FirstLanes<A, kL>(rest), i);
  else if (rest > 0)
    f(FirstLanes<A, kN>(rest), i);
}

}  // namespace
}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_VECTORS_H_
