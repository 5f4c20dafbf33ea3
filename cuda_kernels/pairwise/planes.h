// Bands of feature rows turned from channels-last into planes, so that a vector
// holds one channel of neighbouring pixels. In an unnamed namespace: one copy
// per instruction set.
#ifndef CUDA_KERNELS_PAIRWISE_PLANES_H_
#define CUDA_KERNELS_PAIRWISE_PLANES_H_

#include <algorithm>

#include "cuda_kernels/cpu/product.h"
#include "cuda_kernels/cpu/transposition.h"
#include "cuda_kernels/cpu/vectors.h"

namespace san::pairwise {
namespace {

using cpu::kWide;
using cpu::round_up;
using cpu::Vector;

// Transposes up to L pixels of up to L channels, `from_step` apart, and calls
// to(i, vector) for each channel i; missing pixels are zeros.
template <typename T, typename To>
inline __attribute__((always_inline)) void to_planes(const T* from,
                                                     int64_t from_step,
                                                     int64_t pixels,
                                                     int64_t channels, To to) {
  using A = Accumulator<T>;
  constexpr int L = kWide<A>;
  const int count = static_cast<int>(std::min<int64_t>(channels, L));
  const cpu::FirstLanes<A, L> first(count);
  Vector<A, L> v[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i)
    v[i] = i < pixels ? first.load(from + i * from_step) : Vector<A, L>{};
  cpu::transpose(v);
  for (int i = 0; i < count; ++i) to(i, v[i]);
}

// The way back: from L lanes per channel to up to L pixels.
template <typename A, typename T>
inline void from_planes(const A* from, int64_t channels, T* to, int64_t to_step,
                        int64_t pixels) {
  constexpr int L = kWide<A>;
  const cpu::FirstLanes<A, L> first(
      static_cast<int>(std::min<int64_t>(channels, L)));
  Vector<A, L> v[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) v[i] = cpu::load<L>(from + i * L);
  cpu::transpose(v);
  for (int i = 0; i < std::min<int64_t>(pixels, L); ++i)
    first.store(to + i * to_step, v[i]);
}

// A band of one image: element (channel, row, column) is
// data[channel * plane + row * pitch + reach + column]. Left and right of the
// image are zeros, as far as a footprint and a vector reach.
template <typename A>
struct Planes {
  static constexpr int L = kWide<A>;

  Planes(int64_t channels, int64_t rows, int64_t width, int64_t reach)
      : channels(channels),
        rows(rows),
        width(width),
        reach(reach),
        pitch(round_up(width, L) + 2 * reach + L),
        plane(round_up(rows * pitch, 2 * L) + L) {}

  int64_t elements() const { return channels * plane + L; }
  A* at(int64_t channel, int64_t row) const {
    return data + channel * plane + row * pitch;
  }

  // Fills `row` of some channels from pixels that are `step` apart; channel i
  // is multiplied by scale[i] if there is one.
  template <typename T>
  void fill(int64_t row, int64_t channel, int64_t count, const T* from,
            int64_t step, const A* scale) const {
    for (int64_t c = 0; c < count; c += L)
      for (int64_t x = 0; x < width; x += L)
        to_planes(from + x * step + c, step, width - x, count - c,
                  [&](int i, Vector<A, L> v) {
                    if (scale) v *= scale[c + i];
                    cpu::store<L>(at(channel + c + i, row) + reach + x, v);
                  });
    for (int64_t c = channel; c < channel + count; ++c) {
      A* begin = at(c, row);
      std::fill_n(begin, reach, A(0));
      std::fill(begin + reach + round_up(width, L), begin + pitch, A(0));
    }
  }

  // Multiplies a row of a channel.
  void multiply(int64_t row, int64_t channel, A by) const {
    A* begin = at(channel, row) + reach;
    for (int64_t x = 0; x < width; x += L)
      cpu::store<L>(begin + x, cpu::load<L>(begin + x) * by);
  }

  // The way back from fill: adds a row of all channels to pixels.
  void add_to(int64_t row, int64_t count, A* to, int64_t step) const {
    for (int64_t c = 0; c < count; c += L) {
      const cpu::FirstLanes<A, L> first(
          static_cast<int>(std::min<int64_t>(count - c, L)));
      for (int64_t x = 0; x < width; x += L) {
        Vector<A, L> v[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
          v[i] = c + i < count ? cpu::load<L>(at(c + i, row) + reach + x)
                               : Vector<A, L>{};
        cpu::transpose(v);
        for (int i = 0; i < std::min<int64_t>(width - x, L); ++i) {
          A* pixel = to + (x + i) * step + c;
          first.store(pixel, first.load(pixel) + v[i]);
        }
      }
    }
  }

  int64_t channels, rows, width, reach, pitch, plane;
  A* data = nullptr;
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_PLANES_H_
