// The simple implementation on the CPU: an OpenMP loop over output elements.
#include "cuda_kernels/window_ops/simple.h"

#include <algorithm>

namespace san::simple {
namespace {

constexpr int64_t kElementsPerChunk = 1024;

// schedule(dynamic): a preempted thread must not hold up a short kernel.
struct Loop {
  template <typename Formula>
  void operator()(const Formula& formula) const {
    const int64_t count = formula.count();
    const int64_t chunks = (count + kElementsPerChunk - 1) / kElementsPerChunk;
#pragma omp parallel for schedule(dynamic) if (chunks > 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = chunk * kElementsPerChunk;
      const int64_t end = std::min(count, begin + kElementsPerChunk);
      for (int64_t index = begin; index < end; ++index) formula(index);
    }
  }
};

}  // namespace

void run_on_cpu(const AggregationForward& task) { run_task(task, Loop()); }
void run_on_cpu(const AggregationBackward& task) { run_task(task, Loop()); }
void run_on_cpu(const SubtractionForward& task) { run_task(task, Loop()); }
void run_on_cpu(const SubtractionBackward& task) { run_task(task, Loop()); }

}  // namespace san::simple
