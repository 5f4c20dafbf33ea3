// The backward pass of the fused pairwise attention where the mapping is
// narrow: as in strip.h a vector holds one channel of L pixels in a row. In an
// unnamed namespace: one copy per instruction set.
//
// Idea. What a strip adds to the gradients of the pixels that a tap shows is a
// vector there too, some columns beside the strip: it is added to planes, which
// are turned back once the row is done. Taps are taken column by column, since
// a processor waits for a load that a store just before it overlaps in part.
// Sums over all pixels are kept for each lane, and lanes are added up once a
// row.
//
// Memory plan, per thread: planes of psi, beta and their gradients for the rows
// that a row sees; of a column of taps a, z and the gradients of z and of the
// logits [k, R or G, L]; the sums [R, R, L], [R, G, L] and [K, R, L].
#ifndef CUDA_KERNELS_PAIRWISE_STRIP_BACKWARD_H_
#define CUDA_KERNELS_PAIRWISE_STRIP_BACKWARD_H_

#include <algorithm>

#include "cuda_kernels/pairwise/strip.h"
#include "cuda_kernels/relu.h"

namespace san::pairwise {
namespace {

// Up to here strips are faster; measured on AVX-512.
constexpr int64_t kMostBackwardStripChannels = 8;
// Rows and columns of sums that are in registers together.
constexpr int kOuterTile = 4;

template <typename A>
int64_t outer_padded(int64_t channels) {
  return round_up(padded<A>(channels), kOuterTile);
}

template <typename A>
struct BackwardStripBuffers {
  static constexpr int L = kWide<A>;

  BackwardStripBuffers(const PairwiseShape& s, A* scratch)
      : arena(scratch),
        planes(s.relation_channels + s.value_channels, s.kernel_size, s.width,
               s.kernel_size / 2),
        grad_planes(planes),
        R(outer_padded<A>(s.relation_channels)),
        G(outer_padded<A>(s.weight_channels)),
        table_pitch(Buffers<A>(s, nullptr).pitch) {
    const int64_t k = s.kernel_size;
    begin = arena.take(0);
    for (A** buffer : {&a, &z, &grad_z, &grad_a})
      *buffer = arena.take(k * R * L);
    grad_logits = arena.take(k * G * L);
    for (A** buffer : {&phi, &scale, &shift}) *buffer = arena.take(R * L);
    w1 = arena.take(R * R * L);
    w2 = arena.take(R * G * L);
    table = arena.take(s.taps() * R * L);
    grad_planes.data = arena.take(planes.elements());
    zeros = arena.take(0);
    grad_phi = arena.take(R * L);
    for (A** buffer : {&products, &log_sums})
      *buffer = arena.take(round_up(G, L) * L);
    counts = arena.take(k * L);
    grad = arena.take(round_up(s.value_channels, L) * L);
    planes.data = arena.take(planes.elements());
  }

  // Everything that is added to, and what is beyond the channels.
  void clear() const { std::fill(begin, zeros, A(0)); }

  Arena<A> arena;
  Planes<A> planes, grad_planes;  // psi and beta, and their gradients
  int64_t R, G, table_pitch;      // whole tiles of sums
  A *begin, *a, *z, *grad_z, *grad_a, *grad_logits;
  A *phi, *scale, *shift, *w1, *w2, *table, *zeros;
  A *grad_phi, *products, *log_sums, *counts, *grad;
};

template <typename T>
bool backward_in_strips(const PairwiseShape& s) {
  return s.relation_channels <= kMostBackwardStripChannels && in_strips<T>(s);
}

// sums[i, j] += sum over rows of u[row, i] * v[row, j], in every lane.
template <typename A>
void add_outer_lanes(int64_t rows, const A* u, int64_t height, const A* v,
                     int64_t width, A* sums) {
  constexpr int L = kWide<A>, T = kOuterTile;
  for (int64_t i = 0; i < height; i += T)
    for (int64_t j = 0; j < width; j += T) {
      A* to = sums + (i * width + j) * L;
      Vector<A, L> sum[T][T];
      cpu::unrolled<T>([&](auto m) {
        cpu::unrolled<T>([&](auto n) {
          sum[m][n] = cpu::load<L>(to + (m * width + n) * L);
        });
      });
      for (int64_t row = 0; row < rows; ++row) {
        const A *left = u + (row * height + i) * L,
                *right = v + (row * width + j) * L;
        cpu::unrolled<T>([&](auto m) {
          cpu::unrolled<T>([&](auto n) {
            sum[m][n] +=
                cpu::load<L>(left + m * L) * cpu::load<L>(right + n * L);
          });
        });
      }
      cpu::unrolled<T>([&](auto m) {
        cpu::unrolled<T>([&](auto n) {
          cpu::store<L>(to + (m * width + n) * L, sum[m][n]);
        });
      });
    }
}

template <typename A>
A sum_of_lanes(const A* lanes) {
  A sum = 0;
  for (int i = 0; i < kWide<A>; ++i) sum += lanes[i];
  return sum;
}

// to += by, both vectors in memory.
template <typename A, typename V>
inline void add_lanes(A* to, V by) {
  cpu::store<kWide<A>>(to, cpu::load<kWide<A>>(to) + by);
}

// The pixels [w, w + L) of row h. `kWhole`: all of them are in the image, and
// so are all that they see.
template <typename T, bool kWhole>
struct BackwardStrip {
  using A = Accumulator<T>;
  static constexpr int L = kWide<A>;
  using V = Vector<A, L>;

  BackwardStrip(const PairwiseProblem<T>& problem,
                const BackwardStripBuffers<A>& buffers, const Footprint& view,
                int64_t n, int64_t h, int64_t w)
      : p(problem),
        s(problem.shape),
        b(buffers),
        view(view),
        R(s.relation_channels),
        G(s.weight_channels),
        M(s.value_channels),
        F(s.feature_channels()),
        k(s.kernel_size),
        h(h),
        w(w),
        index((n * s.height + h) * s.width + w),
        pixels(std::min<int64_t>(L, s.width - w)) {
    if (!kWhole) count();
  }

  // counts[x][lane]: how many columns of the lane's footprint show column x;
  // none of a lane beside the image.
  void count() const {
    for (int64_t x = 0; x < k; ++x)
      for (int64_t lane = 0; lane < L; ++lane)
        b.counts[x * L + lane] =
            lane < pixels ? p.column_counts[(w + lane) * k + x] : A(0);
  }
  V count_of(int64_t y, int64_t x) const {
    return cpu::load<L>(b.counts + x * L) *
           p.row_counts[h * k + view.first_row + y];
  }

  // Of an image [N, H, W, channels], these pixels: [channels, L].
  template <typename E>
  void load(const E* image, int64_t pitch, int64_t channels, A* to) const {
    for (int64_t c = 0; c < channels; c += L)
      to_planes(image + index * pitch + c, pitch, pixels, channels - c,
                [&](int i, V v) { cpu::store<L>(to + (c + i) * L, v); });
  }

  // Also grad_output * output, summed over the channels of a group.
  void load_own(const Attended<T>& attended) const {
    load(p.features, F, R, b.phi);
    load(attended.log_sum_exp, G, G, b.log_sums);
    load(attended.output, M, M, b.grad);
    std::fill_n(b.products, G * L, A(0));
    for (int64_t c = 0; c < M; c += L)
      to_planes(attended.grad_output + index * M + c, M, pixels, M - c,
                [&](int i, V grad) {
                  A* own = b.grad + (c + i) * L;
                  add_lanes(b.products + (c + i) % G * L,
                            grad * cpu::load<L>(own));
                  cpu::store<L>(own, grad);
                });
    std::fill_n(b.grad_phi, R * L, A(0));
  }

  // phi - psi of channel d; 0 where a lane sees nothing.
  V difference(const A* psi, int64_t d, V seen) const {
    const V v =
        cpu::load<L>(b.phi + d * L) - cpu::load<L>(psi + d * b.planes.plane);
    return kWhole || seen > 0 ? v : V{};
  }

  void differentiate() const {
    for (int64_t x = 0; x < k; ++x) {
      int64_t y = 0;
      for (; y + kStripTaps <= view.rows; y += kStripTaps)
        differentiate<kStripTaps>(y, x);
      for (; y < view.rows; ++y) differentiate<1>(y, x);
      add_outer_lanes(view.rows, b.z, b.R, b.grad_logits, b.G, b.w2);
      add_outer_lanes(view.rows, b.a, b.R, b.grad_z, b.R, b.w1);
    }
  }

  // kTaps taps of column x, from row y on.
  template <int kTaps>
  void differentiate(int64_t y, int64_t x) const {
    const int64_t at = b.planes.at(0, y) - b.planes.data + w + x;
    const A* psi = b.planes.data + at;
    const int64_t pitch = b.planes.pitch, plane = b.planes.plane;
    V seen[kTaps];
    for (int t = 0; t < kTaps; ++t)
      seen[t] = kWhole ? V{} + A(1) : count_of(y + t, x);
    A* a = b.a + y * b.R * L;
    A* z = b.z + y * b.R * L;
    A* grad_z = b.grad_z + y * b.R * L;
    A* grad_a = b.grad_a + y * b.R * L;
    A* logits = b.grad_logits + y * b.G * L;
    const auto relation = [&](int64_t d, int t) { return (t * b.R + d) * L; };
    const auto group = [&](int64_t g, int t) { return (t * b.G + g) * L; };
    const auto offset = [&](int t) { return (view.first_row + y + t) * k + x; };
    const auto none = [](int64_t, int) { return A(0); };
    for (int t = 0; t < kTaps; ++t)
      for (int64_t d = 0; d < R; ++d)
        cpu::store<L>(
            a + relation(d, t),
            relu<A, L>(difference(psi + t * pitch, d, seen[t]) * p.scale[d] +
                       p.shift[d]));
    map_lanes<kTaps, A>(
        p.w1, R, R,
        [&](int64_t j, int t) {
          return p.table[offset(t) * b.table_pitch + j];
        },
        [&](int64_t d, int t) { return cpu::load<L>(a + relation(d, t)); },
        [&](int64_t j, int t, V v) {
          cpu::store<L>(z + relation(j, t), relu<A, L>(v));
        });
    map_lanes<kTaps, A>(
        p.w2, R, G, none,
        [&](int64_t d, int t) { return cpu::load<L>(z + relation(d, t)); },
        [&](int64_t g, int t, V v) { cpu::store<L>(logits + group(g, t), v); });
    for (int t = 0; t < kTaps; ++t)
      for (int64_t g = 0; g < G; ++g)
        weigh(at + R * plane + t * pitch, g, seen[t], logits + group(g, t));
    map_lanes<kTaps, A>(
        p.w2_transposed, G, R, none,
        [&](int64_t g, int t) { return cpu::load<L>(logits + group(g, t)); },
        [&](int64_t j, int t, V v) {
          const V grad = relu_gradient(cpu::load<L>(z + relation(j, t)), v);
          cpu::store<L>(grad_z + relation(j, t), grad);
          add_lanes(b.table + (offset(t) * b.R + j) * L, grad);
        });
    map_lanes<kTaps, A>(
        p.w1_transposed, R, R, none,
        [&](int64_t d, int t) { return cpu::load<L>(grad_z + relation(d, t)); },
        [&](int64_t j, int t, V v) {
          cpu::store<L>(grad_a + relation(j, t), v);
        });
    for (int t = 0; t < kTaps; ++t)
      relate_backward(at + t * pitch, a + relation(0, t),
                      grad_a + relation(0, t), seen[t]);
  }

  // Turns a logit into its gradient; the value's takes weight * grad_output.
  void weigh(int64_t value, int64_t g, V seen, A* logit) const {
    V weight = exp_below_zero<A, L>(cpu::load<L>(logit) -
                                    cpu::load<L>(b.log_sums + g * L));
    if (!kWhole) weight = seen > 0 ? weight * seen : V{};
    const V product = cpu::load<L>(b.products + g * L);
    const int64_t step = b.planes.plane;
    V sum = {};
    for (int64_t c = g; c < M; c += G) {
      const V grad = cpu::load<L>(b.grad + c * L);
      sum += grad * cpu::load<L>(b.planes.data + value + c * step);
      add_lanes(b.grad_planes.data + value + c * step, weight * grad);
    }
    const V result = weight * (sum - product);
    cpu::store<L>(logit, kWhole || seen > 0 ? result : V{});
  }

  // Through the relation's relu to phi, psi, scale and shift.
  void relate_backward(int64_t psi, const A* a, const A* grad_a, V seen) const {
    for (int64_t d = 0; d < R; ++d) {
      const V grad =
          relu_gradient(cpu::load<L>(a + d * L), cpu::load<L>(grad_a + d * L));
      add_lanes(b.grad_phi + d * L, grad);
      add_lanes(b.scale + d * L,
                grad * difference(b.planes.data + psi, d, seen));
      add_lanes(b.grad_planes.data + psi + d * b.planes.plane, grad);
    }
  }

  // Adds the gradient of phi, and of shift, which is the same but for scale.
  void store_own(A* grad_features) const {
    for (int64_t d = 0; d < R; ++d) {
      const V grad = cpu::load<L>(b.grad_phi + d * L);
      add_lanes(b.shift + d * L, grad);
      cpu::store<L>(b.grad_phi + d * L, grad * p.scale[d]);
    }
    for (int64_t d = 0; d < R; d += L)
      from_planes(b.grad_phi + d * L, R - d, grad_features + index * F + d, F,
                  pixels);
  }

  const PairwiseProblem<T>& p;
  const PairwiseShape& s;
  const BackwardStripBuffers<A>& b;
  const Footprint& view;
  int64_t R, G, M, F, k, h, w, index, pixels;
};

// Adds the sums of a row to those of its band.
template <typename A>
void add_sums(const PairwiseShape& s, const BackwardStripBuffers<A>& b,
              const MappingGradients<A>& sums) {
  constexpr int L = kWide<A>;
  const int64_t R = s.relation_channels, pitch = b.table_pitch;
  for (int64_t i = 0; i < R; ++i) {
    sums.scale[i] += sum_of_lanes(b.scale + i * L);
    sums.shift[i] += sum_of_lanes(b.shift + i * L);
    for (int64_t o = 0; o < s.taps(); ++o)
      sums.table[o * pitch + i] += sum_of_lanes(b.table + (o * b.R + i) * L);
    for (int64_t r = 0; r < R; ++r)
      sums.w1[i * pitch + r] += sum_of_lanes(b.w1 + (i * b.R + r) * L);
    for (int64_t g = 0; g < s.weight_channels; ++g)
      sums.w2[i * pitch + g] += sum_of_lanes(b.w2 + (i * b.G + g) * L);
  }
}

template <typename T, typename A = Accumulator<T>>
void row_backward_in_strips(const PairwiseProblem<T>& problem, int64_t n,
                            int64_t h, A* scratch, const Attended<T>& attended,
                            A* grad_features, const MappingGradients<A>& sums) {
  constexpr int L = kWide<A>;
  const PairwiseShape& s = problem.shape;
  const BackwardStripBuffers<A> b(s, scratch);
  const Footprint view(s, h, 0);
  const int64_t R = s.relation_channels, F = s.feature_channels();
  const int64_t seen = R + s.value_channels, reach = s.kernel_size / 2;
  const int64_t first = (n * s.height + view.y0) * s.width * F + R;
  b.clear();
  for (int64_t y = 0; y < view.rows; ++y)
    b.planes.fill(y, 0, seen, problem.features + first + y * s.width * F, F,
                  nullptr);
  for (int64_t w = 0; w < s.width; w += L) {
    const auto run = [&](const auto& strip) {
      strip.load_own(attended);
      strip.differentiate();
      strip.store_own(grad_features);
    };
    const bool whole =
        view.rows == s.kernel_size && w >= reach && w + L + reach <= s.width;
    if (whole)
      run(BackwardStrip<T, true>(problem, b, view, n, h, w));
    else
      run(BackwardStrip<T, false>(problem, b, view, n, h, w));
  }
  for (int64_t y = 0; y < view.rows; ++y) {
    for (int64_t d = 0; d < R; ++d)
      b.grad_planes.multiply(y, d, -problem.scale[d]);
    b.grad_planes.add_to(y, seen, grad_features + first + y * s.width * F, F);
  }
  add_sums(s, b, sums);
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_STRIP_BACKWARD_H_
