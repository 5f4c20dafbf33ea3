// Adds the fused patchwise attention to the Python module.
#ifndef CUDA_KERNELS_BINDING_FUSED_PATCHWISE_H_
#define CUDA_KERNELS_BINDING_FUSED_PATCHWISE_H_

#include <pybind11/pybind11.h>

namespace san {

void define_fused_patchwise(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_FUSED_PATCHWISE_H_
