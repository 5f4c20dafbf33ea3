// The gradient of the weight of a 1x1 convolution. In an unnamed namespace: one
// copy per instruction set.
//
// Idea. A tile of the gradient, some outputs by two vectors of input channels,
// stays in registers over the pixels of a step; each pixel loads two vectors of
// activations once and multiplies them by one element of the gradient of y for
// each output. Activations are made anew, the norm and the ReLU included, so
// that they need not be in memory; both factors are copied to buffers of
// constant pitch, that of y for some outputs at a time.
#ifndef CUDA_KERNELS_POINTWISE_GRADIENT_H_
#define CUDA_KERNELS_POINTWISE_GRADIENT_H_

#include <algorithm>

#include "cuda_kernels/pointwise/tile.h"

namespace san::pointwise {
namespace {

// Not multiples of a page, so that pixels do not fall on the same few sets.
constexpr int64_t kColumnPitch = kGradientColumns + 16;
constexpr int64_t kRowPitch = kGradientRows + 16;

template <typename A>
struct GradientTile {
  const A *grads, *activations;
  int64_t pixels;
  bool add;
  A* sums;
  int64_t sums_row;
  int columns;
};

template <int kRows, bool kWhole, typename A>
void compute(const GradientTile<A>& t, Ahead<A>& x, Ahead<A>& grad_y) {
  constexpr int L = kLanes<A>;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v)
      __builtin_prefetch(t.sums + i * t.sums_row + v * L, 1);
  cpu::Vector<A, L> sum[kRows][kVectors] = {};
  const A *g = t.grads, *a = t.activations;
  for (int64_t p = 0; p < t.pixels; ++p, g += kRowPitch, a += kColumnPitch) {
    x.ask(p);
    grad_y.ask(p);
    cpu::Vector<A, L> factor[kVectors];
    for (int v = 0; v < kVectors; ++v) factor[v] = cpu::load<L>(a + v * L);
    cpu::unrolled<kRows>([&](auto i) {
      cpu::unrolled<kVectors>([&](auto v) { sum[i][v] += g[i] * factor[v]; });
    });
  }
  cpu::unrolled<kVectors>([&](auto v) {
    const auto lanes = lanes_of<kWhole, A>(t.columns, v);
    cpu::unrolled<kRows>([&](auto i) {
      A* to = t.sums + i * t.sums_row + v * L;
      auto result = sum[i][v];
      if (t.add) result += lanes.load(to);
      lanes.store(to, result);
    });
  });
}

// Of rows that are read whole.
template <typename A>
Ahead<A> ahead_of(const A* from, int64_t row, int64_t begin, int64_t end,
                  int64_t tiles) {
  return {
      from + begin * row, from + end * row,
      row <= kGradientColumns ? (end - begin) * row / kLine<A> / tiles + 1 : 0};
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

template <typename A>
void gradient(const PointwiseGradient& task, int64_t begin, int64_t end,
              int64_t first, int64_t last, bool add, A* scratch, A* weight_sums,
              A* bias_sums) {
  const int64_t C = task.inputs, O = task.outputs, pixels = end - begin;
  A* activations = scratch;
  A* grads = activations + kGradientPixels * kColumnPitch;
  const Activation<A> f = {read<A>(task.scale), read<A>(task.shift),
                           task.scale != nullptr};
  const int64_t tiles =
      (O + kTileRows - 1) / kTileRows * ((last - first - 1) / kWidth<A> + 1);
  const int64_t until = std::min(end + kGradientPixels, task.pixels);
  Ahead<A> next_x = ahead_of(read<A>(task.x), C, end, until, tiles);
  Ahead<A> next_grad_y = ahead_of(read<A>(task.grad_y), O, end, until, tiles);
  activate(f, read<A>(task.x) + begin * C, C, pixels, first, last - first,
           kColumnPitch, activations);
  for (int64_t row = 0; row < O; row += kGradientRows) {
    const int64_t rows = std::min(kGradientRows, O - row);
    A sums[kGradientRows];
    take_grads(read<A>(task.grad_y) + begin * O + row, O, pixels, rows, grads,
               first == 0 ? sums : nullptr);
    for (int64_t i = 0; first == 0 && i < rows; ++i)
      bias_sums[row + i] = add ? bias_sums[row + i] + sums[i] : sums[i];
    for (int64_t c = first; c < last; c += kWidth<A>)
      for_each_tile(rows, [&](int64_t i, int64_t height) {
        const GradientTile<A> tile = {
            grads + i,
            activations + c - first,
            pixels,
            add,
            weight_sums + (row + i) * C + c,
            C,
            static_cast<int>(std::min<int64_t>(kWidth<A>, last - c))};
        with_height(height, [&](auto rows_of_tile) {
          if (tile.columns == kWidth<A>)
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
