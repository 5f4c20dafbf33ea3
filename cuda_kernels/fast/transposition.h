// The transposition of a matrix, in squares of vectors.
//
// Idea. A square of L x L elements is L vectors in registers. Step s (L / 2,
// ... 2, 1) exchanges, for every pair of rows s apart, the lanes of the one
// that have bit s with those of the other that have not: log2(L) steps of L
// two-source permutations each, and row i holds column i.
#ifndef CUDA_KERNELS_FAST_TRANSPOSITION_H_
#define CUDA_KERNELS_FAST_TRANSPOSITION_H_

#include <algorithm>

#include "cuda_kernels/fast/vectors.h"

namespace san::fast {
namespace {

// Lane i is a[i] where i has not bit S and b[i - S] where it has, or the same
// of a[i + S] and b[i] if `kUpper`.
template <int S, bool kUpper, typename V, int... I>
inline V exchanged(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  using Element = std::decay_t<decltype(a[0])>;
  using Index = std::conditional_t<sizeof(Element) == 8, int64_t, int32_t>;
  const Vector<Index, L> from = {((I & S) ? I - S + L : I) +
                                 (kUpper ? S : 0)...};
  return __builtin_shuffle(a, b, from);
}

template <int S, int L, typename V>
inline __attribute__((always_inline)) void exchange(V (&rows)[L]) {
  constexpr auto lanes = std::make_integer_sequence<int, L>();
  unrolled<L>([&](auto i) {
    if constexpr (!(i & S)) {
      const V a = rows[i], b = rows[i + S];
      rows[i] = exchanged<S, false>(a, b, lanes);
      rows[i + S] = exchanged<S, true>(a, b, lanes);
    }
  });
  if constexpr (S > 1) exchange<S / 2>(rows);
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
  exchange<L / 2>(square);
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
}  // namespace san::fast

#endif  // CUDA_KERNELS_FAST_TRANSPOSITION_H_
