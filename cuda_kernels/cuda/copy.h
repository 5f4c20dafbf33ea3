// Copies from global to shared memory that go on while the thread does. For .cu
// files only.
//
// A thread asks for copies, commits those asked for so far as a group, and
// waits for groups; only then it sees the bytes, and only after a barrier
// behind that the other threads do. Until then nobody changes the source. A
// thread waits for all of its copies before it ends.
#ifndef CUDA_KERNELS_CUDA_COPY_H_
#define CUDA_KERNELS_CUDA_COPY_H_

#include "cuda_kernels/cuda/warp.h"

#ifndef SAN_EMULATED_CUDA

namespace san {

// Copies `bytes` and fills the rest of 4, 8 or 16 with zeros; both addresses
// are on a boundary of kBytes (PTX ISA, "cp.async").
template <int kBytes>
__device__ void copy_async(void* to, const void* from, int bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const auto source = __cvta_generic_to_global(from);
  if constexpr (kBytes == 16)  // past the first cache, which keeps no copy
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target),
                 "l"(source), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target),
                 "l"(source), "n"(kBytes), "r"(bytes)
                 : "memory");
}

inline __device__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for all groups of the thread but the newest kGroups.
template <int kGroups>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

}  // namespace san

#endif  // SAN_EMULATED_CUDA
#endif  // CUDA_KERNELS_CUDA_COPY_H_
