// The one form of the module's error messages.
#ifndef CUDA_KERNELS_BINDING_ERRORS_H_
#define CUDA_KERNELS_BINDING_ERRORS_H_

#include <pybind11/pybind11.h>

#include <string>

namespace san {

// ValueError "<op>: <argument> must <rule>, got <value>".
[[noreturn]] inline void fail(const char* op, const std::string& argument,
                              const std::string& rule,
                              const std::string& value) {
  throw pybind11::value_error(std::string(op) + ": " + argument + " must " +
                              rule + ", got " + value);
}

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_ERRORS_H_
