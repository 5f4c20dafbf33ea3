// Turns CUDA status codes into exceptions. For .cu files only.
#ifndef CUDA_KERNELS_CUDA_CHECK_H_
#define CUDA_KERNELS_CUDA_CHECK_H_

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace san {

// Throws std::runtime_error unless `status` is success. `action` completes
// "could not ...".
inline void check_cuda(cudaError_t status, const char* action) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // said here: the next to ask shall not hear it again
  throw std::runtime_error(std::string("cuda_kernels: could not ") + action +
                           ": " + cudaGetErrorString(status));
}

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_CHECK_H_
