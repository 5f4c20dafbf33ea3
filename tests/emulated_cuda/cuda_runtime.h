// Stands in for CUDA's header of this name, so that a C++ compiler builds the
// project's .cu files unchanged and the kernels run on the CPU, thread by
// thread, in tests.
//
// Every thread of a block is a fiber with a stack of its own. A fiber runs
// until it waits at a barrier or ends; then the next one does, in ascending or
// descending order (see emulator.cc). Blocks run one after the other. So
// kernels compute what they would on a GPU if they are free of races, and a
// missing barrier shows as a wrong result in one of the two orders. Shared
// memory starts as NaN and ends in a guard: what is read before it is written
// spoils the result, and a write past the end is an error.
//
// Not here: speed, caches, alignment faults, more than one stream.
#ifndef TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_
#define TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1)
      : x(x), y(y), z(z) {}
};

namespace emulated {

constexpr unsigned kLanes = 32;

// Which thread the code that runs now belongs to.
struct Position {
  dim3 thread, block, block_size, grid_size;
  unsigned lane;
  std::byte* shared;
};
extern Position position;

// What a block of the device can ask for: 163 KiB, as on an A100, or
// EMULATED_CUDA_SHARED_BYTES of the environment.
int most_shared_bytes();

void wait_for_block();
void wait_for_warp();
// 8 bytes of each lane of the running warp.
uint64_t* warp_slots();

// Runs `kernel` once per thread of every block; throws std::runtime_error if
// the block hangs or writes past its shared memory.
void run(dim3 grid, dim3 block, size_t shared_bytes,
         const std::function<void()>& kernel);

constexpr int kMultiprocessors = 2;
// What a kernel may be launched with; 48 KiB unless it has asked for more.
int& shared_limit(const void* kernel);

template <typename T>
T exchange(T value, unsigned from) {
  static_assert(sizeof value <= sizeof(uint64_t));
  memcpy(&warp_slots()[position.lane], &value, sizeof value);
  wait_for_warp();
  memcpy(&value, &warp_slots()[from % kLanes], sizeof value);
  wait_for_warp();
  return value;
}

}  // namespace emulated

inline const dim3& threadIdx = emulated::position.thread;
inline const dim3& blockIdx = emulated::position.block;
inline const dim3& blockDim = emulated::position.block_size;
inline const dim3& gridDim = emulated::position.grid_size;

inline void __syncthreads() { emulated::wait_for_block(); }
inline void __syncwarp(unsigned = ~0u) { emulated::wait_for_warp(); }

// All lanes take part in all of these.
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulated::exchange(value, static_cast<unsigned>(lane));
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::exchange(value, emulated::position.lane ^ mask);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned step) {
  const unsigned from = emulated::position.lane + step;
  return emulated::exchange(
      value, from < emulated::kLanes ? from : emulated::position.lane);
}

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
  emulated::run(grid, block, shared,
                [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

#endif  // TESTS_EMULATED_CUDA_CUDA_RUNTIME_H_
