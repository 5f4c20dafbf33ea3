// Chooses the inner loops for the processor at hand.
#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/patchwise/kernels.h"

namespace san::patchwise {

SAN_CHOOSE_TABLE(PatchwiseKernels, patchwise_kernels)

template const PatchwiseKernels<float>& patchwise_kernels();
template const PatchwiseKernels<double>& patchwise_kernels();
template const PatchwiseKernels<float16>& patchwise_kernels();
template const PatchwiseKernels<bfloat16>& patchwise_kernels();

}  // namespace san::patchwise
