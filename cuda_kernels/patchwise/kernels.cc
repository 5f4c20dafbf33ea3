// Compiled once per instruction set; only the table at the end is visible
// outside.
//
// Idea. A tile of rows times vectors of columns stays in registers over all
// terms: each vector of x is loaded once per tile and multiplied by one scalar
// of w per row. Rectifying while loading costs two instructions per vector.
// Making pairs costs more, so that they are made once for all rows and stay in
// the first cache.
#include "cuda_kernels/patchwise/kernels.h"

#include <type_traits>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/pairs.h"
#include "cuda_kernels/cpu/transposition.h"
#include "cuda_kernels/cpu/vectors.h"
#include "cuda_kernels/patchwise/relation_lanes.h"
#include "cuda_kernels/relu.h"

namespace san::patchwise {
namespace {

// 24 sums fill the 32 registers of AVX-512, 12 the 16 of the others.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 3;

template <typename A>
using Wide = cpu::Vector<A, cpu::kWide<A>>;

template <typename A>
inline Wide<A> load(const A* from) {
  return cpu::load<cpu::kWide<A>>(from);
}

template <typename A>
inline void store(A* to, Wide<A> value) {
  cpu::store<cpu::kWide<A>>(to, value);
}

// A NaN stays one. The compiler makes two instructions of the plain words.
template <typename A>
inline Wide<A> rectify(Wide<A> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return _mm512_maskz_max_ps(0xffff, _mm512_setzero_ps(), value);
  else
    return _mm512_maskz_max_pd(0xff, _mm512_setzero_pd(), value);
#else
  return relu(value);
#endif
}

// Adds the halves of the vector until one lane is left.
template <typename A, int L>
inline A sum_of(cpu::Vector<A, L> v) {
  if constexpr (L == 1) {
    return v[0];
  } else {
    cpu::Vector<A, L / 2> low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof low);
    return sum_of<A, L / 2>(low + high);
  }
}

// The sums of neighbouring lanes of a, then those of b.
template <typename A, int L>
inline cpu::Vector<A, L> pair_sums(cpu::Vector<A, L> a, cpu::Vector<A, L> b) {
  using Index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  cpu::Vector<Index, L> even;
  for (int i = 0; i < L; ++i) even[i] = 2 * i;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// The sums of L vectors, in fewer steps than one by one.
template <typename A, int L>
inline cpu::Vector<A, L> sums_of(const cpu::Vector<A, L>* vectors) {
  cpu::Vector<A, L> rest[L];
  memcpy(rest, vectors, sizeof rest);
  for (int count = L / 2; count >= 1; count /= 2)
    for (int i = 0; i < count; ++i)
      rest[i] = pair_sums<A, L>(rest[2 * i], rest[2 * i + 1]);
  return rest[0];
}

// Calls f(i, integral constant) for tiles of kMost, then of half as many ...
// that cover [0, count).
template <int kMost, typename F>
inline __attribute__((always_inline)) void for_each_tile(int64_t count, F f,
                                                         int64_t i = 0) {
  for (; i + kMost <= count; i += kMost)
    f(i, std::integral_constant<int, kMost>());
  if constexpr (kMost > 1) for_each_tile<kMost / 2>(count, f, i);
}

// Columns are covered by tiles of kTileVectors vectors, then of one.
template <typename A, typename F>
inline __attribute__((always_inline)) void for_each_columns(int64_t columns,
                                                            F f) {
  constexpr int64_t kL = cpu::kWide<A>;
  int64_t i = 0;
  for (; i + kTileVectors * kL <= columns; i += kTileVectors * kL)
    f(i, std::integral_constant<int, kTileVectors>());
  if (i + kL < columns) {
    f(i, std::integral_constant<int, 2>());
    i += 2 * kL;
  }
  for (; i < columns; i += kL) f(i, std::integral_constant<int, 1>());
}

template <typename T, typename A>
void load_strip(const Strip<const T, A>& a) {
  cpu::transpose<true>(a.image, a.pitch, a.rows, a.stride, a.pixels,
                       a.channels);
}

template <typename T, typename A>
void store_strip(const Strip<T, const A>& a) {
  cpu::transpose<false>(a.rows, a.stride, a.image, a.pitch, a.channels,
                        a.pixels);
}

template <typename A>
bool has_nan(const A* from, int64_t count) {
  int result = 0;  // loops over bool stay scalar
  for (int64_t i = 0; i < count; ++i) result |= from[i] != from[i];
  return result;
}

template <int M, int V, bool kRectify, typename A>
inline void mix_tile(const Mix<A>& a, int64_t m, int64_t i) {
  constexpr int64_t kL = cpu::kWide<A>;
  Wide<A> sum[M][V];
  A* out = a.out + m * a.out_stride + i;
  for (int r = 0; r < M; ++r)
    for (int v = 0; v < V; ++v)
      sum[r][v] = a.bias ? Wide<A>{} + a.bias[m + r]
                         : load(out + r * a.out_stride + v * kL);
  const A* w = a.w + m;
  for (int64_t k = 0; k < a.terms; ++k, w += a.w_stride) {
    const A* from = a.x + a.x_offsets[k] + i;
    Wide<A> x[V];
    for (int v = 0; v < V; ++v) {
      x[v] = load(from + v * kL);
      if (kRectify) x[v] = rectify<A>(x[v] * a.scale[k] + a.shift[k]);
    }
    for (int r = 0; r < M; ++r)
      for (int v = 0; v < V; ++v) sum[r][v] += x[v] * w[r];
  }
  for (int r = 0; r < M; ++r)
    for (int v = 0; v < V; ++v)
      store(out + r * a.out_stride + v * kL, sum[r][v]);
}

template <bool kRectify, typename A>
void mix_all(const Mix<A>& a) {
  for_each_columns<A>(a.columns, [&](int64_t i, auto vectors) {
    for_each_tile<kTileRows>(a.rows, [&](int64_t m, auto rows) {
      mix_tile<rows(), vectors(), kRectify>(a, m, i);
    });
  });
}

template <typename A>
void mix(const Mix<A>& a) {
  return a.scale ? mix_all<true>(a) : mix_all<false>(a);
}

#ifdef __AVX512F__
// The pairs of V vectors of columns from i on, term by term.
template <int V, bool kRectify>
void make_pairs(const MixPairs& a, int64_t i) {
  constexpr int64_t kL = cpu::kWide<float>;
  const auto term = [&](int64_t k, int v) {
    const Wide<float> x = load(a.x + a.x_offsets[k] + i + v * kL);
    return kRectify ? rectify<float>(x * a.scale[k] + a.shift[k]) : x;
  };
  float* to = a.pairs;
  int64_t k = 0;
  for (; k + 1 < a.terms; k += 2)
    cpu::unrolled<V>([&](auto v) {
      store(to, cpu::paired(term(k, v), term(k + 1, v)));
      to += kL;
    });
  for (int v = 0; k < a.terms && v < V; ++v)
    store(to + v * kL, cpu::paired(term(k, v), Wide<float>{}));
}

template <int M, int V>
void mix_tile(const MixPairs& a, int64_t m, int64_t i) {
  constexpr int64_t kL = cpu::kWide<float>;
  Wide<float> sum[M][V];
  float* out = a.out + m * a.out_stride + i;
  const auto each = [](auto f) {
    cpu::unrolled<M>(
        [&](auto r) { cpu::unrolled<V>([&](auto v) { f(r, v); }); });
  };
  each([&](auto r, auto v) {
    sum[r][v] = a.bias ? Wide<float>{} + a.bias[m + r]
                       : load(out + r * a.out_stride + v * kL);
  });
  const bfloat16* w = a.w + 2 * m;
  const float* pairs = a.pairs;
  for (int64_t k = 0; k < a.terms; k += 2, w += 2 * a.w_stride) {
    Wide<float> x[V];
    for (int v = 0; v < V; ++v, pairs += kL) x[v] = load(pairs);
    each([&](auto r, auto v) {
      sum[r][v] = cpu::multiply_add(w + 2 * r, x[v], sum[r][v]);
    });
  }
  each([&](auto r, auto v) {
    store(out + r * a.out_stride + v * kL, sum[r][v]);
  });
}

void mix_pairs(const MixPairs& a) {
  for_each_columns<float>(a.columns, [&](int64_t i, auto vectors) {
    constexpr int V = vectors();
    a.scale ? make_pairs<V, true>(a, i) : make_pairs<V, false>(a, i);
    for_each_tile<kTileRows>(
        a.rows, [&](int64_t m, auto rows) { mix_tile<rows(), V>(a, m, i); });
  });
}
#endif

template <int M, int N, typename A>
inline void gram_tile(const Gram<A>& a, int64_t m, int64_t n) {
  constexpr int kL = cpu::kWide<A>;
  Wide<A> sum[M][N] = {};
  const A* x = a.x + m * a.x_stride;
  const A* y = a.y + n * a.y_stride;
  for (int64_t i = 0; i < a.columns; i += kL) {
    Wide<A> column[N];
    for (int c = 0; c < N; ++c) column[c] = load(y + c * a.y_stride + i);
    for (int r = 0; r < M; ++r) {
      const Wide<A> row = load(x + r * a.x_stride + i);
      for (int c = 0; c < N; ++c) sum[r][c] += row * column[c];
    }
  }
  A* out = a.out + m * a.out_stride + n * a.out_step;
  Wide<A> all[M * N];  // so that sum never leaves the registers before
  for (int r = 0; r < M; ++r)
    for (int c = 0; c < N; ++c) all[r * N + c] = sum[r][c];
  A sums[M * N];
  if constexpr (M * N % kL == 0) {
    for (int i = 0; i < M * N; i += kL)
      store(sums + i, sums_of<A, kL>(all + i));
  } else {
    for (int i = 0; i < M * N; ++i) sums[i] = sum_of<A, kL>(all[i]);
  }
  for (int r = 0; r < M; ++r)
    for (int c = 0; c < N; ++c)
      out[r * a.out_stride + c * a.out_step] += sums[r * N + c];
}

template <typename A>
void gram(const Gram<A>& a) {
  for_each_tile<kTileRows / 2>(a.others, [&](int64_t n, auto others) {
    for_each_tile<4>(a.rows, [&](int64_t m, auto rows) {
      gram_tile<rows(), others()>(a, m, n);
    });
  });
}

template <int M, int V, typename A>
inline void weigh_tile(const Weigh<A>& a, int64_t c, int64_t i) {
  constexpr int64_t kL = cpu::kWide<A>;
  Wide<A> sum[M][V];
  A* out = a.out + c * a.out_stride + i;
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v)
      sum[m][v] = load(out + m * a.out_stride + v * kL);
  const A* w = a.w + i;
  const A* x = a.x + c * a.x_stride + i;
  for (int64_t t = 0; t < a.terms; ++t, w += a.w_stride) {
    Wide<A> weight[V];
    for (int v = 0; v < V; ++v) weight[v] = load(w + v * kL);
    const A* from = x + a.x_offsets[t];
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v)
        sum[m][v] += weight[v] * load(from + m * a.x_stride + v * kL);
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v)
      store(out + m * a.out_stride + v * kL, sum[m][v]);
}

template <typename A>
void weigh(const Weigh<A>& a) {
  for_each_columns<A>(a.columns, [&](int64_t i, auto vectors) {
    for_each_tile<kTileRows>(a.channels, [&](int64_t c, auto channels) {
      weigh_tile<channels(), vectors()>(a, c, i);
    });
  });
}

// Tap by tap, so that no run is loaded right after one that overlaps it has
// been stored.
template <typename A>
void weigh_gradients(const WeighGradients<A>& a) {
  constexpr int64_t kL = cpu::kWide<A>;
  for (int64_t t = 0; t < a.terms; ++t) {
    const A* x = a.x + a.x_offsets[t];
    A* grad_x = a.grad_x + a.x_offsets[t];
    for (int64_t i = 0; i < a.columns; i += kL) {
      const Wide<A> w = load(a.w + t * a.w_stride + i);
      Wide<A> grad_w = {};
      for (int64_t c = 0; c < a.channels; ++c) {
        const Wide<A> grad = load(a.grad + c * a.grad_stride + i);
        grad_w += grad * load(x + c * a.x_stride + i);
        A* to = grad_x + c * a.x_stride + i;
        store(to, load(to) + w * grad);
      }
      store(a.grad_w + t * a.w_stride + i, grad_w);
    }
  }
}

template <typename A>
void rectified(const Rectified<A>& a) {
  constexpr int64_t kL = cpu::kWide<A>;
  for (int64_t t = 0; t < a.terms; ++t) {
    const A* x = a.x + a.x_offsets[t];
    A* grad_x = a.grad_x + a.x_offsets[t];
    A* grad = a.grad + t * a.stride;
    const A scale = a.scale[t], shift = a.shift[t];
    Wide<A> scales = {}, shifts = {};
    for (int64_t i = 0; i < a.columns; i += kL) {
      const Wide<A> from = load(x + i), y = from * scale + shift;
      const Wide<A> g = relu_gradient(y, load(grad + i));
      shifts += g;
      scales += g * from;
      store(grad_x + i, load(grad_x + i) + g * scale);
      store(grad + i, rectify<A>(y));
    }
    a.grad_scale[t] += sum_of<A, cpu::kWide<A>>(scales);
    a.grad_shift[t] += sum_of<A, cpu::kWide<A>>(shifts);
  }
}

}  // namespace

template <typename T>
PatchwiseKernels<T> SAN_TABLE(patchwise_kernels)() {
  using A = Accumulator<T>;
  PatchwiseKernels<T> table = {load_strip<T, A>,
                               store_strip<T, A>,
                               has_nan<A>,
                               mix<A>,
                               nullptr,
                               gram<A>,
                               weigh<A>,
                               weigh_gradients<A>,
                               rectified<A>,
                               lane_kernels<A, T>(),
                               {}};
#ifdef __AVX512F__
  table.mix_pairs = mix_pairs;
  if constexpr (std::is_same_v<T, bfloat16>)
    table.lanes_in_pairs = lane_kernels<bfloat16, T>();
#endif
  return table;
}

template PatchwiseKernels<float> SAN_TABLE(patchwise_kernels)();
template PatchwiseKernels<double> SAN_TABLE(patchwise_kernels)();
template PatchwiseKernels<float16> SAN_TABLE(patchwise_kernels)();
template PatchwiseKernels<bfloat16> SAN_TABLE(patchwise_kernels)();

}  // namespace san::patchwise
