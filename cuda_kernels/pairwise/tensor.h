// The fused pairwise attention on tensor cores: what run_on_cuda tries first.
//
// There are kernels for half types and float32; for R = 2 G, M = 8 G and G of
// 8, 16, 32, 64 or, of half types but for the forward, 2; for images of more
// than half a footprint, addresses on boundaries of 16 bytes, and blocks that
// may have the shared memory of a tile (tensor_tile.h). float32 is multiplied
// as exactly as by itself (tensor_fragments.h), or in TF32 in the forward if
// that is allowed.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_H_

#include "cuda_kernels/pairwise/tasks.h"

namespace san::pairwise {

// Launches the task if there is a kernel for it; returns whether there is.
bool run_on_tensor_cores(const PairwiseForward& task, void* stream);
bool run_on_tensor_cores(const PairwiseBackward& task, void* workspace,
                         void* stream);
bool run_on_tensor_cores(const PairwiseMoments& task, void* workspace,
                         void* stream);
bool run_on_tensor_cores(const PairwiseMomentsBackward& task, void* workspace,
                         void* stream);

// Likewise, of 2 weight channels, without tensor cores.
bool run_narrow(const PairwiseForward& task, void* stream);

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_H_
