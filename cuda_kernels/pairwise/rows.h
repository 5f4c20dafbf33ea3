// The inner part of the fused pairwise attention: one row of pixels at a time,
// compiled once per instruction set and chosen at run time. It knows nothing of
// threads.
#ifndef CUDA_KERNELS_PAIRWISE_ROWS_H_
#define CUDA_KERNELS_PAIRWISE_ROWS_H_

#include "cuda_kernels/pairwise/tasks.h"

namespace san::pairwise {

// What every pixel needs, for element type T. The matrices are packed and
// padded by PairwiseRows, as its loops take them; what a task does not use is
// null.
template <typename T>
struct PairwiseProblem {
  using A = Accumulator<T>;
  PairwiseShape shape;
  const T* features;
  const A* scale;
  const A* shift;
  // How many taps of output row h show row h + i - k / 2: [H, K], and columns.
  const A* row_counts;
  const A* column_counts;
  const A* table;
  const void *w1, *w2, *w1_transposed, *w2_transposed;
  const A* centre;
};

// What the backward has of the forward, and the gradient of its output.
template <typename T>
struct Attended {
  const T *grad_output, *output;
  const Accumulator<T>* log_sum_exp;
};

// Where the gradients of a mapping are summed, all with rows of `pitch`
// elements: one row each of scale and shift, K of the table, and R of w1 and of
// w2, which are transposed.
template <typename A>
struct MappingGradients {
  A *scale, *shift, *table, *w1, *w2;
};

// Of bfloat16 where multiplies_bfloat16().
template <typename T>
struct PairwiseRows {
  using A = Accumulator<T>;
  // Elements that a packed [depth, columns] matrix needs, and the packing of
  // the one whose element (d, j) is from[d * step + j * column_step], for the
  // attention or for the moments.
  int64_t (*packed_elements)(int64_t depth, int64_t columns);
  void (*pack)(const PairwiseShape& shape, bool attention, const A* from,
               int64_t depth, int64_t columns, int64_t step,
               int64_t column_step, void* to);
  // Elements of a row of `table`, and of the gradients of a mapping.
  int64_t (*pitch)(const PairwiseShape& shape);
  int64_t (*scratch_elements)(const PairwiseShape& shape);
  // forward takes the rows [h, end) of image `n`, best as many at once as
  // forward_rows says, and writes them; log_sum_exp may be null.
  int64_t (*forward_rows)(const PairwiseShape& shape);
  int64_t (*forward_scratch_elements)(const PairwiseShape& shape);
  void (*forward)(const PairwiseProblem<T>&, int64_t n, int64_t h, int64_t end,
                  A* scratch, T* output, A* log_sum_exp);
  // Row `h` of image `n`. All of them add.
  void (*backward)(const PairwiseProblem<T>&, int64_t n, int64_t h, A* scratch,
                   const Attended<T>& attended, A* grad_features,
                   const MappingGradients<A>& sums);
  // sums.table: [2, pitch]. The backward reads constant and slope from the
  // table.
  void (*difference)(const PairwiseProblem<T>&, int64_t n, int64_t h,
                     A* scratch, const MappingGradients<A>& sums);
  void (*difference_backward)(const PairwiseProblem<T>&, int64_t n, int64_t h,
                              A* scratch, A* grad_features);
  // sums.table takes the first moments, sums.w1 the second (its upper tiles).
  void (*moments)(const PairwiseProblem<T>&, int64_t n, int64_t h, A* scratch,
                  const MappingGradients<A>& sums);
  void (*moments_backward)(const PairwiseProblem<T>&, int64_t n, int64_t h,
                           A* scratch, A* grad_features,
                           const MappingGradients<A>& sums);
  // Writes sums as elements, of bfloat16 rounded.
  void (*round)(const A* from, int64_t count, T* to);
};

// The fastest table that this processor can run.
template <typename T>
const PairwiseRows<T>& pairwise_rows();

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_ROWS_H_
