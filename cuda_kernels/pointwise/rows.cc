// Compiled once per instruction set. Only the table at the end is visible
// outside.
//
// Idea. A tile of y, some pixels by two vectors of channels, stays in registers
// over the depth; each step loads the vectors of the panel once and multiplies
// them by one activation of each pixel. Activations are made once per block,
// the ReLU and the norm included, in a buffer of constant pitch. What y held,
// or the bias, is added at the end, so that its lines can be on their way from
// memory while the tile is computed; so are the pixels of the next block.
#include "cuda_kernels/pointwise/rows.h"

#include <algorithm>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/vectors.h"
#include "cuda_kernels/relu.h"

namespace san::pointwise {
namespace {

template <typename T>
constexpr int kLanes = cpu::kWide<T>;
constexpr int kVectors = 2;
template <typename T>
constexpr int kWidth = kVectors * kLanes<T>;
template <typename T>
constexpr int64_t kLine = 64 / sizeof(T);
#ifdef __AVX512F__
constexpr int kTileRows = 12;  // 24 of 32 registers
#else
constexpr int kTileRows = 6;  // 12 of 16 registers
#endif

// The lines of memory that the next block reads, one after the other.
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

template <typename T>
struct Tile {
  const T *activations, *panel;
  int64_t depth;
  const T* added;     // null, or what is added to y's first pixel and to the
  int64_t added_row;  // next one so many elements on
  T* y;
  int64_t y_row;
  int columns;  // of y, kWidth<T> or less
};

// Lanes of vector v of a tile's columns.
template <bool kWhole, typename T>
auto lanes_of(const Tile<T>& t, int v) {
  constexpr int L = kLanes<T>;
  if constexpr (kWhole)
    return cpu::AllLanes<T, L>();
  else
    return cpu::FirstLanes<T, L>(std::clamp(t.columns - v * L, 0, L));
}

template <int kRows, bool kWhole, typename T>
void compute(const Tile<T>& t, Ahead<T>& ahead) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v)
      __builtin_prefetch(t.y + i * t.y_row + v * L, 1);
  cpu::Vector<T, L> sum[kRows][kVectors] = {};
  const T *a = t.activations, *b = t.panel;
  for (int64_t d = 0; d < t.depth; ++d, ++a, b += kPanel) {
    ahead.ask(d);
    cpu::Vector<T, L> factor[kVectors];
    for (int v = 0; v < kVectors; ++v) factor[v] = cpu::load<L>(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kVectors; ++v) sum[i][v] += a[i * kPitch] * factor[v];
  }
  for (int v = 0; v < kVectors; ++v) {
    const auto lanes = lanes_of<kWhole>(t, v);
    for (int i = 0; i < kRows; ++i) {
      auto result = sum[i][v];
      if (t.added) result += lanes.load(t.added + i * t.added_row + v * L);
      lanes.store(t.y + i * t.y_row + v * L, result);
    }
  }
}

template <bool kWhole, typename T, int... kRows>
inline void compute(int64_t rows, const Tile<T>& tile, Ahead<T>& ahead,
                    std::integer_sequence<int, kRows...>) {
  using Compute = void (*)(const Tile<T>&, Ahead<T>&);
  static constexpr Compute kTiles[] = {compute<kRows + 1, kWhole, T>...};
  kTiles[rows - 1](tile, ahead);
}

template <typename T>
inline void compute(int64_t rows, const Tile<T>& tile, Ahead<T>& ahead) {
  constexpr auto kHeights = std::make_integer_sequence<int, kTileRows>();
  if (tile.columns == kWidth<T>)
    compute<true>(rows, tile, ahead, kHeights);
  else
    compute<false>(rows, tile, ahead, kHeights);
}

template <typename T>
const T* read(const void* data) {
  return static_cast<const T*>(data);
}

// f(x) of `depth` channels from `channel` on, for some pixels.
template <typename T>
void activate(const Pointwise& task, int64_t begin, int64_t end,
              int64_t channel, int64_t depth, T* to) {
  const T *scale = read<T>(task.scale), *shift = read<T>(task.shift);
  for (int64_t p = begin; p < end; ++p, to += kPitch) {
    const T* x = read<T>(task.x) + p * task.inputs + channel;
    cpu::for_each_vector<T>(depth, [&](auto lanes, int64_t c) {
      auto v = lanes.load(x + c);
      if (scale)
        v = lanes.load(scale + channel + c) * v +
            lanes.load(shift + channel + c);
      lanes.store(to + c, task.relu ? relu(v) : v);
    });
  }
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

template <typename T>
void forward(const Pointwise& task, int64_t begin, int64_t end, int64_t first,
             int64_t last, T* activations) {
  const int64_t C = task.inputs, O = task.outputs;
  const int64_t until = std::min(last * kPanel, O);
  const T *x = read<T>(task.x), *bias = read<T>(task.bias);
  Ahead<T> ahead = {x + end * C, x + std::min(end + kBlock, task.pixels) * C,
                    0};
  // Of deep images the processor itself foresees what comes.
  if (C <= kDepth) {
    const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
    ahead.lines = kBlock * C / kLine<T> / (tiles * (last - first)) + 1;
  }
  for (int64_t channel = 0; channel == 0 || channel < C; channel += kDepth) {
    const int64_t depth = std::min(C - channel, kDepth);
    const bool adds = task.add || channel > 0;
    activate(task, begin, end, channel, depth, activations);
    for (int64_t o = first * kPanel; o < until; o += kWidth<T>) {
      Tile<T> tile;
      tile.panel = read<T>(task.panels) + (o / kPanel * C + channel) * kPanel +
                   o % kPanel;
      tile.depth = depth;
      tile.y_row = O;
      tile.columns = static_cast<int>(std::min<int64_t>(kWidth<T>, until - o));
      for_each_tile(end - begin, [&](int64_t row, int64_t rows) {
        tile.activations = activations + row * kPitch;
        tile.y = static_cast<T*>(task.y) + (begin + row) * O + o;
        tile.added = adds ? tile.y : bias ? bias + o : nullptr;
        tile.added_row = adds ? O : 0;
        compute(rows, tile, ahead);
      });
    }
  }
}

}  // namespace

template <typename T>
PointwiseRows<T> SAN_TABLE(pointwise_rows)() {
  return {forward<T>};
}

template PointwiseRows<float> SAN_TABLE(pointwise_rows)();
template PointwiseRows<double> SAN_TABLE(pointwise_rows)();

}  // namespace san::pointwise
