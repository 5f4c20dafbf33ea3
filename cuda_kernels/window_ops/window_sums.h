// Aggregation's inner loops: one or two rows of outputs, vector by vector.
//
// Idea. Every pixel meets a weight in one multiplication, and loading is what
// costs: a vector of pixels that starts anywhere lies on two cache lines. So
// what is loaded is used as often as registers allow: a weight for up to M
// channels, whose sums stay in registers, and a pixel for two rows of outputs,
// of which the second sees by its tap row kh what the first sees by kh + 1.
#ifndef CUDA_KERNELS_WINDOW_OPS_WINDOW_SUMS_H_
#define CUDA_KERNELS_WINDOW_OPS_WINDOW_SUMS_H_

#include "cuda_kernels/cpu/vectors.h"
#include "cuda_kernels/window_ops/row_kernels.h"

namespace san::fast {
namespace {

using namespace cpu;

// Twice as many sums, a pixel and two weights have to fit into the registers.
#ifdef __AVX512F__
constexpr int kMostChannels = 8;
#else
constexpr int kMostChannels = 4;
#endif

// Keeps what is used twice from being loaded twice.
template <typename V>
inline void keep_in_register(V& vector) {
#ifdef __AVX512F__
  asm("" : "+v"(vector));
#else
  asm("" : "+x"(vector));
#endif
}

// Calls f(Constant<M>(), c) for M channels from c on at a time.
template <typename F>
inline __attribute__((always_inline)) void for_each_channels(int64_t channels,
                                                             F f) {
  int64_t c = 0;
  for (; c + kMostChannels <= channels; c += kMostChannels)
    f(Constant<kMostChannels>(), c);
  for (; c + 2 <= channels; c += 2) f(Constant<2>(), c);
  if (c < channels) f(Constant<1>(), c);
}

// Calls f(to_first, to_second, kh) for each row of pixels that one or two rows
// of outputs see, kh the tap row of the first: constants that say which of the
// two see it.
template <int kRows, typename F>
inline __attribute__((always_inline)) void for_each_pixel_row(int64_t tap_rows,
                                                              F f) {
  f(Constant<1>(), Constant<0>(), 0);
  for (int64_t kh = 1; kh < tap_rows; ++kh)
    f(Constant<1>(), Constant<kRows - 1>(), kh);
  if constexpr (kRows == 2) f(Constant<0>(), Constant<1>(), tap_rows);
}

template <int M, int kRows, typename Lanes, typename T>
inline void window_sum_of(Lanes lanes, const WindowSum<T>& a, const T* w,
                          const Accumulator<T>* x, Accumulator<T>* y) {
  const int64_t tap = a.tap_stride, channel = a.x_stride;
  const int64_t kw_end = a.tap_columns, ahead = a.ahead;
  const int64_t to_second_row = a.columns - kw_end * tap;
  typename Lanes::V sums[2][M];
  unrolled<M>([&](auto m) { sums[0][m] = sums[1][m] = typename Lanes::V{}; });
  for_each_pixel_row<kRows>(
      a.tap_rows, [&](auto first, auto second, int64_t kh) {
        const Accumulator<T>* row = x + a.x_rows[kh];
        for (int64_t kw = 0; kw < kw_end; ++kw, w += tap) {
          typename Lanes::V weights[2];
          if constexpr (first()) {
            __builtin_prefetch(w + ahead);
            weights[0] = lanes.load(w);
          }
          if constexpr (second()) {
            __builtin_prefetch(w + to_second_row + ahead);
            weights[1] = lanes.load(w + to_second_row);
          }
          const Accumulator<T>* at_tap = row + a.x_columns[kw];
          unrolled<M>([&](auto m) {
            auto pixels = lanes.load(at_tap + m * channel);
            if constexpr (first() && second()) keep_in_register(pixels);
            if constexpr (first()) sums[0][m] += weights[0] * pixels;
            if constexpr (second()) sums[1][m] += weights[1] * pixels;
          });
        }
      });
  unrolled<M>([&](auto m) {
    Accumulator<T>* to = y + m * a.y_stride;
    lanes.store(to, sums[0][m]);
    if constexpr (kRows == 2) lanes.store(to + a.columns, sums[1][m]);
  });
}

template <typename T>
void window_sum(const WindowSum<T>& a, bool two_rows) {
  for_each_vector<Accumulator<T>>(a.columns, [&](auto lanes, int64_t i) {
    for_each_channels(a.channels, [&](auto m, int64_t c) {
      const T* w = a.taps + i;
      const Accumulator<T>* x = a.x + c * a.x_stride + i;
      Accumulator<T>* y = a.y + c * a.y_stride + i;
      two_rows ? window_sum_of<m(), 2>(lanes, a, w, x, y)
               : window_sum_of<m(), 1>(lanes, a, w, x, y);
    });
  });
}

// The gradients of M channels stay in registers over all taps; those of further
// channels are loaded at each.
template <int M, int kRows, typename Lanes, typename T>
inline void window_products_of(Lanes lanes, const WindowProducts<T>& a, T* to,
                               const Accumulator<T>* x,
                               const Accumulator<T>* y) {
  const int64_t tap = a.tap_stride, channel = a.x_stride;
  const int64_t kw_end = a.tap_columns, second_row = a.columns;
  const int64_t to_second_row = a.columns - kw_end * tap;
  typename Lanes::V gradients[2][M];
  unrolled<M>([&](auto m) {
    const Accumulator<T>* from = y + m * a.y_stride;
    gradients[0][m] = lanes.load(from);
    if constexpr (kRows == 2) gradients[1][m] = lanes.load(from + second_row);
  });
  for_each_pixel_row<kRows>(
      a.tap_rows, [&](auto first, auto second, int64_t kh) {
        const Accumulator<T>* row = x + a.x_rows[kh];
        for (int64_t kw = 0; kw < kw_end; ++kw, to += tap) {
          const Accumulator<T>* at_tap = row + a.x_columns[kw];
          typename Lanes::V sums[2] = {};
          unrolled<M>([&](auto m) {
            auto pixels = lanes.load(at_tap + m * channel);
            if constexpr (first() && second()) keep_in_register(pixels);
            if constexpr (first()) sums[0] += gradients[0][m] * pixels;
            if constexpr (second()) sums[1] += gradients[1][m] * pixels;
          });
          for (int64_t c = M; c < a.channels; ++c) {
            const auto pixels = lanes.load(at_tap + c * channel);
            const Accumulator<T>* g = y + c * a.y_stride;
            if constexpr (first()) sums[0] += lanes.load(g) * pixels;
            if constexpr (second())
              sums[1] += lanes.load(g + second_row) * pixels;
          }
          if constexpr (first()) lanes.store(to, sums[0]);
          if constexpr (second()) lanes.store(to + to_second_row, sums[1]);
        }
      });
}

template <typename T>
void window_products(const WindowProducts<T>& a, bool two_rows) {
  for_each_vector<Accumulator<T>>(a.columns, [&](auto lanes, int64_t i) {
    const auto multiply = [&](auto m) {
      two_rows
          ? window_products_of<m(), 2>(lanes, a, a.taps + i, a.x + i, a.y + i)
          : window_products_of<m(), 1>(lanes, a, a.taps + i, a.x + i, a.y + i);
    };
    if (a.channels >= kMostChannels)
      multiply(Constant<kMostChannels>());
    else
      multiply(Constant<1>());
  });
}

template <int M, int kSums, typename Lanes, typename T>
inline __attribute__((always_inline)) void gather_of(
    Lanes lanes, const Gather<T>& a, const T* w, const Accumulator<T>* g,
    Accumulator<T>* to, const int64_t* columns) {
  const int64_t channel = a.g_stride, ahead = a.ahead;
  typename Lanes::V sums[2][M];
  unrolled<M>([&](auto m) { sums[0][m] = sums[1][m] = typename Lanes::V{}; });
  for (int64_t t = 0; t < a.terms; ++t) {
    const T* at_tap = w + a.w_offsets[t];
    __builtin_prefetch(at_tap + ahead);
    const auto weights = lanes.load(at_tap);
    typename Lanes::V second;
    if constexpr (kSums == 2) {
      __builtin_prefetch(at_tap + a.tap_stride + ahead);
      second = lanes.load(at_tap + a.tap_stride);
    }
    const Accumulator<T>* gradient = g + a.g_offsets[t];
    unrolled<M>([&](auto m) {
      auto gradients = lanes.load(gradient + m * channel);
      if constexpr (kSums == 2) keep_in_register(gradients);
      sums[0][m] += weights * gradients;
      if constexpr (kSums == 2) sums[1][m] += second * gradients;
    });
  }
  unrolled<kSums>([&](auto s) {
    unrolled<M>([&](auto m) {
      Accumulator<T>* sum = to + m * a.to_stride + columns[s];
      lanes.store(sum, lanes.load(sum) + sums[s][m]);
    });
  });
}

template <typename T>
void gather(const Gather<T>& a) {
  for_each_vector<Accumulator<T>>(a.columns, [&](auto lanes, int64_t i) {
    for_each_channels(a.channels, [&](auto m, int64_t c) {
      const T* w = a.w + i;
      const Accumulator<T>* g = a.g + c * a.g_stride + i;
      Accumulator<T>* to = a.to + c * a.to_stride + i;
      int64_t kw = 0;
      for (; kw + 2 <= a.tap_columns; kw += 2, w += 2 * a.tap_stride)
        gather_of<m(), 2>(lanes, a, w, g, to, a.to_columns + kw);
      if (kw < a.tap_columns)
        gather_of<m(), 1>(lanes, a, w, g, to, a.to_columns + kw);
    });
  });
}

}  // namespace
}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_WINDOW_SUMS_H_
