// The simple implementation on CUDA: one thread per output element. Every
// element has one writer that sums in a fixed order, so there are no atomics
// and every run gives the same bits.
#include <algorithm>

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/window_ops/simple.h"

namespace san::simple {
namespace {

constexpr unsigned kThreadsPerBlock = 256;
constexpr int64_t kMostBlocks = 0x7fffffff;

template <typename Formula>
__global__ void for_each_element(Formula formula, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; index < count; index += step) formula(index);
}

struct Launch {
  void* stream;

  template <typename Formula>
  void operator()(const Formula& formula) const {
    const int64_t count = formula.count();
    if (count == 0) return;
    const int64_t blocks = (count + kThreadsPerBlock - 1) / kThreadsPerBlock;
    const auto grid = static_cast<unsigned>(std::min(blocks, kMostBlocks));
    launch(&for_each_element<Formula>, {grid, kThreadsPerBlock}, stream,
           formula, count);
  }
};

}  // namespace

void run_on_cuda(const AggregationForward& task, void* stream) {
  run_task(task, Launch{stream});
}
void run_on_cuda(const AggregationBackward& task, void* stream) {
  run_task(task, Launch{stream});
}
void run_on_cuda(const SubtractionForward& task, void* stream) {
  run_task(task, Launch{stream});
}
void run_on_cuda(const SubtractionBackward& task, void* stream) {
  run_task(task, Launch{stream});
}

}  // namespace san::simple
