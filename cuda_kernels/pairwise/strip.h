// The forward pass of the fused pairwise attention where the mapping is narrow:
// a strip of neighbouring pixels at a time, one pixel per lane. In an unnamed
// namespace: one copy per instruction set.
//
// Idea. With few relation channels the vectors of pixel.h, which hold
// channels, are partly empty and their products too short. Here a vector holds
// one channel of L pixels in a row, and every weight of the mapping is a scalar
// that all of them share: no lane is empty, whatever R and G are.
//
// Memory plan, per thread: planes of psi (scaled) and beta for a band of rows
// and the rows that it sees, made once per band, in the second cache; for a
// strip, in the first: scale * phi + shift [R, L], z [R, L], and the weights of
// all taps [K, Gp, L]. Pixels outside the image are zeros that count nothing.
#ifndef CUDA_KERNELS_PAIRWISE_STRIP_H_
#define CUDA_KERNELS_PAIRWISE_STRIP_H_

#include <algorithm>
#include <limits>

#include "cuda_kernels/pairwise/footprint.h"
#include "cuda_kernels/pairwise/math.h"
#include "cuda_kernels/pairwise/planes.h"
#include "cuda_kernels/pairwise/rows.h"

namespace san::pairwise {
namespace {

// Rows of a band: more share the planes' making, fewer give more jobs.
constexpr int64_t kStripRows = 4;
// Up to here strips are faster; measured on AVX-512 and AVX2.
template <typename T>
constexpr int64_t kMostStripChannels = kStep<T> == 1 ? 16 : 8;
// 1 MB of planes in float32.
constexpr int64_t kMostPlaneElements = 1 << 18;

// So many rows of a mapping for so many taps are summed up in registers.
constexpr int kStripTaps = 3;
#ifdef __AVX512F__
constexpr int kStripTile = 8;  // 24 of 32 registers
#else
constexpr int kStripTile = 4;  // 12 of 16 registers
#endif

// The planes of psi and beta that a band needs.
template <typename A>
Planes<A> band_planes(const PairwiseShape& s) {
  return {s.relation_channels + s.value_channels,
          kStripRows + s.kernel_size - 1, s.width, s.kernel_size / 2};
}

// Whether a task goes strip by strip: if it is narrow and not many lanes hang
// over the image's edge.
template <typename T>
bool in_strips(const PairwiseShape& s) {
  using A = Accumulator<T>;
  return s.relation_channels <= kMostStripChannels<T> &&
         4 * s.width >= 3 * round_up(s.width, kWide<A>) &&
         band_planes<A>(s).elements() <= kMostPlaneElements;
}

template <typename A>
struct StripBuffers {
  static constexpr int L = kWide<A>;

  StripBuffers(const PairwiseShape& s, A* scratch)
      : arena(scratch),
        planes(band_planes<A>(s)),
        groups(padded<A>(s.weight_channels)),
        table_pitch(Buffers<A>(s, nullptr).pitch) {
    const int64_t taps = s.taps();
    own = arena.take(s.relation_channels * L);
    z = arena.take(kStripTaps * padded<A>(s.relation_channels) * L);
    weights = arena.take(taps * groups * L);
    log_sums = arena.take(round_up(s.weight_channels, L) * L);
    counts = arena.take(s.kernel_size * L);
    output = arena.take(round_up(s.value_channels, L) * L);
    planes.data = arena.take(planes.elements());
  }

  Arena<A> arena;
  Planes<A> planes;
  int64_t groups, table_pitch;
  A *own, *z, *weights, *log_sums, *counts, *output;
};

// Calls to(j, t, init(j, t) + sum over d of matrix(d, j) * from(d, t)) for
// kTaps taps and all columns j of a packed matrix, and as many as make a panel
// whole. Several taps share what is loaded of the matrix.
template <int kTaps, typename A, typename Init, typename From, typename To>
inline __attribute__((always_inline)) void map_lanes(const void* matrix,
                                                     int64_t depth,
                                                     int64_t columns, Init init,
                                                     From from, To to) {
  using V = Vector<A, kWide<A>>;
  with_panel<A>(columns, [&](auto panel) {
    constexpr int kWidth = panel.kWidth;
    constexpr int kTile = kWidth < kStripTile ? kWidth : kStripTile;
    for (int64_t j = 0; j < columns; j += kTile) {
      const A* m = static_cast<const A*>(matrix) + j / kWidth * kWidth * depth +
                   j % kWidth;
      V sum[kTile][kTaps];
      for (int i = 0; i < kTile; ++i)
        for (int t = 0; t < kTaps; ++t) sum[i][t] = V{} + init(j + i, t);
      for (int64_t d = 0; d < depth; ++d, m += kWidth) {
        V v[kTaps];
        for (int t = 0; t < kTaps; ++t) v[t] = from(d, t);
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i)
          for (int t = 0; t < kTaps; ++t) sum[i][t] += m[i] * v[t];
      }
      for (int i = 0; i < kTile; ++i)
        for (int t = 0; t < kTaps; ++t) to(j + i, t, sum[i][t]);
    }
  });
}

// The pixels [w, w + L) of row h.
template <typename T>
struct Strip {
  using A = Accumulator<T>;
  static constexpr int L = kWide<A>;
  using V = Vector<A, L>;

  Strip(const PairwiseProblem<T>& problem, const StripBuffers<A>& buffers,
        int64_t n, int64_t h, int64_t w, int64_t top)
      : p(problem),
        s(problem.shape),
        b(buffers),
        view(s, h, w),
        R(s.relation_channels),
        G(s.weight_channels),
        M(s.value_channels),
        F(s.feature_channels()),
        k(s.kernel_size),
        h(h),
        w(w),
        index((n * s.height + h) * s.width + w),
        // Of the footprint's first column in the planes' first channel.
        first(b.planes.at(0, view.y0 - top) + w),
        pixels(std::min<int64_t>(L, s.width - w)),
        whole(view.rows == k && w >= k / 2 && w + L + k / 2 <= s.width) {
    if (!whole) count();
  }

  // counts[x][lane]: how many columns of the lane's footprint show column x.
  void count() const {
    for (int64_t x = 0; x < k; ++x)
      for (int64_t lane = 0; lane < L; ++lane)
        b.counts[x * L + lane] =
            lane < pixels ? p.column_counts[(w + lane) * k + x] : A(1);
  }

  V count_of(int64_t y, int64_t x) const {
    return cpu::load<L>(b.counts + x * L) *
           p.row_counts[h * k + view.first_row + y];
  }

  // Calls f(tap, y, x) for the rows that are in the image and all columns.
  template <typename Function>
  inline __attribute__((always_inline)) void for_each_tap(Function f) const {
    int64_t tap = 0;
    for (int64_t y = 0; y < view.rows; ++y)
      for (int64_t x = 0; x < k; ++x) f(tap++, y, x);
  }

  static V higher(V a, V b) { return a > b ? a : b; }  // keeps NaN of b
  static V rectified(V v) { return v < 0 ? V{} : v; }  // keeps NaN

  // own = scale * phi + shift
  void load_own() const {
    for (int64_t c = 0; c < R; c += L)
      to_planes(p.features + index * F + c, F, pixels, R - c,
                [&](int i, V phi) {
                  cpu::store<L>(b.own + (c + i) * L,
                                phi * p.scale[c + i] + p.shift[c + i]);
                });
  }

  // The logits of every tap.
  void map_taps() const {
    for (int64_t y = 0; y < view.rows; ++y) {
      int64_t x = 0;
      for (; x + kStripTaps <= k; x += kStripTaps) map_taps<kStripTaps>(y, x);
      for (; x < k; ++x) map_taps<1>(y, x);
    }
  }

  // Those of kTaps taps in a row. Outside the image they are lowest.
  template <int kTaps>
  void map_taps(int64_t y, int64_t x) const {
    const A* table = p.table + ((view.first_row + y) * k + x) * b.table_pitch;
    const A* psi = first + y * b.planes.pitch + x;
    map_lanes<kTaps, A>(
        p.w1, R, R,
        [&](int64_t j, int t) { return table[t * b.table_pitch + j]; },
        [&](int64_t d, int t) {
          // relu(own - other), in the two instructions that it takes.
          const V other = cpu::load<L>(psi + d * b.planes.plane + t);
          return higher(other, cpu::load<L>(b.own + d * L)) - other;
        },
        [&](int64_t j, int t, V z) {
          cpu::store<L>(b.z + (j * kTaps + t) * L, rectified(z));
        });
    V seen[kTaps];
    for (int t = 0; t < kTaps; ++t)
      seen[t] = whole ? V{} + A(1) : count_of(y, x + t);
    A* logits = b.weights + (y * k + x) * b.groups * L;
    map_lanes<kTaps, A>(
        p.w2, R, G, [](int64_t, int) { return A(0); },
        [&](int64_t d, int t) {
          return cpu::load<L>(b.z + (d * kTaps + t) * L);
        },
        [&](int64_t g, int t, V logit) {
          const V lowest = V{} - std::numeric_limits<A>::infinity();
          cpu::store<L>(logits + (t * b.groups + g) * L,
                        seen[t] > 0 ? logit : lowest);
        });
  }

  // Softmax and sum of one group after the other; keeps the logarithms of the
  // denominators if asked to.
  void aggregate(bool keep) const {
    for (int64_t g = 0; g < G; ++g) {
      const V top = highest(b.weights + g * L);
      const V sum = soften(b.weights + g * L, top), inverse = A(1) / sum;
      if (keep)
        cpu::store<L>(b.log_sums + g * L, top + log_above_one<A, L>(sum));
      int64_t c = g;
      for (; c + 7 * G < M; c += 8 * G) aggregate<8>(g, c, inverse);
      for (; c < M; c += G) aggregate<1>(g, c, inverse);
    }
  }

  V highest(const A* weights) const {
    const int64_t step = b.groups * L;
    const int64_t taps = view.rows * k;
    V top = cpu::load<L>(weights), other = top;  // two short chains
    for (int64_t tap = 0; tap + 1 < taps; tap += 2) {
      top = higher(top, cpu::load<L>(weights + tap * step));
      other = higher(other, cpu::load<L>(weights + (tap + 1) * step));
    }
    return higher(higher(top, other),
                  cpu::load<L>(weights + (taps - 1) * step));
  }

  // weights = counts * exp(logit - top); returns their sum.
  V soften(A* weights, V top) const {
    const int64_t step = b.groups * L;
    V sum = {};
    for_each_tap([&](int64_t tap, int64_t y, int64_t x) {
      V e = exp_below_zero<A, L>(cpu::load<L>(weights + tap * step) - top);
      if (!whole) e *= count_of(y, x);
      cpu::store<L>(weights + tap * step, e);
      sum += e;
    });
    return sum;
  }

  // kChannels channels of group g, from channel c on.
  template <int kChannels>
  inline __attribute__((always_inline)) void aggregate(int64_t g, int64_t c,
                                                       V inverse) const {
    V sum[kChannels] = {};
    const A* beta = first + (R + c) * b.planes.plane;
    const int64_t step = G * b.planes.plane;
    for_each_tap([&](int64_t tap, int64_t y, int64_t x) {
      const V weight = cpu::load<L>(b.weights + (tap * b.groups + g) * L);
      const A* value = beta + y * b.planes.pitch + x;
#pragma GCC unroll 8
      for (int i = 0; i < kChannels; ++i)
        sum[i] += weight * cpu::load<L>(value + i * step);
    });
    for (int i = 0; i < kChannels; ++i)
      cpu::store<L>(b.output + (c + i * G) * L, sum[i] * inverse);
  }

  void store(T* output, A* log_sum_exp) const {
    for (int64_t c = 0; c < M; c += L)
      from_planes(b.output + c * L, M - c, output + index * M + c, M, pixels);
    for (int64_t g = 0; log_sum_exp && g < G; g += L)
      from_planes(b.log_sums + g * L, G - g, log_sum_exp + index * G + g, G,
                  pixels);
  }

  const PairwiseProblem<T>& p;
  const PairwiseShape& s;
  const StripBuffers<A>& b;
  Footprint view;  // of the first pixel: only its rows are everybody's
  int64_t R, G, M, F, k, h, w, index;
  const A* first;
  int64_t pixels;
  bool whole;
};

// The rows [h, end) of image n.
template <typename T, typename A = Accumulator<T>>
void forward_in_strips(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
                       int64_t end, A* scratch, T* output, A* log_sum_exp) {
  const PairwiseShape& s = problem.shape;
  const StripBuffers<A> b(s, scratch);
  const int64_t R = s.relation_channels, F = s.feature_channels();
  const int64_t reach = s.kernel_size / 2;
  const int64_t top = std::max<int64_t>(0, h - reach);
  const int64_t bottom = std::min(s.height, end + reach);
  for (int64_t y = top; y < bottom; ++y) {
    const T* row = problem.features + (n * s.height + y) * s.width * F;
    b.planes.fill(y - top, 0, R, row + R, F, problem.scale);
    b.planes.fill(y - top, R, s.value_channels, row + 2 * R, F, nullptr);
  }
  for (; h < end; ++h)
    for (int64_t w = 0; w < s.width; w += kWide<A>) {
      const Strip<T> strip(problem, b, n, h, w, top);
      strip.load_own();
      strip.map_taps();
      strip.aggregate(log_sum_exp != nullptr);
      strip.store(output, log_sum_exp);
    }
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_STRIP_H_
