// Adds the 1x1 convolution and its gradient to the Python module.
#ifndef CUDA_KERNELS_POINTWISE_BINDING_H_
#define CUDA_KERNELS_POINTWISE_BINDING_H_

#include <pybind11/pybind11.h>

namespace san {

void define_pointwise(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_POINTWISE_BINDING_H_
