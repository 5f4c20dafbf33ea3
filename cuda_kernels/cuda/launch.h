// Launches kernels, checked, and finds a block's shared memory. For .cu files
// only, which launch in no other way: so the tests can compile them for the
// CPU too (tests/emulated_cuda).
#ifndef CUDA_KERNELS_CUDA_LAUNCH_H_
#define CUDA_KERNELS_CUDA_LAUNCH_H_

#include "cuda_kernels/cuda/check.h"

namespace san {

// What a block has without asking for more.
constexpr size_t kOrdinarySharedBytes = 48 * 1024;

// The most shared memory that a block of the current device can ask for.
inline size_t most_shared_bytes() {
  int device = 0, bytes = 0;
  check_cuda(cudaGetDevice(&device), "ask for the current CUDA device");
  check_cuda(cudaDeviceGetAttribute(
                 &bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "ask for the shared memory of a CUDA device");
  return bytes;
}

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// `stream` is a cudaStream_t of the current device; returns at once. Throws
// std::runtime_error.
template <typename... Parameters>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape,
            void* stream, Parameters... parameters) {
  // The limit is the kernel's, whoever launches it: always the same one, so
  // that no thread lowers what another is about to use.
  if (shape.shared_bytes > kOrdinarySharedBytes)
    check_cuda(cudaFuncSetAttribute(kernel,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(most_shared_bytes())),
               "get shared memory for a kernel");
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  check_cuda(cudaLaunchKernelEx(&config, kernel, parameters...),
             "launch a kernel");
}

// The shared memory of the running block, on a 16-byte boundary.
inline __device__ unsigned char* shared_memory() {
#ifdef SAN_EMULATED_CUDA
  return reinterpret_cast<unsigned char*>(emulated::position.shared);
#else
  extern __shared__ uint4 shared[];
  return reinterpret_cast<unsigned char*>(shared);
#endif
}

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_LAUNCH_H_
