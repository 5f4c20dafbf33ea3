// The second stage of sums over the whole batch; see workspace.h.
#ifndef CUDA_KERNELS_PAIRWISE_SUMS_H_
#define CUDA_KERNELS_PAIRWISE_SUMS_H_

#include <initializer_list>

#include "cuda_kernels/pairwise/workspace.h"

namespace san::pairwise {

// The type that the sums of a task are given in.
inline ScalarType computed_in(ScalarType type) {
  return type == ScalarType::kFloat64 ? type : ScalarType::kFloat32;
}

// One matrix of sums and where it goes.
struct Total {
  int64_t begin;  // in a part
  int rows, columns;
  bool outer;      // OuterSums, or else dense
  bool symmetric;  // takes what lies below the diagonal from above it
  void* output;    // dense
};

// Writes up to five totals in one launch. `type` is that of the outputs,
// float32 or float64.
void add_parts(const Parts& parts, std::initializer_list<Total> totals,
               ScalarType type, void* stream);

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_SUMS_H_
