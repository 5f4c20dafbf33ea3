// The ReLU as PyTorch has it: NaN stays NaN, and its gradient passes. Of a
// scalar, or on the CPU of a vector's lanes. In an unnamed namespace: one copy
// per instruction set.
#ifndef CUDA_KERNELS_RELU_H_
#define CUDA_KERNELS_RELU_H_

#include "cuda_kernels/window.h"

namespace san {
namespace {

template <typename V>
SAN_HOST_DEVICE V relu(V x) {
  return x < 0 ? V{} : x;
}

// What passes of the gradient of relu(x). The result of the ReLU does for x.
template <typename V>
SAN_HOST_DEVICE V relu_gradient(V x, V grad) {
  return x <= 0 ? V{} : grad;
}

}  // namespace
}  // namespace san

#endif  // CUDA_KERNELS_RELU_H_
