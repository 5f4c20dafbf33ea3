#include "cuda_kernels/cuda/check.h"
#include "cuda_kernels/cuda/device.h"

namespace san {

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver is an answer here, not a pending error
  return 0;
}

CudaDeviceGuard::CudaDeviceGuard(int device) {
  check_cuda(cudaGetDevice(&previous_), "ask for the current CUDA device");
  check_cuda(cudaSetDevice(device), "select the tensors' CUDA device");
}

CudaDeviceGuard::~CudaDeviceGuard() { cudaSetDevice(previous_); }

}  // namespace san
