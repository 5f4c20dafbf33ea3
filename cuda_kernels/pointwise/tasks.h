// The task of a 1x1 convolution on the CPU: a matrix product with what comes
// before and after it, so that neither takes a pass over memory of its own.
// Callers have checked everything.
//
// P pixels, C input channels, O output channels. With w the weight:
//
//   y[p, o] = sum over c of w[o, c] * f(x[p, c]) + bias[o] + addend[p, o]
//
// f is relu(scale[c] * x + shift[c]), relu(x) or x itself. A sum is taken
// channel by channel in order, some of them at a time: the same bits for any
// number of threads. Of bfloat16 f(x) is rounded, the sum is float.
#ifndef CUDA_KERNELS_POINTWISE_TASKS_H_
#define CUDA_KERNELS_POINTWISE_TASKS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::pointwise {

// The weight comes in panels of so many output channels, [O / kPanel, C,
// kPanel], the last one filled up with zeros. In bfloat16 two input channels
// lie side by side, [O / kPanel, C / 2, kPanel, 2], the last one filled up.
constexpr int64_t kPanel = 32;
// Most input channels in bfloat16, so that every sum is rounded once.
constexpr int64_t kMostBfloat16Channels = 2048;

constexpr int64_t panels_of(int64_t outputs) {
  return (outputs + kPanel - 1) / kPanel;
}

// Scale, shift and bias are accumulators of the type.
struct Pointwise {
  ScalarType type;  // float32, float64, bfloat16 if multiplies_bfloat16()
  int64_t pixels, inputs, outputs;
  const void* x;
  bool relu;
  const void *scale, *shift;  // null, both, without a norm
  const void* panels;
  const void *bias, *addend;  // may be null; the addend may be y
  void* y;
};

// Writes panels of the weight, which is [O, C], or [C, O] if `transposed`.
struct PointwisePanels {
  ScalarType type;  // as above
  int64_t inputs, outputs;
  const void* weight;
  bool transposed;
  void* panels;
};

// With g the gradient of y:
//
//   grad_weight[o, c] = sum over p of g[p, o] * f(x[p, c])
//   grad_bias[o] = sum over p of g[p, o]
//
// Summed up in bands of pixels that depend on the sizes only. The gradients are
// accumulators of the type; in bfloat16 f(x) is rounded.
struct PointwiseGradient {
  ScalarType type;  // of x and grad_y, as above
  int64_t pixels, inputs, outputs;
  const void* x;
  const void *scale, *shift;  // null, both, for f(x) = x
  const void* grad_y;
  void *grad_weight, *grad_bias;
};

void run_on_cpu(const Pointwise& task);
void run_on_cpu(const PointwisePanels& task);
void run_on_cpu(const PointwiseGradient& task);

}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_TASKS_H_
