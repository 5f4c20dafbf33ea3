// The Python functions of the operators that move a window.
#ifndef CUDA_KERNELS_WINDOW_OPS_BINDING_H_
#define CUDA_KERNELS_WINDOW_OPS_BINDING_H_

#include <pybind11/pybind11.h>

namespace san {

// Adds aggregation and subtraction2, forward and backward, to the module.
void define_window_ops(pybind11::module_& module);

}  // namespace san

#endif  // CUDA_KERNELS_WINDOW_OPS_BINDING_H_
