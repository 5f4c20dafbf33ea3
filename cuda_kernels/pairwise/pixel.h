// The forward steps of one pixel of the fused pairwise attention, as loops over
// the pixels of its footprint. In an unnamed namespace: one copy per
// instruction set.
#ifndef CUDA_KERNELS_PAIRWISE_PIXEL_H_
#define CUDA_KERNELS_PAIRWISE_PIXEL_H_

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cuda_kernels/cpu/product.h"
#include "cuda_kernels/pairwise/footprint.h"
#include "cuda_kernels/pairwise/math.h"
#include "cuda_kernels/pairwise/rows.h"

namespace san::pairwise {
namespace {

// Elements of the vectors that cpu::AllLanes or FirstLanes loads.
template <typename A, typename Lanes>
constexpr int lanes_of() {
  return sizeof(typename Lanes::V) / sizeof(A);
}

template <typename T>
struct Pixel {
  using A = Accumulator<T>;
  static constexpr int L = kWide<A>;
  using V = Vector<A, L>;
  using Integer = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;

  Pixel(const PairwiseProblem<T>& problem, const Buffers<T>& buffers, int64_t n,
        int64_t h, int64_t w)
      : p(problem),
        s(problem.shape),
        b(buffers),
        view(s, h, w),
        R(s.relation_channels),
        G(s.weight_channels),
        M(s.value_channels),
        F(s.feature_channels()),
        taps(view.taps()),
        image(n * s.height * s.width),
        index(image + h * s.width + w) {
    if (!view.whole()) count(h, w);
  }

  // counts[tap]: how many taps of the uncut footprint show that pixel.
  void count(int64_t h, int64_t w) {
    const A* rows = p.row_counts + h * s.kernel_size + view.first_row;
    const A* columns = p.column_counts + w * s.kernel_size + view.first_column;
    for (int64_t y = 0, tap = 0; y < view.rows; ++y)
      for (int64_t x = 0; x < view.columns; ++x)
        b.counts[tap++] = rows[y] * columns[x];
  }

  A count_of(int64_t tap) const { return view.whole() ? A(1) : b.counts[tap]; }

  const T* feature(int64_t pixel) const {
    return p.features + (image + pixel) * F;
  }

  // Calls f(lanes, i) for vectors that cover the relation's channels: the one
  // that products store, if it is just as long. A processor waits where a load
  // is longer than the store before it.
  template <typename Function>
  inline __attribute__((always_inline)) void for_each_vector(Function f) const {
    with_panel<A>(R, [&](auto panel) {
      if (R == panel.kLanes)
        f(cpu::AllLanes<A, panel.kLanes>(), int64_t{0});
      else
        cpu::for_each_vector<A>(R, f);
    });
  }

  // a = relu(scale * (phi - psi) + shift)
  void relate() const {
    for_each_vector([&](auto lanes, int64_t i) {
      constexpr int kLanes = lanes_of<A, decltype(lanes)>();
      const auto scale = lanes.load(p.scale + i);
      const auto own = lanes.load(p.features + index * F + i) * scale +
                       lanes.load(p.shift + i);
      const T* psi = feature(0) + R + i;
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const auto d = own - scale * lanes.load(psi + pixel * F);
        cpu::store_rounded(cpu::AllLanes<A, kLanes>(), b.a + tap * b.pitch + i,
                           relu<A, kLanes>(d));
      });
    });
  }

  // The rows of `table` that belong to the taps: itself, or copies in `to`.
  const A* rows_of(const A* table, A* to) const {
    if (view.whole()) return table;
    view.for_each([&](int64_t tap, int64_t, int64_t offset) {
      for (int64_t i = 0; i < R; i += L)
        cpu::store<L>(to + tap * b.pitch + i,
                      cpu::load<L>(table + offset * b.pitch + i));
    });
    return to;
  }

  // to = from * mapping (+ init), a row per tap.
  template <typename C>
  void map(const T* from, int64_t depth, const void* mapping, int64_t columns,
           const A* init, C* to, int64_t to_pitch, bool with_relu) const {
    const int64_t width = panel_width<A>(columns);
    multiply(Product<T, C>{taps, columns, depth, from, b.pitch, 1,
                           static_cast<const T*>(mapping), width,
                           round_up(depth, kStep<T>) * width, init, b.pitch, to,
                           to_pitch, with_relu});
  }

  void hidden() const {
    if constexpr (kStep<T> == 1) {
      map(b.a, R, p.w1, R, rows_of(p.table, b.z), b.z, b.pitch, true);
    } else {
      map(b.a, R, p.w1, R, rows_of(p.table, b.grad_a), b.z, b.pitch, true);
      // The second of a pair: a weight of zero would not undo it if it were no
      // number.
      for (int64_t tap = 0; tap < taps && R % kStep<T> != 0; ++tap)
        b.z[tap * b.pitch + R] = T();
    }
  }

  // ---- Softmax. The weights of all taps are one array with period Gp, or, if
  // that is less than a vector, with a vector as its period.

  int64_t flat() const { return round_up(taps * b.groups, L); }
  int64_t period() const { return b.groups < L ? L : b.groups; }

  // Combines the lanes of one vector that belong to one group, and leaves the
  // result in all of them. Groups narrower than a vector are powers of two.
  template <typename Combine>
  V fold(V vector, Combine combine) const {
    for (int64_t step = L / 2; step >= b.groups; step /= 2)
      vector = combine(vector, __builtin_shuffle(vector, rotation(step)));
    return vector;
  }

  static Vector<Integer, L> rotation(int64_t step) {
    Vector<Integer, L> lane;
    for (int i = 0; i < L; ++i) lane[i] = i;
    return (lane + static_cast<Integer>(step)) & (L - 1);
  }

  // Fills the last vector of logits with such as weigh nothing, and returns
  // how often each weight counts, or null where all count once.
  const A* begin_weights() const {
    const A lowest = -std::numeric_limits<A>::infinity();
    const int64_t end = flat();
    for (int64_t i = taps * b.groups; i < end; ++i) b.weights[i] = lowest;
    if (view.whole()) return nullptr;
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t g = 0; g < b.groups; ++g)
        b.group_counts[tap * b.groups + g] = b.counts[tap];
    for (int64_t i = taps * b.groups; i < end; ++i) b.group_counts[i] = 0;
    return b.group_counts;
  }

  // weights = counts * exp(logit - max), inverse = 1 / their sum; writes the
  // logarithm of the denominator unless log_sum_exp is null.
  void soften(A* log_sum_exp) const {
    const int64_t end = flat();
    const A* counts = begin_weights();
    for (int64_t g = 0; g < period(); g += L) {
      const V top =
          fold(highest(g, end), [](V x, V y) { return x < y ? y : x; });
      const V sum = fold(exponentiate(g, end, top, counts),
                         [](V x, V y) { return x + y; });
      cpu::store<L>(b.inverse + g, A(1) / sum);
      if (log_sum_exp)
        cpu::store<L>(b.group_sums + g, top + log_above_one<A, L>(sum));
    }
    if (log_sum_exp) std::copy_n(b.group_sums, G, log_sum_exp + index * G);
  }

  V highest(int64_t g, int64_t end) const {
    V top = cpu::load<L>(b.weights + g);
    for (int64_t i = g + period(); i < end; i += period()) {
      const V next = cpu::load<L>(b.weights + i);
      top = top < next ? next : top;
    }
    return top;
  }

  V exponentiate(int64_t g, int64_t end, V top, const A* counts) const {
    V sum = {};
    for (int64_t i = g; i < end; i += period()) {
      V e = exp_below_zero<A, L>(cpu::load<L>(b.weights + i) - top);
      if (counts) e *= cpu::load<L>(counts + i);
      cpu::store<L>(b.weights + i, e);
      sum += e;
    }
    return sum;
  }

  // ---- Aggregation. Channel c of the value uses weight c mod G. A block is
  // some vectors of channels and says which weights belong to them.

  // G is a multiple of L: vectors at g, g + G, ... share one vector of weights.
  // L is a multiple of G: any vector uses the weights over and over.
  // Else: vectors of one group's run, cut off at its end.
  template <typename F>
  inline __attribute__((always_inline)) void for_each_block(F f) const {
    const cpu::AllLanes<A, L> all;
    if (G % L == 0) {
      for (int64_t g = 0; g < G; g += L) {
        int64_t c = g;
        for (; c + 7 * G < M; c += 8 * G) f(block<8, false>(all, c, G, g));
        for (; c < M; c += G) f(block<1, false>(all, c, G, g));
      }
    } else if (L % G == 0 && M % L == 0) {
      int64_t c = 0;
      for (; c + 3 * L < M; c += 4 * L) f(block<4, true>(all, c, L, 0));
      for (; c < M; c += L) f(block<1, true>(all, c, L, 0));
    } else {
      for (int64_t c = 0; c < M; c += G)
        cpu::for_each_vector<A>(G, [&](auto lanes, int64_t g) {
          f(block<1, false>(lanes, c + g, G, g));
        });
    }
  }

  // kVectors vectors of channels, `step` apart, and which weights are theirs.
  template <typename Lanes, int kVectors, bool kRepeated>
  struct Block {
    static constexpr int kCount = kVectors, kLanes = lanes_of<A, Lanes>();
    using V = Vector<A, kLanes>;
    Lanes lanes;
    int64_t channel, step, group;
    Vector<Integer, kLanes> repeat;

    static Vector<Integer, kLanes> lane() {
      Vector<Integer, kLanes> lane;
      for (int i = 0; i < kLanes; ++i) lane[i] = i;
      return lane;
    }
    template <typename E>
    V load(const E* pixel, int v) const {
      return lanes.load(pixel + channel + v * step);
    }
    template <typename E>
    void store(E* pixel, int v, V value) const {
      cpu::store_rounded(lanes, pixel + channel + v * step, value);
    }
    V weights(const A* row) const {
      const V own = cpu::load<kLanes>(row + group);
      return kRepeated ? __builtin_shuffle(own, repeat) : own;
    }
    // row[group...] += sum, of all lanes that use the same weight.
    void add_to(A* row, V sum, int64_t groups) const {
      if constexpr (kRepeated) {
        const cpu::FirstLanes<A, L> first(static_cast<int>(groups));
        for (int64_t step = kLanes / 2; step >= groups; step /= 2)
          sum += __builtin_shuffle(sum, rotation(step));
        first.store(row, first.load(row) + sum);
      } else {
        lanes.store(row + group, lanes.load(row + group) + sum);
      }
    }
  };

  template <int kVectors, bool kRepeated, typename Lanes>
  Block<Lanes, kVectors, kRepeated> block(const Lanes& lanes, int64_t channel,
                                          int64_t step, int64_t group) const {
    // kRepeated: G divides the lanes, so it is a power of two as they are.
    return {lanes, channel, step, group,
            Block<Lanes, kVectors, kRepeated>::lane() & Integer(G - 1)};
  }

  void aggregate(T* output) const {
    for_each_block([&](auto block) {
      constexpr int kVectors = block.kCount;
      typename decltype(block)::V sum[kVectors] = {};
      const T* value = feature(0) + 2 * R;
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const auto w = block.weights(b.weights + tap * b.groups);
        for (int v = 0; v < kVectors; ++v)
          sum[v] += w * block.load(value + pixel * F, v);
      });
      const auto inverse = block.weights(b.inverse);
      for (int v = 0; v < kVectors; ++v)
        block.store(output + index_of_output(), v, sum[v] * inverse);
    });
  }

  int64_t index_of_output() const { return index * M; }

  const PairwiseProblem<T>& p;
  const PairwiseShape& s;
  const Buffers<T>& b;
  Footprint view;
  int64_t R, G, M, F, taps, image, index;
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_PIXEL_H_
