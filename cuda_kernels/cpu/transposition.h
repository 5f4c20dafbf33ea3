// The transposition of a matrix, in squares of vectors.
//
// Idea. A square of L x L elements is L vectors in registers. Step s (L / 2,
// ... 2, 1) exchanges, for every pair of rows s apart, the lanes of the one
// that have bit s with those of the other that have not: log2(L) steps of L
// two-source permutations each, and row i holds column i.
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

// Lane j of vector i and lane i of vector j change places.
template <typename V, int L, int kStep = L / 2>
inline __attribute__((always_inline)) void transpose(V (&v)[L]) {
  if constexpr (kStep > 0) {
    unrolled<L>([&](auto i) {
      if constexpr (!(i & kStep))
        exchange<kStep>(v[i], v[i + kStep],
                        std::make_integer_sequence<int, L>());
    });
    transpose<V, L, kStep / 2>(v);
  }
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
