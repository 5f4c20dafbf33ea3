// The steps of a block on a tile of known sizes: those of block.h that are
// faster where sizes are known and channels come in fours. For .cu files only.
//
// A pair's other pixel is counted from the tile's first one, in 32 bits. A
// thread has a (row, four channels) of the relation, a (pixel, group) of the
// softmax, a (row, four groups) of its gradient, and a pixel with four times
// four channels of the value, so that a line of lanes reads lines of memory.
#ifndef CUDA_KERNELS_PAIRWISE_FIXED_BLOCK_H_
#define CUDA_KERNELS_PAIRWISE_FIXED_BLOCK_H_

#include <type_traits>

#include "cuda_kernels/pairwise/block.h"

namespace san::pairwise {
namespace {

template <typename T, Own own, typename Needs, typename TileOf>
struct FixedBlock : Block<T, own, Needs, TileOf> {
  using Base = Block<T, own, Needs, TileOf>;
  using A = typename Base::A;
  using Base::t, Base::b, Base::features, Base::first, Base::tap, Base::pixel,
      Base::offset;
  static constexpr int R = TileOf::R, G = TileOf::G, M = TileOf::M,
                       F = TileOf::features, J = TileOf::J, step = TileOf::step;

  __device__ FixedBlock(const TileOf& tile, const T* features)
      : Base(tile, features) {}

  __device__ void begin(int64_t tile) {
    first = tile << t.pixel_bits;
    here = features + first * F;
    this->limit_taps();
    const int image = t.height * t.width;
    for (int p = threadIdx.x; p < t.pixels(); p += kThreads) {
      const int at = (static_cast<int>(first) + p) % image;
      // Beyond the batch there is none that another pixel could show.
      b.row_counts[p] = first + p < t.count ? at / t.width : kNoPixel / 2;
      b.column_counts[p] = at % t.width;
    }
  }

  // How many taps show the other pixel of a pair at this distance: itself, and
  // its mirror images before the first pixel and behind the last one.
  __device__ int shows(int size, int mine, int distance) const {
    const int p = own == Own::kP ? mine : mine - distance, q = p + distance;
    const int reach = t.kernel_size / 2, end = 2 * (size - 1);
    if (p < 0 || p >= size || q < 0 || q >= size) return 0;
    return 1 + (q > 0 && p + q <= reach) +
           (q < size - 1 && end - q - p <= reach);
  }

  __device__ void place(int tap) {
    this->tap = tap;
    const int k = t.kernel_size, reach = k / 2;
#pragma unroll 1
    for (int row = threadIdx.x; row < t.rows(); row += kThreads) {
      const int p = pixel(row), y = offset(row) / k, x = offset(row) - y * k;
      int times = 0;
      if (offset(row) < t.taps)
        times = shows(t.height, b.row_counts[p], y - reach) *
                shows(t.width, b.column_counts[p], x - reach);
      const int away = (y - reach) * t.width + x - reach;
      b.times[row] = static_cast<A>(times);
      b.other[row] =
          times == 0 ? kNoPixel : p + (own == Own::kP ? away : -away);
    }
  }

  // Of images [N H W, channels], the tile's first pixel.
  template <typename E>
  __device__ const E* from_tile(const E* images, int64_t channels) const {
    return images + first * channels;
  }
  __device__ Four<A> own_four(int p, int i) const {
    return four(here + p * F + (own == Own::kP ? 0 : R) + i);
  }
  __device__ Four<A> other_four(int other, int i) const {
    return four(here + other * F + (own == Own::kQ ? 0 : R) + i);
  }

  template <typename Store>
  __device__ void relate(Store store) const {
    for_each_cell(t.rows(), R / 4, [&](int row, int quad) {
      const int other = b.other[row], i = 4 * quad;
      Four<A> a = {};
      if (other != kNoPixel) {
        const Four<A> x = four(b.own + pixel(row) * R + i);
        const Four<A> factor = four(b.factor + i), y = other_four(other, i);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          a.v[j] = relu(x.v[j] + factor.v[j] * y.v[j]);
      }
      store(row, i, a);
    });
  }

  // ---- Four groups, or two of them twice, beside four channels of the value.

  __device__ static Four<A> groups(const A* from, int g) {
    if constexpr (G >= 4) return four(from + g);
    return {from[0], from[1], from[0], from[1]};
  }

  // Calls f(p, g, c) for channels c + j * step + 0..3 of the value, j < J, of
  // which the first uses the weights of group g.
  template <typename Function>
  __device__ void for_each_channels(Function f) const {
    for_each_cell(t.pixels(), step / 4,
                  [&](int p, int quad) { f(p, 4 * quad % G, 4 * quad); });
  }

  // b.value[p, c] += sum over the pairs of weights[row, g] * images[other, c];
  // `images` begins at the tile's first pixel.
  __device__ void aggregate(const A* weights, const T* images,
                            int64_t image_pitch, const A* rescale) const {
    const int pitch = static_cast<int>(image_pitch);
    for_each_channels([&](int p, int g, int c) {
      Four<A> sum[J] = {};
#pragma unroll
      for (int i = 0; i < t.chunk; ++i) {
        const int row = i << t.pixel_bits | p, other = b.other[row];
        if (other == kNoPixel) continue;
        const Four<A> w = groups(weights + row * t.pitch(), g);
        const T* from = images + other * pitch + c;
#pragma unroll
        for (int j = 0; j < J; ++j) {
          const Four<A> x = four(from + j * step);
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[j].v[e] += w.v[e] * x.v[e];
        }
      }
      Four<A> keep = {1, 1, 1, 1};
      if (rescale) keep = groups(rescale + p * G, g);
#pragma unroll
      for (int j = 0; j < J; ++j) {
        A* to = b.value + p * M + c + j * step;
        const Four<A> had = four(to);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[j].v[e] += had.v[e] * keep.v[e];
        put(to, sum[j]);
      }
    });
  }

  // ---- The softmax.

  // Turns the logits of a chunk into e times how often the pair counts.
  __device__ void soften(A* logits) const {
    constexpr int kNext = TileOf::pixels() * TileOf::pitch();  // of a pixel
    const int at = static_cast<int>(threadIdx.x), p = at / G, g = at % G;
    const A lowest = -static_cast<A>(INFINITY), had = b.top[at];
    const A* counts = b.times + p;
    A* mine = logits + p * t.pitch() + g;
    A top = had, logit[TileOf::chunk];
#pragma unroll
    for (int i = 0; i < t.chunk; ++i) {
      // Where there is no pair, exp(-inf) is 0 and does not count.
      logit[i] = counts[i * t.pixels()] > 0 ? mine[i * kNext] : lowest;
      top = logit[i] > top ? logit[i] : top;
    }
    const A rescale = top > lowest ? exponential(had - top) : A(1);
    A total = b.total[at] * rescale;
#pragma unroll
    for (int i = 0; i < t.chunk; ++i) {
      const A times = counts[i * t.pixels()], e = exponential(logit[i] - top);
      mine[i * kNext] = times > 0 ? times * e : A(0);
      total += times > 0 ? times * e : A(0);
    }
    b.top[at] = top;
    b.total[at] = total;
    b.rescale[at] = rescale;
  }

  // The output, [N H W, M].
  __device__ void write_output(T* output) const {
    T* to = output + first * M;
    for_each_channels([&](int p, int g, int c) {
      if (first + p >= t.count) return;
      Four<A> inverse = groups(b.total + p * G, g);
#pragma unroll
      for (int e = 0; e < 4; ++e) inverse.v[e] = 1 / inverse.v[e];
#pragma unroll
      for (int j = 0; j < J; ++j) {
        Four<A> x = four(b.value + p * M + c + j * step);
#pragma unroll
        for (int e = 0; e < 4; ++e) x.v[e] *= inverse.v[e];
        put(to + p * M + c + j * step, x);
      }
    });
  }

  // Turns the logits of a chunk into their gradient, and keeps the weights if
  // there is room.
  __device__ void soften_backward(const T* grad_output, const A* log_sum_exp,
                                  const A* products, A* logits,
                                  A* weights) const {
    for_each_cell(t.rows(), (G + 3) / 4, [&](int row, int quad) {
      const int other = b.other[row], at = row * t.pitch() + 4 * quad;
      Four<A> weight = {}, grad = {};
      if (other != kNoPixel) {
        const int64_t p = own == Own::kP ? pixel(row) : other;
        const int64_t q = own == Own::kP ? other : pixel(row);
        const Four<A> sum =
            dot(grad_output + (first + p) * M, here + q * F + 2 * R, 4 * quad);
        const int64_t of_p = (first + p) * G;
        const Four<A> top = groups(log_sum_exp + of_p, 4 * quad);
        const Four<A> mean = groups(products + of_p, 4 * quad);
        const Four<A> logit = four(logits + at);
#pragma unroll
        for (int e = 0; e < (G < 4 ? G : 4); ++e) {
          weight.v[e] = b.times[row] * exponential(logit.v[e] - top.v[e]);
          grad.v[e] = weight.v[e] * (sum.v[e] - mean.v[e]);
        }
      }
      put(logits + at, grad);
      if (weights) put(weights + at, weight);
    });
  }

  // Of four groups: the products of two pixels' channels.
  __device__ static Four<A> dot(const T* x, const T* y, int g) {
    constexpr int kPeriod = G < 4 ? 4 : G;
    Four<A> sum = {};
#pragma unroll 4
    for (int c = 0; c < M; c += kPeriod) {
      const Four<A> left = four(x + c + g), right = four(y + c + g);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.v[e] += left.v[e] * right.v[e];
    }
    if constexpr (G < 4) {
      sum.v[0] += sum.v[2];
      sum.v[1] += sum.v[3];
    }
    return sum;
  }

  // ---- Back through the relation; see gradient.h.

  __device__ void add_relation_gradients(const A* grad_a) const {
    for_each_cell(t.pixels(), R / 4, [&](int p, int quad) {
      if (first + p >= t.count) return;
      const int i = 4 * quad;
      const Four<A> x = own_four(p, i);
      Four<A> sum = four(b.relation[0] + p * R + i), scale_sum = {};
      if (own == Own::kP) scale_sum = four(b.relation[1] + p * R + i);
#pragma unroll
      for (int step = 0; step < t.chunk; ++step) {
        const int row = step << t.pixel_bits | p, other = b.other[row];
        if (other == kNoPixel) continue;
        const Four<A> grad = four(grad_a + row * t.pitch() + i);
        Four<A> y = {};
        if (own == Own::kP) y = other_four(other, i);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sum.v[e] += grad.v[e];
          if (own == Own::kP) scale_sum.v[e] += grad.v[e] * (x.v[e] - y.v[e]);
        }
      }
      put(b.relation[0] + p * R + i, sum);
      if (own == Own::kP) put(b.relation[1] + p * R + i, scale_sum);
    });
  }

  const T* here = nullptr;  // features of the tile's first pixel
};

template <typename T, Own own, typename Needs, typename Tile>
using BlockOf =
    std::conditional_t<Tile::kFixed, FixedBlock<T, own, Needs, Tile>,
                       Block<T, own, Needs, Tile>>;

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_FIXED_BLOCK_H_
