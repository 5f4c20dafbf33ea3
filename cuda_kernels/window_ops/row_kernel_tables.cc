// Chooses the row kernels for the processor at hand.
#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/window_ops/row_kernels.h"

namespace san::fast {

SAN_CHOOSE_TABLE(RowKernels, row_kernels)

template const RowKernels<float>& row_kernels();
template const RowKernels<double>& row_kernels();
template const RowKernels<float16>& row_kernels();
template const RowKernels<bfloat16>& row_kernels();

}  // namespace san::fast
