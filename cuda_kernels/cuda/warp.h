// What the lanes of a warp do together: shuffles, votes and barriers. For .cu
// files only, which do so in no other way: the tests run them on the CPU
// (tests/emulated_cuda), where an undefined use is an error.
//
// A warp is 32 threads of adjacent indices. `lanes` has a bit for each lane
// that takes part: all of them, none that has ended, at the same place of the
// source and with the same `lanes`.
#ifndef CUDA_KERNELS_CUDA_WARP_H_
#define CUDA_KERNELS_CUDA_WARP_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace san {

constexpr unsigned kAllLanes = 0xffffffff;

}  // namespace san

#ifdef SAN_EMULATED_CUDA
#include <emulated_warp.h>
#else

namespace san {

// Of the running thread in its warp.
inline __device__ int lane() {
  int lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// The value of lane `from`, which takes part. T is a number of 4 or 8 bytes.
template <typename T>
__device__ T shuffle(T value, int from, unsigned lanes = kAllLanes) {
  return __shfl_sync(lanes, value, from);
}
// That of the lane whose index differs in `bits`.
template <typename T>
__device__ T shuffle_xor(T value, int bits, unsigned lanes = kAllLanes) {
  return __shfl_xor_sync(lanes, value, bits);
}
// That of the lane `step` further; its own where there is none.
template <typename T>
__device__ T shuffle_down(T value, int step, unsigned lanes = kAllLanes) {
  return __shfl_down_sync(lanes, value, step);
}

// A bit for each lane whose value is true.
inline __device__ unsigned ballot(bool value, unsigned lanes = kAllLanes) {
  return __ballot_sync(lanes, value);
}
inline __device__ bool any(bool value, unsigned lanes = kAllLanes) {
  return __any_sync(lanes, value);
}
inline __device__ bool all(bool value, unsigned lanes = kAllLanes) {
  return __all_sync(lanes, value);
}

// Waits for the lanes; each sees then what the others have written.
inline __device__ void warp_sync(unsigned lanes = kAllLanes) {
  __syncwarp(lanes);
}

// Waits until `threads` of the block, in whole warps, are at barrier `id`, from
// 1 to 15: the one of __syncthreads() is 0. All lanes of a warp call it (PTX
// ISA, "bar.sync").
inline __device__ void barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace san

#endif  // SAN_EMULATED_CUDA
#endif  // CUDA_KERNELS_CUDA_WARP_H_
