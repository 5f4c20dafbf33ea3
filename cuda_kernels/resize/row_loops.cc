// The loops of row_loops.h on vectors of 32-bit sums. `across` holds the three
// colours of a pixel (and a fourth byte that nobody reads) in one vector, and
// turns four of those into four bytes of each colour. Intrinsics appear where
// the compiler takes bytes one by one.
#include "cuda_kernels/resize/row_loops.h"

#include <cstring>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/vectors.h"

namespace san::resize {
namespace {

using cpu::bits_at;
using cpu::Vector;
using Pixel = Vector<int32_t, 4>;

static_assert(kGroup == 4);

constexpr int32_t kHalf = 1 << (kPrecision - 1);

template <int L>
inline Vector<int32_t, L> levels_at(const uint8_t* from) {
#ifdef __AVX512F__
  if constexpr (L == 16)
    return (Vector<int32_t, L>)_mm512_maskz_cvtepu8_epi32(
        cpu::kAll, _mm_loadu_si128((const __m128i*)from));
#endif
#ifdef __AVX2__
  if constexpr (L == 8)
    return (Vector<int32_t, L>)_mm256_cvtepu8_epi32(
        _mm_loadl_epi64((const __m128i*)from));
  if constexpr (L == 4) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return (Pixel)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(word));
  }
#endif
  return __builtin_convertvector(bits_at<L, uint8_t>(from), Vector<int32_t, L>);
}

// Rounded weights may sum to more than one.
template <int L>
inline Vector<int32_t, L> grey_levels(Vector<int32_t, L> sums) {
  const auto levels = sums >> kPrecision;
  return levels < 255 ? levels : 255;
}

// The grey level of colour c of pixel i goes to to[c * pitch + i].
inline void store_group(const Pixel (&sums)[kGroup], uint8_t* to,
                        int64_t pitch) {
#ifdef __AVX2__
  const auto words = [&](int i) {
    return _mm_packs_epi32((__m128i)(sums[i] >> kPrecision),
                           (__m128i)(sums[i + 1] >> kPrecision));
  };
  const __m128i by_colour =
      _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const auto bytes =
      (Pixel)_mm_shuffle_epi8(_mm_packus_epi16(words(0), words(2)), by_colour);
  for (int c = 0; c < 3; ++c) {
    const int32_t word = bytes[c];
    memcpy(to + c * pitch, &word, sizeof word);
  }
#else
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < kGroup; ++i)
      to[c * pitch + i] = static_cast<uint8_t>(grey_levels<4>(sums[i])[c]);
#endif
}

// `taps` is kTaps where that is not 0.
template <int kTaps>
void across_taps(const uint8_t* from, const int64_t* first,
                 const int32_t* weights, int64_t taps, int64_t columns,
                 uint8_t* to, int64_t pitch) {
  if (kTaps) taps = kTaps;
  for (int64_t x = 0; x < columns; x += kGroup) {
    Pixel sums[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const uint8_t* pixels = from + 3 * first[x + i];
      Pixel sum = {kHalf, kHalf, kHalf, kHalf};
      for (int64_t t = 0; t < taps; ++t)
        sum += *weights++ * levels_at<4>(pixels + 3 * t);
      sums[i] = sum;
    }
    store_group(sums, to + x, pitch);
  }
}

void across(const uint8_t* from, const int64_t* first, const int32_t* weights,
            int64_t taps, int64_t columns, uint8_t* to, int64_t pitch) {
  const auto loop = taps == 2   ? across_taps<2>
                    : taps == 3 ? across_taps<3>
                    : taps == 4 ? across_taps<4>
                                : across_taps<0>;
  loop(from, first, weights, taps, columns, to, pitch);
}

void down(const uint8_t* const* rows, const int32_t* weights, int64_t taps,
          int64_t columns, float shift, float factor, float* to) {
  cpu::for_each_vector<float>(columns, [&](auto lanes, int64_t x) {
    using V = typename decltype(lanes)::V;
    constexpr int kLanes = sizeof(V) / sizeof(float);
    Vector<int32_t, kLanes> sum = {};
    for (int64_t t = 0; t < taps; ++t)
      sum += weights[t] * levels_at<kLanes>(rows[t] + x);
    const V levels =
        __builtin_convertvector(grey_levels<kLanes>(sum + kHalf), V);
    lanes.store(to + x, (levels - shift) * factor);
  });
}

}  // namespace

RowLoops SAN_TABLE(row_loops)() { return {across, down}; }

}  // namespace san::resize
