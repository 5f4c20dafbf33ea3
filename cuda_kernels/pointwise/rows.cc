// Compiled once per instruction set. Only the table at the end is visible
// outside.
//
// Idea. A tile of y, some pixels by two vectors of channels, stays in registers
// over the depth; each step loads the vectors of the panel once and multiplies
// them by one activation of each pixel. Activations are made once per block,
// the ReLU and the norm included, in a buffer of constant pitch. What y held,
// or the bias, is added at the end, so that its lines can be on their way from
// memory while the tile is computed; so are the pixels of the next block. In
// bfloat16 a step takes two channels, which the processor multiplies and adds
// to a float by one instruction.
#include "cuda_kernels/pointwise/rows.h"

#include <algorithm>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/vectors.h"
#include "cuda_kernels/relu.h"

namespace san::pointwise {
namespace {

template <typename T>
constexpr int kLanes = cpu::kWide<Accumulator<T>>;
// Channels that a step takes, and the elements of a panel that are theirs.
template <typename T>
constexpr int kStep = sizeof(T) == 2 ? 2 : 1;
template <typename T>
constexpr int kStepWidth = kStep<T> * kPanel;
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
  int64_t steps;
  const Accumulator<T>* bias;  // null, or what is added to every pixel
  bool adds;                   // to y
  T* y;
  int64_t y_row;
  int columns;  // of y, kWidth<T> or less
};

// Lanes of vector v of a tile's columns.
template <bool kWhole, typename T>
auto lanes_of(const Tile<T>& t, int v) {
  constexpr int L = kLanes<T>;
  if constexpr (kWhole)
    return cpu::AllLanes<Accumulator<T>, L>();
  else
    return cpu::FirstLanes<Accumulator<T>, L>(
        std::clamp(t.columns - v * L, 0, L));
}

// sum + activation * factor, or both products of a pair. The flags of AVX-512
// do not include the instruction: see takes_bfloat16().
template <typename T, typename V>
inline V multiply_add(const T* activation, V factor, V sum) {
  if constexpr (kStep<T> == 1) sum += *activation * factor;
#ifdef __AVX512F__
  else
    asm("vdpbf16ps %2%{1to16%}, %1, %0"
        : "+v"(sum)
        : "v"(factor), "m"(*reinterpret_cast<const T(*)[2]>(activation)));
#endif
  return sum;
}

// Of bfloat16 by an instruction of the same kind, where v is a wide vector.
template <typename Lanes, typename T, typename V>
inline void store(Lanes lanes, T* to, V v) {
#ifdef __AVX512F__
  if constexpr (kStep<T> == 2 && sizeof v == 64) {
    cpu::Vector<uint16_t, kLanes<T>> halves;
    asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(v));
    T elements[kLanes<T>];
    memcpy(elements, &halves, sizeof halves);
    return lanes.copy(elements, to);
  }
#endif
  lanes.store(to, v);
}

template <int kRows, bool kWhole, typename T>
void compute(const Tile<T>& t, Ahead<T>& ahead) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v)
      __builtin_prefetch(t.y + i * t.y_row + v * L, 1);
  cpu::Vector<A, L> sum[kRows][kVectors] = {};
  const T *a = t.activations, *b = t.panel;
  for (int64_t d = 0; d < t.steps; ++d, a += kStep<T>, b += kStepWidth<T>) {
    ahead.ask(d);
    cpu::Vector<A, L> factor[kVectors];
    for (int v = 0; v < kVectors; ++v)
      factor[v] = cpu::bits_at<L, A>(b + v * L * kStep<T>);
    cpu::unrolled<kRows>([&](auto i) {
      cpu::unrolled<kVectors>([&](auto v) {
        sum[i][v] = multiply_add(a + i * kPitch<T>, factor[v], sum[i][v]);
      });
    });
  }
  cpu::unrolled<kVectors>([&](auto v) {
    const auto lanes = lanes_of<kWhole>(t, v);
    cpu::unrolled<kRows>([&](auto i) {
      T* y = t.y + i * t.y_row + v * L;
      auto result = sum[i][v];
      if (t.bias) result += lanes.load(t.bias + v * L);
      if (t.adds) result += lanes.load(y);
      store(lanes, y, result);
    });
  });
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
  using A = Accumulator<T>;
  const A *scale = read<A>(task.scale), *shift = read<A>(task.shift);
  for (int64_t p = begin; p < end; ++p, to += kPitch<T>) {
    // The second of a pair, which a weight of zero would not undo if it were
    // no number.
    if (depth % kStep<T> != 0) to[depth] = T();
    const T* x = read<T>(task.x) + p * task.inputs + channel;
    cpu::for_each_vector<A>(depth, [&](auto lanes, int64_t c) {
      auto v = lanes.load(x + c);
      if (scale)
        v = lanes.load(scale + channel + c) * v +
            lanes.load(shift + channel + c);
      store(lanes, to + c, task.relu ? relu(v) : v);
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
  const int64_t steps_of_panel = (C + kStep<T> - 1) / kStep<T>;
  const T* x = read<T>(task.x);
  const Accumulator<T>* bias = read<Accumulator<T>>(task.bias);
  Ahead<T> ahead = {x + end * C, x + std::min(end + kBlock, task.pixels) * C,
                    0};
  // Of deep images the processor itself foresees what comes.
  if (C <= kDepth<T>) {
    const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
    ahead.lines = kBlock * C / kLine<T> / (tiles * (last - first)) + 1;
  }
  for (int64_t channel = 0; channel == 0 || channel < C; channel += kDepth<T>) {
    const int64_t depth = std::min(C - channel, kDepth<T>);
    activate(task, begin, end, channel, depth, activations);
    for (int64_t o = first * kPanel; o < until; o += kWidth<T>) {
      Tile<T> tile;
      tile.panel =
          read<T>(task.panels) +
          (o / kPanel * steps_of_panel + channel / kStep<T>)*kStepWidth<T> +
          o % kPanel * kStep<T>;
      tile.steps = (depth + kStep<T> - 1) / kStep<T>;
      tile.bias = bias && channel == 0 ? bias + o : nullptr;
      tile.adds = task.add || channel > 0;
      tile.y_row = O;
      tile.columns = static_cast<int>(std::min<int64_t>(kWidth<T>, until - o));
      for_each_tile(end - begin, [&](int64_t row, int64_t rows) {
        tile.activations = activations + row * kPitch<T>;
        tile.y = static_cast<T*>(task.y) + (begin + row) * O + o;
        compute(rows, tile, ahead);
      });
    }
  }
}

}  // namespace

template <typename T>
PointwiseRows<T> SAN_TABLE(pointwise_rows)() {
#ifndef __AVX512F__
  if constexpr (kStep<T> == 2) return {nullptr};
#endif
  return {forward<T>};
}

template PointwiseRows<float> SAN_TABLE(pointwise_rows)();
template PointwiseRows<double> SAN_TABLE(pointwise_rows)();
template PointwiseRows<bfloat16> SAN_TABLE(pointwise_rows)();

}  // namespace san::pointwise
