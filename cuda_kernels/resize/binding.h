// The Python function of the input's resize.
#ifndef CUDA_KERNELS_RESIZE_BINDING_H_
#define CUDA_KERNELS_RESIZE_BINDING_H_

#include <pybind11/pybind11.h>

namespace san {

// Adds square to the module.
void define_resize(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_RESIZE_BINDING_H_
