// Sums of many terms by some threads of a block, always in the same order: the
// second stage of sums over a whole batch. For .cu files only.
#ifndef CUDA_KERNELS_CUDA_ORDERED_SUM_H_
#define CUDA_KERNELS_CUDA_ORDERED_SUM_H_

#include <cstdint>

#include "cuda_kernels/cuda/launch.h"

namespace san {

// Shared memory of a block that calls sum_in_order.
template <int kColumns, int kRows, typename A, int kCount>
constexpr size_t kOrderedSumBytes =
    kRows > 1 ? kColumns * kRows * kCount * sizeof(A) : 0;

// Of kColumns by kRows threads, a block, each row of a column adds every so
// many terms, in order, by term(i, sums); then the first one adds what the rows
// have, in order, and calls finish(sums). A column that is not `inside` has no
// sums; all threads of the block call this together, unless there is one row.
template <int kColumns, int kRows, typename A, int kCount, typename Term,
          typename Finish>
__device__ void sum_in_order(int column, int row, bool inside, int64_t terms,
                             Term term, Finish finish) {
  A sums[kCount] = {};
  if (inside)
#pragma unroll 4
    for (int64_t i = row; i < terms; i += kRows) term(i, sums);
  if constexpr (kRows > 1) {
    A* const shared = reinterpret_cast<A*>(shared_memory()) + column * kCount;
    constexpr int kPitch = kColumns * kCount;
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      shared[row * kPitch + q] = sums[q];
      sums[q] = 0;
    }
    __syncthreads();
    if (row > 0) return;
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int q = 0; q < kCount; ++q) sums[q] += shared[i * kPitch + q];
  }
  if (inside) finish(sums);
}

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_ORDERED_SUM_H_
