// The inner loops of the fast CPU kernels: arithmetic on runs of adjacent
// elements, compiled once per instruction set and chosen at run time. They know
// nothing of windows, padding or threads.
#ifndef CUDA_KERNELS_WINDOW_OPS_ROW_KERNELS_H_
#define CUDA_KERNELS_WINDOW_OPS_ROW_KERNELS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::fast {

// One row of outputs y of a window's taps, or two adjacent ones of which the
// second sees by its tap row kh what the first sees by kh + 1. With tap (kh,
// kw), output row r, channel c < channels and column i < columns it pairs
//   taps[(kh * tap_columns + kw) * tap_stride + r * columns + i],
//   x[c * x_stride + x_rows[kh + r] + x_columns[kw] + i] and
//   y[c * y_stride + r * columns + i].
template <typename Taps, typename X, typename Y>
struct WindowRows {
  Taps* taps;
  const X* x;
  Y* y;
  const int64_t *x_rows, *x_columns;
  int64_t tap_rows, tap_columns, channels, columns;
  int64_t tap_stride, x_stride, y_stride;
  int64_t ahead;  // elements from a weight to one that is needed soon
};
// y = sum of taps * x over kh and kw
template <typename T>
using WindowSum = WindowRows<const T, Accumulator<T>, Accumulator<T>>;
// taps = sum of y * x over c
template <typename T>
using WindowProducts = WindowRows<T, Accumulator<T>, const Accumulator<T>>;

// For each tap column kw, channel c < channels and column i < columns:
//   to[c * to_stride + to_columns[kw] + i] += sum over t < terms of
//       w[kw * tap_stride + w_offsets[t] + i] *
//       g[c * g_stride + g_offsets[t] + i]
template <typename T>
struct Gather {
  const T* w;
  const Accumulator<T>* g;
  Accumulator<T>* to;
  const int64_t *w_offsets, *g_offsets, *to_columns;
  int64_t terms, tap_columns, channels, columns;
  int64_t tap_stride, g_stride, to_stride;
  int64_t ahead;  // as above
};

template <typename T>
struct RowKernels {
  using A = Accumulator<T>;
  void (*load)(const T* from, A* to, int64_t count);
  void (*store)(const A* from, T* to, int64_t count);
  // Between a matrix and its transpose: to[c * to_stride + r] =
  // from[r * from_stride + c] for r < rows, c < columns.
  void (*load_transposed)(const T* from, int64_t from_stride, A* to,
                          int64_t to_stride, int64_t rows, int64_t columns);
  void (*store_transposed)(const A* from, int64_t from_stride, T* to,
                           int64_t to_stride, int64_t rows, int64_t columns);
  void (*window_sum)(const WindowSum<T>&, bool two_rows);
  void (*window_products)(const WindowProducts<T>&, bool two_rows);
  void (*gather)(const Gather<T>&);
  // to[i] += from[i]
  void (*add)(const T* from, A* to, int64_t count);
  // Rows of `columns` elements, `pitch` apart, to dense ones and back:
  // to[r, i] = from[r * pitch + i] and to[r * pitch + i] += from[r, i]
  void (*gather_rows)(const A* from, int64_t pitch, A* to, int64_t rows,
                      int64_t columns);
  void (*scatter_rows)(const A* from, A* to, int64_t pitch, int64_t rows,
                       int64_t columns);
  // out[i] = a[i] - b[i]; `streamed`: past the caches, where others may read it
  // after end_stream().
  void (*subtract)(const A* a, const A* b, T* out, int64_t count,
                   bool streamed);
  void (*end_stream)();
  // a[i] += g[i], b[i] -= g[i]
  void (*spread)(const T* g, A* a, A* b, int64_t count);
};

// The table for the instruction set in use (cpu/instruction_set.h).
template <typename T>
const RowKernels<T>& row_kernels();

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_ROW_KERNELS_H_
