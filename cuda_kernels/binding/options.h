// The keyword options that every op shares, read from Python and checked.
#ifndef CUDA_KERNELS_BINDING_OPTIONS_H_
#define CUDA_KERNELS_BINDING_OPTIONS_H_

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/window.h"

namespace san {

// The position of the string `value` in `known`. Throws ValueError, naming the
// known strings and the nearest one.
size_t checked_choice(const char* op, const char* name, pybind11::handle value,
                      const std::vector<std::string>& known);

enum class Implementation { kSimple, kFast };

struct Options {
  int64_t kernel_size, stride, padding, dilation;
  PaddingMode padding_mode;
  Implementation implementation;
  void* stream;

  // Throws ValueError.
  Options(const char* op, pybind11::handle kernel_size, pybind11::handle stride,
          pybind11::handle padding, pybind11::handle dilation,
          pybind11::handle padding_mode, pybind11::handle implementation,
          pybind11::handle cuda_stream);

  // The window over the last two dimensions of `image`. Throws ValueError if
  // the padded image is smaller than the footprint.
  Window window_over(const char* op, const char* name,
                     const Tensor& image) const;
};

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_OPTIONS_H_
