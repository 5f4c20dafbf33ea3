// Compiled once per instruction set. Only the table at the end is visible
// outside.
//
// Idea. A tile of y, some pixels by two vectors of channels, stays in registers
// over the depth; each step loads the vectors of the panel once and multiplies
// them by one activation of each pixel. Activations are made once per block,
// the ReLU and the norm included, in a buffer of constant pitch. The bias and
// the addend are added at the end, so that its lines can be on their way from
// memory while the tile is computed; so are the pixels of the next block. In
// bfloat16 a step takes two channels, which the processor multiplies and adds
// to a float by one instruction.
#include "cuda_kernels/pointwise/rows.h"

#include <algorithm>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/pointwise/gradient.h"
#include "cuda_kernels/pointwise/panels.h"
#include "cuda_kernels/pointwise/tile.h"

namespace san::pointwise {
namespace {

template <typename T>
constexpr int kStepWidth = kStep<T> * kPanel;
template <typename T>
struct Tile {
  const T *activations, *panel;
  int64_t steps;
  const Accumulator<T>* bias;  // null, or what is added to every pixel
  const T* addend;             // null, or what is added, in the rows of y
  T* y;
  int64_t y_row;
  int columns;  // of y, kWidth<T> or less
};

template <int kRows, bool kWhole, typename T>
void compute(const Tile<T>& t, Ahead<T>& ahead) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(t.y + i * t.y_row + v * L, 1);
      if (t.addend) __builtin_prefetch(t.addend + i * t.y_row + v * L);
    }
  cpu::Vector<A, L> sum[kRows][kVectors] = {};
  const T *a = t.activations, *b = t.panel;
  for (int64_t d = 0; d < t.steps; ++d, a += kStep<T>, b += kStepWidth<T>) {
    ahead.ask(d);
    cpu::Vector<A, L> factor[kVectors];
    for (int v = 0; v < kVectors; ++v)
      factor[v] = cpu::bits_at<L, A>(b + v * L * kStep<T>);
    cpu::unrolled<kRows>([&](auto i) {
      cpu::unrolled<kVectors>([&](auto v) {
        sum[i][v] = cpu::multiply_add(a + i * kPitch<T>, factor[v], sum[i][v]);
      });
    });
  }
  cpu::unrolled<kVectors>([&](auto v) {
    const auto lanes = lanes_of<kWhole, T>(t.columns, v);
    cpu::unrolled<kRows>([&](auto i) {
      const int64_t at = i * t.y_row + v * L;
      auto result = sum[i][v];
      if (t.bias) result += lanes.load(t.bias + v * L);
      if (t.addend) result += lanes.load(t.addend + at);
      cpu::store_rounded(lanes, t.y + at, result);
    });
  });
}

template <typename T>
inline void compute(int64_t rows, const Tile<T>& tile, Ahead<T>& ahead) {
  with_height(rows, [&](auto height) {
    if (tile.columns == kWidth<T>)
      compute<height, true>(tile, ahead);
    else
      compute<height, false>(tile, ahead);
  });
}

template <typename T>
void forward(const Pointwise& task, int64_t begin, int64_t end, int64_t first,
             int64_t last, T* activations) {
  const int64_t C = task.inputs, O = task.outputs;
  const int64_t until = std::min(last * kPanel, O);
  const int64_t steps_of_panel = (C + kStep<T> - 1) / kStep<T>;
  const T* x = read<T>(task.x);
  T* y = static_cast<T*>(task.y);
  const Accumulator<T>* bias = read<Accumulator<T>>(task.bias);
  const Activation<T> f = {read<Accumulator<T>>(task.scale),
                           read<Accumulator<T>>(task.shift), task.relu};
  Ahead<T> ahead = {x + end * C, x + std::min(end + kBlock, task.pixels) * C,
                    0};
  // Of deep images the processor itself foresees what comes.
  if (C <= kDepth<T>) {
    const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
    ahead.lines = kBlock * C / kLine<T> / (tiles * (last - first)) + 1;
  }
  for (int64_t channel = 0; channel == 0 || channel < C; channel += kDepth<T>) {
    const int64_t depth = std::min(C - channel, kDepth<T>);
    activate(f, x + begin * C, C, end - begin, channel, depth, kPitch<T>,
             activations);
    for (int64_t o = first * kPanel; o < until; o += kWidth<T>) {
      Tile<T> tile;
      tile.panel =
          read<T>(task.panels) +
          (o / kPanel * steps_of_panel + channel / kStep<T>)*kStepWidth<T> +
          o % kPanel * kStep<T>;
      tile.steps = (depth + kStep<T> - 1) / kStep<T>;
      tile.bias = bias && channel == 0 ? bias + o : nullptr;
      const T* addend = channel ? y : read<T>(task.addend);
      tile.y_row = O;
      tile.columns = static_cast<int>(std::min<int64_t>(kWidth<T>, until - o));
      for_each_tile(end - begin, [&](int64_t row, int64_t rows) {
        tile.activations = activations + row * kPitch<T>;
        const int64_t at = (begin + row) * O + o;
        tile.y = y + at;
        tile.addend = addend ? addend + at : nullptr;
        compute(rows, tile, ahead);
      });
    }
  }
}

}  // namespace

template <typename T>
PointwiseRows<T> SAN_TABLE(pointwise_rows)() {
#ifndef __AVX512F__
  if constexpr (kStep<T> == 2)
    return {};
  else
#endif
    return {forward<T>, pack<T>, gradient<T>};
}

template PointwiseRows<float> SAN_TABLE(pointwise_rows)();
template PointwiseRows<double> SAN_TABLE(pointwise_rows)();
template PointwiseRows<bfloat16> SAN_TABLE(pointwise_rows)();

}  // namespace san::pointwise
