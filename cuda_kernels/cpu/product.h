// Products of small matrices that live in the first caches, such as all taps of
// one pixel times a mapping, or the transpose, which is a mapping's gradient.
//
// Idea. A tile of C, some rows by one or two vectors of columns, stays in
// registers over the whole depth; each step loads the vectors of B once and
// multiplies them by one element of A per row, of bfloat16 by a pair of them. B
// comes in panels as wide as a tile. Everything is in an unnamed namespace: one
// copy per instruction set.
#ifndef CUDA_KERNELS_CPU_PRODUCT_H_
#define CUDA_KERNELS_CPU_PRODUCT_H_

#include <cstdint>
#include <utility>

#include "cuda_kernels/cpu/pairs.h"
#include "cuda_kernels/cpu/vectors.h"

namespace san::cpu {
namespace {

#ifdef __AVX512F__
constexpr int kTileRows = 12;  // 24 of 32 registers
#else
constexpr int kTileRows = 6;  // 12 of 16 registers
#endif

// Elements between two rows of a buffer with a row per tap. A constant, so that
// a tile addresses its rows of A with one register; an odd number of cache
// lines in float32, so that short rows do not fall on the same few sets.
constexpr int64_t kPitch = 144;
constexpr int64_t kPitchSlack = 16;

inline int64_t round_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

inline int64_t pitch_of(int64_t columns) {
  return columns + kPitchSlack <= kPitch
             ? kPitch
             : round_up(columns, kPitchSlack) + kPitchSlack;
}

// The columns of a tile: kVectors vectors of L lanes.
template <int L, int kVectors>
struct Panel {
  static constexpr int kLanes = L, kCount = kVectors, kWidth = L * kVectors;
};

// Calls f(Panel<...>()) with the panels that suit a number of columns.
template <typename A, typename F>
inline void with_panel(int64_t columns, F f) {
  constexpr int L = kWide<A>;
  if (columns > L) return f(Panel<L, 2>());
  if constexpr (L >= 16)
    if (columns <= L / 4) return f(Panel<L / 4, 1>());
  if constexpr (L >= 8)
    if (columns <= L / 2) return f(Panel<L / 2, 1>());
  f(Panel<L, 1>());
}

template <typename A>
inline int64_t panel_width(int64_t columns) {
  int64_t width = 0;
  with_panel<A>(columns, [&](auto panel) { width = panel.kWidth; });
  return width;
}

// Columns rounded up to whole panels.
template <typename A>
inline int64_t padded(int64_t columns) {
  return round_up(columns, panel_width<A>(columns));
}

// C = relu(init + A B), or without the relu; init may be C itself or null for
// zeros. Element (i, d) of A is a[i * a_row + d * a_depth]; element (d, j) of a
// panel of B b[panel * b_panel + d * b_row + j]. In bfloat16 element 2 d + 1
// lies behind each element 2 d, of A and of B, and there is one for every d.
template <typename T, typename C = Accumulator<T>>
struct Product {
  int64_t rows, columns, depth;
  const T* a;
  int64_t a_row, a_depth;
  const T* b;
  int64_t b_row, b_panel;
  const Accumulator<T>* init;
  int64_t init_row;
  C* c;
  int64_t c_row;
  bool relu = false;
  bool upper = false;  // only tiles that touch j >= i are wanted
};

template <typename A, int L>
inline Vector<A, L> relu(Vector<A, L> v) {
  return v < 0 ? Vector<A, L>{} : v;  // keeps NaN, and -inf is none
}

template <typename P, int kRows, int kARow, typename T, typename C>
void tile(const Product<T, C>& p, int64_t row, int64_t column) {
  using A = Accumulator<T>;
  constexpr int L = P::kLanes, V = P::kCount;
  constexpr AllLanes<A, L> lanes;
  const int64_t a_row = kARow ? kARow : p.a_row;
  const int64_t a_depth = (kARow == kPitch ? 1 : p.a_depth) * kStep<T>;
  const T* a = p.a + row * a_row;
  const T* b = p.b + column / P::kWidth * p.b_panel;
  const auto each = [](auto f) {
    unrolled<kRows>([&](auto i) { unrolled<V>([&](auto v) { f(i, v); }); });
  };
  Vector<A, L> sum[kRows][V] = {};
  if (p.init) {
    const A* init = p.init + row * p.init_row + column;
    each([&](auto i, auto v) {
      sum[i][v] = load<L>(init + i * p.init_row + v * L);
    });
  }
  for (int64_t d = 0; d < p.depth;
       d += kStep<T>, a += a_depth, b += p.b_row * kStep<T>) {
    Vector<A, L> factor[V];
    for (int v = 0; v < V; ++v) factor[v] = bits_at<L, A>(b + v * L * kStep<T>);
    each([&](auto i, auto v) {
      sum[i][v] = multiply_add(a + i * a_row, factor[v], sum[i][v]);
    });
  }
  C* c = p.c + row * p.c_row + column;
  each([&](auto i, auto v) {
    store_rounded(lanes, c + i * p.c_row + v * L,
                  p.relu ? relu<A, L>(sum[i][v]) : sum[i][v]);
  });
}

template <typename P, int kARow, typename T, typename C, int... kRows>
inline void tile_of(int64_t rows, const Product<T, C>& p, int64_t row,
                    int64_t column, std::integer_sequence<int, kRows...>) {
  using Tile = void (*)(const Product<T, C>&, int64_t, int64_t);
  static constexpr Tile kTiles[] = {tile<P, kRows + 1, kARow, T, C>...};
  kTiles[rows - 1](p, row, column);
}

// Rows are split into tiles of nearly equal height.
template <typename P, int kARow, typename T, typename C>
inline void multiply_panels(const Product<T, C>& p) {
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int64_t height = p.rows / tiles, taller = p.rows % tiles;
  for (int64_t column = 0; column < p.columns; column += P::kWidth)
    for (int64_t i = 0, row = 0; i < tiles; ++i) {
      const int64_t rows = height + (i < taller);
      if (!p.upper || column + P::kWidth > row)
        tile_of<P, kARow>(rows, p, row, column,
                          std::make_integer_sequence<int, kTileRows>());
      row += rows;
    }
}

template <typename T, typename C>
inline void multiply(const Product<T, C>& p) {
  with_panel<Accumulator<T>>(p.columns, [&](auto panel) {
    using P = decltype(panel);
    if (p.a_row == kStep<T>)
      multiply_panels<P, kStep<T>>(p);
    else if (p.a_row == kPitch && p.a_depth == 1)
      multiply_panels<P, kPitch>(p);
    else
      multiply_panels<P, 0>(p);
  });
}

// Packs B, whose element (d, j) is from[d * step + j * column_step], in panels;
// what fills it up is zero.
template <typename T, typename A>
inline void pack(const A* from, int64_t depth, int64_t columns, int64_t step,
                 int64_t column_step, T* to) {
  const int64_t width = panel_width<A>(columns);
  for (int64_t first = 0; first < columns; first += width)
    for (int64_t d = 0; d < depth; d += kStep<T>)
      for (int64_t j = first; j < first + width; ++j)
        for (int64_t e = d; e < d + kStep<T>; ++e)
          *to++ = rounded<T>(j < columns && e < depth
                                 ? from[e * step + j * column_step]
                                 : A(0));
}

// Rows of `columns` elements, and what makes the last vector whole, as pairs of
// rows: element (i, j) goes to to[i / 2 * 2 * pitch + 2 * j + i % 2]. The
// partner of a last row without one is zero.
template <typename T, int... i>
inline void pair_rows(const T* from, int64_t rows, int64_t columns,
                      int64_t pitch, T* to, std::integer_sequence<int, i...>) {
  constexpr int L = sizeof...(i) / 2;
  for (int64_t row = 0; row < rows; row += 2, from += 2 * pitch)
    for (int64_t j = 0; j < columns; j += L) {
      const auto first = bits_at<L, uint16_t>(from + j);
      auto second = first ^ first;
      if (row + 1 < rows) second = bits_at<L, uint16_t>(from + pitch + j);
      const auto pairs =
          __builtin_shufflevector(first, second, (i / 2 + i % 2 * L)...);
      memcpy(to + row * pitch + 2 * j, &pairs, sizeof pairs);
    }
}
template <typename T>
inline void pair_rows(const T* from, int64_t rows, int64_t columns,
                      int64_t pitch, T* to) {
  pair_rows(from, rows, columns, pitch, to,
            std::make_integer_sequence<int, 32>());
}

}  // namespace
}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_PRODUCT_H_
