// The transposition of a matrix, in squares of vectors.
//
// Idea. A square of L x L elements is L vectors in registers. Step s (L / 2,
// ... 2, 1) exchanges, for every pair of rows s apart, the lanes of the one
// that have bit s with those of the other that have not: log2(L) steps of L
// two-source permutations each, and row i holds column i.
//
// Where a vector of accumulators is longer than four, squares of 4 x 4 lie side
// by side in four vectors: a quarter of the steps for an element, and no lane
// idle where there are four columns.
#ifndef CUDA_KERNELS_CPU_TRANSPOSITION_H_
#define CUDA_KERNELS_CPU_TRANSPOSITION_H_

#include <algorithm>

#include "cuda_kernels/cpu/vectors.h"

namespace san::cpu {
namespace {

// Exchanges bit kStep of the row and of the lane.
template <int kStep, typename V, int... j>
inline void exchange(V& low, V& high, std::integer_sequence<int, j...>) {
  constexpr int L = sizeof...(j);
  const V a = low, b = high;
  low = __builtin_shufflevector(a, b, (j & kStep ? L + j - kStep : j)...);
  high = __builtin_shufflevector(a, b, (j & kStep ? L + j : j + kStep)...);
}

// Lane j of vector i and lane i of vector j change places, among each of the
// squares that lie side by side in the vectors.
template <typename V, int kRows, int kStep = kRows / 2>
inline __attribute__((always_inline)) void transpose(V (&v)[kRows]) {
  constexpr int L = sizeof(V) / sizeof(v[0][0]);
  if constexpr (kStep > 0) {
    unrolled<kRows>([&](auto i) {
      if constexpr (!(i & kStep))
        exchange<kStep>(v[i], v[i + kStep],
                        std::make_integer_sequence<int, L>());
    });
    transpose<V, kRows, kStep / 2>(v);
  }
}

template <typename A, int... j>
inline Vector<A, sizeof...(j)> joined(Vector<A, sizeof...(j) / 2> low,
                                      Vector<A, sizeof...(j) / 2> high,
                                      std::integer_sequence<int, j...>) {
  return __builtin_shufflevector(low, high, j...);
}

// L lanes: four elements from each of L / 4 places, `step` apart.
template <int L, typename T>
inline auto load_fours(const T* from, int64_t step) {
  using A = Accumulator<T>;
  if constexpr (L == 4)
    return load<4>(from);
  else
    return joined<A>(load_fours<L / 2>(from, step),
                     load_fours<L / 2>(from + L / 8 * step, step),
                     std::make_integer_sequence<int, L>());
}

template <int kFirst, typename A, typename V, int... j>
inline Vector<A, 4> four(V v, std::integer_sequence<int, j...>) {
  return __builtin_shufflevector(v, v, (kFirst + j)...);
}

// The inverse.
template <int L, typename T>
inline void store_fours(T* to, int64_t step, Vector<Accumulator<T>, L> v) {
  unrolled<L / 4>([&](auto i) {
    store<4>(to + i * step, four<4 * i, Accumulator<T>>(
                                v, std::make_integer_sequence<int, 4>()));
  });
}

// to[c * to_stride + r] = from[r * from_stride + c], r < L, c < 4.
template <int L, typename From, typename To>
inline void four_columns(const From* from, int64_t from_stride, To* to,
                         int64_t to_stride) {
  Vector<Accumulator<From>, L> v[4];
  unrolled<4>([&](auto i) {
    v[i] = load_fours<L>(from + i * from_stride, 4 * from_stride);
  });
  transpose(v);
  unrolled<4>([&](auto i) { store<L>(to + i * to_stride, v[i]); });
}

// to[c * to_stride + r] = from[r * from_stride + c], r < 4, c < L.
template <int L, typename From, typename To>
inline void four_rows(const From* from, int64_t from_stride, To* to,
                      int64_t to_stride) {
  Vector<Accumulator<From>, L> v[4];
  unrolled<4>([&](auto i) { v[i] = load<L>(from + i * from_stride); });
  transpose(v);
  unrolled<4>(
      [&](auto i) { store_fours<L>(to + i * to_stride, 4 * to_stride, v[i]); });
}

// to[c * to_stride + r] = from[r * from_stride + c], r < rows, c < columns, if
// one of these is L and the other a multiple of four; else returns false.
template <int L, typename From, typename To>
bool by_fours(const From* from, int64_t from_stride, To* to, int64_t to_stride,
              int rows, int columns) {
  if constexpr (L > 4) {
    if (rows == L && columns % 4 == 0) {
      for (int c = 0; c < columns; c += 4)
        four_columns<L>(from + c, from_stride, to + c * to_stride, to_stride);
      return true;
    }
    if (columns == L && rows % 4 == 0) {
      for (int r = 0; r < rows; r += 4)
        four_rows<L>(from + r * from_stride, from_stride, to + r, to_stride);
      return true;
    }
  }
  return false;
}

// to[c][r] = from[r][c] for the first rows and columns of a square: `across`
// sees the columns, `down` the rows. Not inlined, or the loop around it would
// carry the addresses of all rows along.
template <int L, typename Across, typename Down, typename From, typename To>
__attribute__((noinline)) void transpose_square(Across across, Down down,
                                                const From* from,
                                                int64_t from_stride, To* to,
                                                int64_t to_stride, int rows,
                                                int columns) {
  typename Across::V square[L];
  unrolled<L>([&](auto r) {
    square[r] = typename Across::V{};
    if (r < rows) square[r] = across.load(from + r * from_stride);
  });
  transpose(square);
  unrolled<L>([&](auto c) {
    if (c < columns) down.store(to + c * to_stride, square[c]);
  });
}

// to[c * to_stride + r] = from[r * from_stride + c], r < rows, c < columns.
// `kByRows`: from one row of squares to the next, so that the rows are read in
// order, else so that those of the result are written in order.
template <bool kByRows, typename From, typename To>
void transpose(const From* from, int64_t from_stride, To* to, int64_t to_stride,
               int64_t rows, int64_t columns) {
  using A = Accumulator<From>;
  constexpr int L = kWide<A>;
  using All = AllLanes<A, L>;
  using First = FirstLanes<A, L>;
  const int64_t across = (columns - 1) / L + 1, down = (rows - 1) / L + 1;
  for (int64_t square = 0; square < across * down; ++square) {
    const int64_t r = (kByRows ? square / across : square % down) * L;
    const int64_t c = (kByRows ? square % across : square / down) * L;
    const int height = static_cast<int>(std::min<int64_t>(L, rows - r));
    const int width = static_cast<int>(std::min<int64_t>(L, columns - c));
    const From* source = from + r * from_stride + c;
    To* target = to + c * to_stride + r;
    if (by_fours<L>(source, from_stride, target, to_stride, height, width))
      continue;
    if (width == L && height == L)
      transpose_square<L>(All(), All(), source, from_stride, target, to_stride,
                          L, L);
    else
      transpose_square<L>(First(width), First(height), source, from_stride,
                          target, to_stride, height, width);
  }
}

}  // namespace
}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_TRANSPOSITION_H_
