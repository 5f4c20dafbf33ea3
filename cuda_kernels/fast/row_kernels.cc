// Compiled once per instruction set, with that set's compiler flags. Only the
// table at the end is visible outside.
#include "cuda_kernels/fast/row_kernels.h"

#include <algorithm>
#include <type_traits>

#include "cuda_kernels/fast/vectors.h"

namespace san::fast {
namespace {

// Weights come in one stream per tap, more than the hardware follows: ask for
// what the same tap needs a few rows later.
constexpr int kPrefetchBytes = 512;

template <int N>
using Constant = std::integral_constant<int, N>;

template <typename T>
void load_row(const T* from, Accumulator<T>* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(from + i));
  });
}

template <typename T>
void store_row(const Accumulator<T>* from, T* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(from + i));
  });
}

// M channels share each weight vector, and their sums stay in registers.
template <int M, typename Lanes, typename T>
inline void weighted_sum_of(Lanes lanes, const WeightedSum<T>& a, const T* w,
                            const Accumulator<T>* x, Accumulator<T>* out) {
  const int64_t terms = a.terms, x_stride = a.x_stride;
  const int64_t *w_offsets = a.w_offsets, *x_offsets = a.x_offsets;
  typename Lanes::V sum[M] = {};
  for (int64_t t = 0; t < terms; ++t) {
    const T* wt = w + w_offsets[t];
    __builtin_prefetch(reinterpret_cast<const char*>(wt) + kPrefetchBytes);
    const auto weight = lanes.load(wt);
    const Accumulator<T>* xt = x + x_offsets[t];
    for (int m = 0; m < M; ++m)
      sum[m] += weight * lanes.load(xt + m * x_stride);
  }
  for (int m = 0; m < M; ++m, out += a.out_stride) {
    if (a.accumulate) sum[m] += lanes.load(out);
    lanes.store(out, sum[m]);
  }
}

template <typename T>
void weighted_sum(const WeightedSum<T>& a) {
  for_each_vector<Accumulator<T>>(a.columns, [&](auto lanes, int64_t i) {
    for (int64_t s = 0; s < a.sums; ++s) {
      const T* w = a.w + s * a.w_step + i;
      const Accumulator<T>* x = a.x + i;
      Accumulator<T>* out = a.out + a.out_offsets[s] + i;
      const auto add_channels = [&](auto count) {
        weighted_sum_of<count()>(lanes, a, w, x, out);
        x += count() * a.x_stride;
        out += count() * a.out_stride;
      };
      int64_t rest = a.channels;
      for (; rest >= 8; rest -= 8) add_channels(Constant<8>());
      for (; rest >= 2; rest -= 2) add_channels(Constant<2>());
      for (; rest >= 1; rest -= 1) add_channels(Constant<1>());
    }
  });
}

// The gradients of M channels stay in registers over all taps.
template <int M, typename Lanes, typename T>
inline void channel_sum_of(Lanes lanes, const ChannelSum<T>& a, int64_t i) {
  const int64_t terms = a.terms, x_stride = a.x_stride, g_stride = a.g_stride;
  const int64_t channels = a.channels, out_stride = a.out_stride;
  const int64_t* x_offsets = a.x_offsets;
  const Accumulator<T>*g = a.g + i, *x = a.x + i;
  T* out = a.out + i;
  typename Lanes::V gradient[M];
  for (int m = 0; m < M; ++m) gradient[m] = lanes.load(g + m * g_stride);
  for (int64_t t = 0; t < terms; ++t, out += out_stride) {
    const Accumulator<T>* xt = x + x_offsets[t];
    auto sum = gradient[0] * lanes.load(xt);
    for (int m = 1; m < M; ++m)
      sum += gradient[m] * lanes.load(xt + m * x_stride);
    for (int64_t c = M; c < channels; ++c)
      sum += lanes.load(g + c * g_stride) * lanes.load(xt + c * x_stride);
    lanes.store(out, sum);
  }
}

template <typename T>
void channel_sum(const ChannelSum<T>& a) {
  for_each_vector<Accumulator<T>>(a.columns, [&](auto lanes, int64_t i) {
    if (a.channels >= 8)
      channel_sum_of<8>(lanes, a, i);
    else
      channel_sum_of<1>(lanes, a, i);
  });
}

template <typename T>
void add(const T* from, Accumulator<T>* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i));
  });
}

template <typename A>
void gather_rows(const A* from, int64_t pitch, A* to, int64_t rows,
                 int64_t columns) {
  for (int64_t r = 0; r < rows; ++r, from += pitch, to += columns)
    for_each_vector<A>(columns, [&](auto lanes, int64_t i) {
      lanes.store(to + i, lanes.load(from + i));
    });
}

template <typename A>
void scatter_rows(const A* from, A* to, int64_t pitch, int64_t rows,
                  int64_t columns) {
  for (int64_t r = 0; r < rows; ++r, from += columns, to += pitch)
    for_each_vector<A>(columns, [&](auto lanes, int64_t i) {
      lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i));
    });
}

template <typename T>
void subtract(const Accumulator<T>* a, const Accumulator<T>* b, T* out,
              int64_t count, bool streamed) {
  const auto subtract_lanes = [&](auto lanes, int64_t i) {
    return lanes.load(a + i) - lanes.load(b + i);
  };
  const auto subtract_plainly = [&](auto lanes, int64_t i) {
    lanes.store(out + i, subtract_lanes(lanes, i));
  };
  if (!streamed)
    return for_each_vector<Accumulator<T>>(count, subtract_plainly);
  const int64_t head = std::min(count, unaligned_elements(out));
  for_each_vector<Accumulator<T>>(head, subtract_plainly);
  a += head, b += head, out += head;
  for_each_vector<Accumulator<T>>(count - head, [&](auto lanes, int64_t i) {
    lanes.stream(out + i, subtract_lanes(lanes, i));
  });
}

template <typename T>
void spread(const T* g, Accumulator<T>* a, Accumulator<T>* b, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    const auto gradient = lanes.load(g + i);
    lanes.store(a + i, lanes.load(a + i) + gradient);
    lanes.store(b + i, lanes.load(b + i) - gradient);
  });
}

}  // namespace

#if defined(__AVX512F__)
#define SAN_TABLE row_kernels_avx512
#elif defined(__AVX2__)
#define SAN_TABLE row_kernels_avx2
#else
#define SAN_TABLE row_kernels_baseline
#endif

template <typename T>
RowKernels<T> SAN_TABLE() {
  using A = Accumulator<T>;
  return {load_row<T>, store_row<T>,   weighted_sum<T>, channel_sum<T>,
          add<T>,      gather_rows<A>, scatter_rows<A>, subtract<T>,
          end_stream,  spread<T>};
}

template RowKernels<float> SAN_TABLE();
template RowKernels<double> SAN_TABLE();
template RowKernels<float16> SAN_TABLE();
template RowKernels<bfloat16> SAN_TABLE();

}  // namespace san::fast
