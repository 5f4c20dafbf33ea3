// The gradient of the weight of a 1x1 convolution. In an unnamed namespace: one
// copy per instruction set.
//
// Idea. A tile of the gradient, some outputs by two vectors of input channels,
// stays in registers over the pixels of a step; each pixel loads two vectors of
// activations once and multiplies them by one element of the gradient of y for
// each output. Activations are made anew, the norm and the ReLU included, so
// that they need not be in memory; both factors are copied to buffers of
// constant pitch, that of y for some outputs at a time. In bfloat16 a row of
// them holds pairs of two pixels.
#ifndef CUDA_KERNELS_POINTWISE_GRADIENT_H_
#define CUDA_KERNELS_POINTWISE_GRADIENT_H_

#include <algorithm>

#include "cuda_kernels/pointwise/tile.h"

namespace san::pointwise {
namespace {

// Not multiples of a page, so that pixels do not fall on the same few sets.
constexpr int64_t kColumnPitch = kGradientColumns + 16;
constexpr int64_t kRowPitch = kGradientRows + 16;

template <typename T>
struct GradientTile {
  const T *grads, *activations;
  int64_t steps;
  bool add;
  Accumulator<T>* sums;
  int64_t sums_row;
  int columns;
};

template <int kRows, bool kWhole, typename T>
void compute(const GradientTile<T>& t, Ahead<T>& x, Ahead<T>& grad_y) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v)
      __builtin_prefetch(t.sums + i * t.sums_row + v * L, 1);
  cpu::Vector<A, L> sum[kRows][kVectors] = {};
  const T *g = t.grads, *a = t.activations;
  for (int64_t p = 0; p < t.steps; ++p) {
    x.ask(p);
    grad_y.ask(p);
    cpu::Vector<A, L> factor[kVectors];
    for (int v = 0; v < kVectors; ++v)
      factor[v] = cpu::bits_at<L, A>(a + v * L * kStep<T>);
    cpu::unrolled<kRows>([&](auto i) {
      cpu::unrolled<kVectors>([&](auto v) {
        sum[i][v] = cpu::multiply_add(g + i * kStep<T>, factor[v], sum[i][v]);
      });
    });
    g += kRowPitch * kStep<T>;
    a += kColumnPitch * kStep<T>;
  }
  cpu::unrolled<kVectors>([&](auto v) {
    const auto lanes = lanes_of<kWhole, T>(t.columns, v);
    cpu::unrolled<kRows>([&](auto i) {
      A* to = t.sums + i * t.sums_row + v * L;
      auto result = sum[i][v];
      if (t.add) result += lanes.load(to);
      lanes.store(to, result);
    });
  });
}

// Of rows that are read whole.
template <typename T>
Ahead<T> ahead_of(const T* from, int64_t row, int64_t begin, int64_t end,
                  int64_t tiles) {
  return {
      from + begin * row, from + end * row,
      row <= kGradientColumns ? (end - begin) * row / kLine<T> / tiles + 1 : 0};
}

// f(x) of some channels of pixels, `x_row` apart, beside each other.
template <typename A>
void take_activations(const Activation<A>& f, const A* x, int64_t x_row,
                      int64_t pixels, int64_t channel, int64_t depth, A* to) {
  activate(f, x, x_row, pixels, channel, depth, kColumnPitch, to);
}

// Copies some outputs' gradients beside each other, and sums them.
template <typename A>
void take_grads(const A* grad_y, int64_t row, int64_t pixels, int64_t rows,
                A* to, A* sums) {
  for (int64_t p = 0; p < pixels; ++p, grad_y += row, to += kRowPitch)
    cpu::for_each_vector<A>(rows, [&](auto lanes, int64_t i) {
      const auto g = lanes.load(grad_y + i);
      lanes.store(to + i, g);
      if (sums) lanes.store(sums + i, p ? lanes.load(sums + i) + g : g);
    });
}

#ifdef __AVX512F__
// Pairs of lanes, in the bfloat16 that lie there.
template <typename V>
inline void store_pairs(V v, V other, bfloat16* to) {
  if constexpr (sizeof(V) == 64) {
    const auto pairs = cpu::paired(v, other);
    memcpy(to, &pairs, sizeof pairs);
  } else {
    cpu::Vector<float, 16> first = {}, second = {};
    memcpy(&first, &v, sizeof v);
    memcpy(&second, &other, sizeof v);
    const auto pairs = cpu::paired(first, second);
    memcpy(to, &pairs, sizeof pairs / 2);
  }
}

inline void take_activations(const Activation<bfloat16>& f, const bfloat16* x,
                             int64_t x_row, int64_t pixels, int64_t channel,
                             int64_t depth, bfloat16* to) {
  x += channel;
  for (int64_t p = 0; p < pixels; p += 2, to += 2 * kColumnPitch)
    cpu::for_each_vector<float>(depth, [&](auto lanes, int64_t c) {
      const auto active = f.at(lanes, x + p * x_row + c, channel + c);
      store_pairs(active,
                  p + 1 < pixels
                      ? f.at(lanes, x + (p + 1) * x_row + c, channel + c)
                      : active - active,
                  to + 2 * c);
    });
}

// The same of bfloat16: rows of pairs of two pixels, the last one's partner
// being zero.
inline void take_grads(const bfloat16* grad_y, int64_t row, int64_t pixels,
                       int64_t rows, bfloat16* to, float* sums) {
  for (int64_t p = 0; p < pixels; p += 2, to += 2 * kRowPitch)
    cpu::for_each_vector<float>(rows, [&](auto lanes, int64_t i) {
      const bfloat16* from = grad_y + p * row + i;
      const auto g = lanes.load(from);
      const auto other = p + 1 < pixels ? lanes.load(from + row) : g - g;
      store_pairs(g, other, to + 2 * i);
      if (!sums) return;
      lanes.store(sums + i, p ? lanes.load(sums + i) + (g + other) : g + other);
    });
}
#endif

template <typename T>
void gradient(const PointwiseGradient& task, int64_t begin, int64_t end,
              int64_t first, int64_t last, bool add, Accumulator<T>* scratch,
              Accumulator<T>* weight_sums, Accumulator<T>* bias_sums) {
  using A = Accumulator<T>;
  const int64_t C = task.inputs, O = task.outputs, pixels = end - begin;
  T* activations = reinterpret_cast<T*>(scratch);
  T* grads = reinterpret_cast<T*>(scratch + kGradientSteps * kColumnPitch);
  const Activation<T> f = {read<A>(task.scale), read<A>(task.shift),
                           task.scale != nullptr};
  const int64_t tiles =
      (O + kTileRows - 1) / kTileRows * ((last - first - 1) / kWidth<T> + 1);
  const int64_t until = std::min(end + kGradientPixels<T>, task.pixels);
  Ahead<T> next_x = ahead_of(read<T>(task.x), C, end, until, tiles);
  Ahead<T> next_grad_y = ahead_of(read<T>(task.grad_y), O, end, until, tiles);
  take_activations(f, read<T>(task.x) + begin * C, C, pixels, first,
                   last - first, activations);
  for (int64_t row = 0; row < O; row += kGradientRows) {
    const int64_t rows = std::min(kGradientRows, O - row);
    A sums[kGradientRows];
    take_grads(read<T>(task.grad_y) + begin * O + row, O, pixels, rows, grads,
               first == 0 ? sums : nullptr);
    for (int64_t i = 0; first == 0 && i < rows; ++i)
      bias_sums[row + i] = add ? bias_sums[row + i] + sums[i] : sums[i];
    for (int64_t c = first; c < last; c += kWidth<T>)
      for_each_tile(rows, [&](int64_t i, int64_t height) {
        const GradientTile<T> tile = {
            grads + i * kStep<T>,
            activations + (c - first) * kStep<T>,
            (pixels + kStep<T> - 1) / kStep<T>,
            add,
            weight_sums + (row + i) * C + c,
            C,
            static_cast<int>(std::min<int64_t>(kWidth<T>, last - c))};
        with_height(height, [&](auto rows_of_tile) {
          if (tile.columns == kWidth<T>)
            compute<rows_of_tile, true>(tile, next_x, next_grad_y);
          else
            compute<rows_of_tile, false>(tile, next_x, next_grad_y);
        });
      });
  }
}

}  // namespace
}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_GRADIENT_H_
