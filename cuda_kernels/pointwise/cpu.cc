// The 1x1 convolution on the CPU: who does which pixels and panels, and of its
// gradient which pixels and columns. The split depends on the sizes only.
#include <algorithm>
#include <memory>

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

template <typename T>
void pack(const PointwisePanels& task) {
  cpu::for_each_job<T>(panels_of(task.outputs), 0, [&](int64_t panel, T*) {
    pointwise_rows<T>().pack(task, panel, panel + 1);
  });
}

// Bands of pixels have sums of their own, of which all but the first need
// memory: fewer the larger they are.
constexpr int64_t kMostBands = 32, kMostSums = 1 << 19;

template <typename T>
void gradient(const PointwiseGradient& task) {
  using A = Accumulator<T>;
  const int64_t C = task.inputs, O = task.outputs, count = (C + 1) * O;
  A* weight = static_cast<A*>(task.grad_weight);
  A* bias = static_cast<A*>(task.grad_bias);
  // Sums of more elements come from the third cache: in fewer, longer steps.
  const int64_t most =
      count > kMostSums / 4 ? kGradientPixels<T> : kGradientPixels<T> / 2;
  const int64_t steps = (task.pixels + most - 1) / most;
  if (steps == 0 || O == 0) {
    std::fill_n(weight, O * C, A(0));
    std::fill_n(bias, O, A(0));
    return;
  }
  const int64_t bands =
      std::clamp<int64_t>(kMostSums / count, 1, std::min(kMostBands, steps));
  // Without a column, one that sums the bias.
  const int64_t parts =
      std::max<int64_t>(1, (C + kGradientColumns - 1) / kGradientColumns);
  const std::unique_ptr<A[]> sums(new A[(bands - 1) * count]);
  const auto sums_of = [&](int64_t band) {
    return sums.get() + (band - 1) * count;
  };
  cpu::for_each_job<A>(
      bands * parts, kGradientScratch, [&](int64_t job, A* scratch) {
        const int64_t band = job / parts, part = job % parts;
        A* own = band == 0 ? weight : sums_of(band);
        const int64_t first = band * steps / bands;
        for (int64_t step = first; step < (band + 1) * steps / bands; ++step)
          pointwise_rows<T>().gradient(task, step * task.pixels / steps,
                                       (step + 1) * task.pixels / steps,
                                       part * C / parts, (part + 1) * C / parts,
                                       step > first, scratch, own,
                                       band == 0 ? bias : own + C * O);
      });
#pragma omp parallel for
  for (int64_t i = 0; i < count; ++i) {
    A& to = i < C * O ? weight[i] : bias[i - C * O];
    for (int64_t band = 1; band < bands; ++band) to += sums_of(band)[i];
  }
}

}  // namespace

void run_on_cpu(const Pointwise& task) {
  if (task.type == ScalarType::kBfloat16) return forward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? forward<double>(task)
                                    : forward<float>(task);
}
void run_on_cpu(const PointwisePanels& task) {
  if (task.type == ScalarType::kBfloat16) return pack<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? pack<double>(task) : pack<float>(task);
}
void run_on_cpu(const PointwiseGradient& task) {
  if (task.type == ScalarType::kBfloat16) return gradient<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? gradient<double>(task)
                                    : gradient<float>(task);
}

}  // namespace san::pointwise
