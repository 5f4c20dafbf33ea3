// Adds the fused patchwise attention to the Python module.
#ifndef CUDA_KERNELS_PATCHWISE_BINDING_H_
#define CUDA_KERNELS_PATCHWISE_BINDING_H_

#include <pybind11/pybind11.h>

namespace san {

void define_patchwise(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_PATCHWISE_BINDING_H_
