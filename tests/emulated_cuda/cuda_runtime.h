// Stands in for CUDA's header of this name, so that a C++ compiler builds the
// project's .cu files unchanged and the kernels run on the CPU, thread by
// thread, in tests.
//
// Every thread of a block is a fiber with a stack of its own. A fiber runs
// until it waits for others or ends; then the next one does, in ascending or
// descending order (see emulator.h). Blocks run one after the other, likewise.
// So kernels compute what they would on a GPU if they are free of races, and a
// missing barrier shows as a wrong result in one of the two orders. What warps
// do together (cuda_kernels/cuda/warp.h, matrix.h, copy.h) is done
// when all lanes that it names are there; what is undefined on a GPU is an
// error. Shared memory starts as NaN and ends at a page that nobody can access;
// so do the tensors of tests (guarded.py). Two blocks that write one element
// are an error. Errors name kernel, block and thread.
//
// Not here: speed, caches, alignment faults of plain loads and stores, more
// than one stream, clusters, wgmma, TMA.
#ifndef TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_
#define TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/emulated_cuda/emulator.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

using std::max;
using std::min;

inline const dim3& threadIdx = emulated::position.thread;
inline const dim3& blockIdx = emulated::position.block;
inline const dim3& blockDim = emulated::position.block_size;
inline const dim3& gridDim = emulated::position.grid_size;

inline void __syncthreads() { emulated::wait_for_block(); }

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

template <typename T>
T __ldg(const T* from) {
  return *from;
}
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

// ---- The runtime's functions. One device, which is the CPU.

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
struct EmulatedStream;
using cudaStream_t = EmulatedStream*;
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMultiProcessorCount
};

inline const char* cudaGetErrorString(cudaError_t) { return "invalid value"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
                                          int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? emulated::kMultiprocessors
               : emulated::most_shared_bytes();
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes > emulated::most_shared_bytes()) return cudaErrorInvalidValue;
  emulated::shared_limit(reinterpret_cast<const void*>(kernel)) = bytes;
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  const size_t shared = config->dynamicSmemBytes;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
      grid.z > 65535 || grid.x > 0x7fffffff || threads == 0 || threads > 1024 ||
      shared > static_cast<size_t>(emulated::shared_limit(
                   reinterpret_cast<const void*>(kernel))))
    return cudaErrorInvalidValue;
  emulated::run({reinterpret_cast<const void*>(kernel), grid, block, shared},
                [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

#endif  // TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_
