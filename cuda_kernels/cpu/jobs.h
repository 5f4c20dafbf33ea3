// A parallel loop whose iterations own a scratch buffer.
#ifndef CUDA_KERNELS_CPU_JOBS_H_
#define CUDA_KERNELS_CPU_JOBS_H_

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace san::cpu {

// The most elements of scratch that a thread may have. A task that needs more
// (padding or strides of absurd size) is left to the simple implementation.
constexpr __int128 kMostScratch = 1 << 26;

// Calls f(job, scratch) for each job; f must not throw. The split into jobs may
// not depend on the number of threads, so that results do not either.
// schedule(dynamic): a preempted thread must not hold up a short kernel.
template <typename A, typename F>
void for_each_job(int64_t jobs, int64_t scratch_elements, F f) {
  const int threads =
      static_cast<int>(std::min<int64_t>(jobs, omp_get_max_threads()));
  const std::unique_ptr<A[]> scratch(new A[threads * scratch_elements]);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t job = 0; job < jobs; ++job)
    f(job, scratch.get() + omp_get_thread_num() * scratch_elements);
}

}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_JOBS_H_
