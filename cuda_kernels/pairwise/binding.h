// The Python functions of the fused pairwise attention.
#ifndef CUDA_KERNELS_PAIRWISE_BINDING_H_
#define CUDA_KERNELS_PAIRWISE_BINDING_H_

#include <pybind11/pybind11.h>

namespace san {

// Adds pairwise_forward, pairwise_difference, pairwise_moments and the backward
// of each to the module, and what workspace they need on CUDA.
void define_pairwise(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_PAIRWISE_BINDING_H_
