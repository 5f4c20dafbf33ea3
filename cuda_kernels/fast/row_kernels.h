// The inner loops of the fast CPU kernels: arithmetic on runs of adjacent
// elements, compiled once per instruction set and chosen at run time. They know
// nothing of windows, padding or threads.
#ifndef CUDA_KERNELS_FAST_ROW_KERNELS_H_
#define CUDA_KERNELS_FAST_ROW_KERNELS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::fast {

// For each sum s < sums, channel c < channels and column i < columns:
//   out[c * out_stride + out_offsets[s] + i] =
//       sum over t < terms of w[s * w_step + w_offsets[t] + i] *
//                             x[c * x_stride + x_offsets[t] + i]
// or += instead of = if `accumulate`.
template <typename T>
struct WeightedSum {
  const T* w;
  const Accumulator<T>* x;
  Accumulator<T>* out;
  const int64_t *w_offsets, *x_offsets, *out_offsets;
  int64_t sums, terms, channels, columns;
  int64_t w_step, x_stride, out_stride;
  bool accumulate;
};

// For each term t < terms and column i < columns:
//   out[t * out_stride + i] =
//       sum over c < channels of g[c * g_stride + i] *
//                                x[c * x_stride + x_offsets[t] + i]
template <typename T>
struct ChannelSum {
  const Accumulator<T>* g;
  const Accumulator<T>* x;
  T* out;
  const int64_t* x_offsets;
  int64_t terms, channels, columns;
  int64_t g_stride, x_stride, out_stride;
};

template <typename T>
struct RowKernels {
  using A = Accumulator<T>;
  void (*load)(const T* from, A* to, int64_t count);
  void (*store)(const A* from, T* to, int64_t count);
  void (*weighted_sum)(const WeightedSum<T>&);
  void (*channel_sum)(const ChannelSum<T>&);
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

// The table for the instruction set in use: the best that the processor has,
// unless use_instruction_set() asked for less.
template <typename T>
const RowKernels<T>& row_kernels();

// Instruction sets in ascending order.
constexpr const char* kInstructionSets[] = {"baseline", "avx2", "avx512"};
// The highest index of kInstructionSets that this processor can run.
int best_instruction_set();
// The index in use.
int instruction_set();
// For all later kernels of all threads; at most best_instruction_set().
void use_instruction_set(int index);

}  // namespace san::fast

#endif  // CUDA_KERNELS_FAST_ROW_KERNELS_H_
