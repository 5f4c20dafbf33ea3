// The fused pairwise attention on tensor cores: what run_on_cuda tries first.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_H_

#include "cuda_kernels/pairwise/tasks.h"

namespace san::pairwise {

// Launches the task if there are kernels for its type and sizes; returns
// whether there are. They compute half types, and float32 where TF32 is
// allowed, for R = 2 G, M = 8 G and G of 2, 8, 16, 32 or 64, and need the
// shared memory that a tile of the image takes (tensor_tile.h).
bool run_on_tensor_cores(const PairwiseForward& task, void* stream);

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_H_
