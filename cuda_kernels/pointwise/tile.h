// What the tiles of the 1x1 convolution and of its gradient share: their sizes,
// their activations, their loads and stores. In an unnamed namespace: one copy
// per instruction set.
#ifndef CUDA_KERNELS_POINTWISE_TILE_H_
#define CUDA_KERNELS_POINTWISE_TILE_H_

#include <algorithm>
#include <utility>

#include "cuda_kernels/cpu/pairs.h"
#include "cuda_kernels/pointwise/rows.h"
#include "cuda_kernels/relu.h"

namespace san::pointwise {
namespace {

// Channels that a step of the product takes, side by side in a panel.
using cpu::kStep;

template <typename T>
constexpr int kLanes = cpu::kWide<Accumulator<T>>;
constexpr int kVectors = 2;
template <typename T>
constexpr int kWidth = kVectors * kLanes<T>;
#ifdef __AVX512F__
constexpr int kTileRows = 12;  // 24 of 32 registers
#else
constexpr int kTileRows = 6;  // 12 of 16 registers
#endif

template <typename T>
constexpr int64_t kLine = 64 / sizeof(T);

// The lines of memory that the next block or step reads, one after the other.
template <typename T>
struct Ahead {
  const T *next, *end;
  int64_t lines;  // to ask for beside each tile

  void ask(int64_t step) {
    if (step < lines && next < end) {
      __builtin_prefetch(next, 0, 2);
      next += kLine<T>;
    }
  }
};

// Lanes of vector v of a tile's columns.
template <bool kWhole, typename T>
auto lanes_of(int columns, int v) {
  constexpr int L = kLanes<T>;
  if constexpr (kWhole)
    return cpu::AllLanes<Accumulator<T>, L>();
  else
    return cpu::FirstLanes<Accumulator<T>, L>(
        std::clamp(columns - v * L, 0, L));
}

// Calls f(first row, rows) for tiles of nearly equal height.
template <typename F>
inline void for_each_tile(int64_t rows, F f) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t height = rows / tiles, taller = rows % tiles;
  for (int64_t i = 0, row = 0; i < tiles; ++i) {
    const int64_t own = height + (i < taller);
    f(row, own);
    row += own;
  }
}

// Calls f(Constant<rows>()) for the rows of a tile.
template <typename F, int... kRows>
inline void with_height(int64_t rows, F f,
                        std::integer_sequence<int, kRows...>) {
  using Call = void (*)(F&);
  static constexpr Call kCalls[] = {
      [](F& f) { f(cpu::Constant<kRows + 1>()); }...};
  kCalls[rows - 1](f);
}
template <typename F>
inline void with_height(int64_t rows, F f) {
  with_height(rows, f, std::make_integer_sequence<int, kTileRows>());
}

template <typename T>
const T* read(const void* data) {
  return static_cast<const T*>(data);
}

// f(x) = max(0, scale * x + shift), with or without the scale and the ReLU.
template <typename T>
struct Activation {
  const Accumulator<T>*scale, *shift;
  bool relu;

  // Of the lanes at x, which is channel c.
  template <typename Lanes>
  typename Lanes::V at(Lanes lanes, const T* x, int64_t c) const {
    auto v = lanes.load(x);
    if (scale) v = lanes.load(scale + c) * v + lanes.load(shift + c);
    return relu ? san::relu(v) : v;
  }
};

// f(x) of `depth` channels from `channel` on, of pixels `x_row` apart.
template <typename T>
void activate(const Activation<T>& f, const T* x, int64_t x_row, int64_t pixels,
              int64_t channel, int64_t depth, int64_t pitch, T* to) {
  x += channel;
  for (int64_t p = 0; p < pixels; ++p, x += x_row, to += pitch) {
    // The second of a pair, which a weight of zero would not undo if it were
    // no number.
    if (depth % kStep<T> != 0) to[depth] = T();
    cpu::for_each_vector<Accumulator<T>>(depth, [&](auto lanes, int64_t c) {
      cpu::store_rounded(lanes, to + c, f.at(lanes, x + c, channel + c));
    });
  }
}

}  // namespace
}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_TILE_H_
