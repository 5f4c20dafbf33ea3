// The 1x1 convolution on the CPU: who does which pixels and panels. The split
// depends on the sizes only.
#include <algorithm>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/pointwise/rows.h"

namespace san::pointwise {

SAN_CHOOSE_TABLE(PointwiseRows, pointwise_rows)

namespace {

// Fewer blocks of pixels than this do not employ many threads, so that each
// goes to several jobs, by panels: the activations are made again in each.
constexpr int64_t kEnoughBlocks = 16, kPanelsOfJob = 8;

template <typename T>
void forward(const Pointwise& task) {
  if (task.pixels == 0 || task.outputs == 0) return;
  const int64_t blocks = (task.pixels + kBlock - 1) / kBlock;
  const int64_t panels = panels_of(task.outputs);
  const int64_t step = blocks < kEnoughBlocks ? kPanelsOfJob : panels;
  const int64_t parts = (panels + step - 1) / step;
  cpu::for_each_job<T>(
      blocks * parts, kBlock * kPitch<T>, [&](int64_t job, T* activations) {
        const int64_t block = job / parts, first = job % parts * step;
        pointwise_rows<T>().forward(task, block * task.pixels / blocks,
                                    (block + 1) * task.pixels / blocks, first,
                                    std::min(first + step, panels),
                                    activations);
      });
}

}  // namespace

bool takes_bfloat16() {
#ifdef __x86_64__
  return pointwise_rows<bfloat16>().forward != nullptr &&
         __builtin_cpu_supports("avx512bf16") &&
         !__builtin_cpu_supports("amx-bf16");
#else
  return false;
#endif
}

void run_on_cpu(const Pointwise& task) {
  if (task.type == ScalarType::kBfloat16) return forward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? forward<double>(task)
                                    : forward<float>(task);
}

}  // namespace san::pointwise
