// From a task (untyped pointers) to the element formulas (typed). The only
// thing left open is `run(formula)`: a loop on the CPU, a launch on CUDA.
#ifndef CUDA_KERNELS_WINDOW_OPS_SIMPLE_H_
#define CUDA_KERNELS_WINDOW_OPS_SIMPLE_H_

#include "cuda_kernels/window_ops/aggregation_elements.h"
#include "cuda_kernels/window_ops/subtraction_elements.h"

namespace san::simple {

template <typename T>
const T* read(const void* data) {
  return static_cast<const T*>(data);
}

template <typename T>
T* written(void* data) {
  return static_cast<T*>(data);
}

template <typename Run>
void run_task(const AggregationForward& task, Run run) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    run(AggregationOutput<T>{task.shape, read<T>(task.input),
                             read<T>(task.weight), written<T>(task.output)});
  });
}

template <typename Run>
void run_task(const AggregationBackward& task, Run run) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    const T* grad_output = read<T>(task.grad_output);
    if (task.grad_input)
      run(AggregationGradInput<T>{task.shape, grad_output, read<T>(task.weight),
                                  written<T>(task.grad_input)});
    if (task.grad_weight)
      run(AggregationGradWeight<T>{task.shape, grad_output, read<T>(task.input),
                                   written<T>(task.grad_weight)});
  });
}

template <typename Run>
void run_task(const SubtractionForward& task, Run run) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    run(SubtractionOutput<T>{task.shape, read<T>(task.a), read<T>(task.b),
                             written<T>(task.output)});
  });
}

template <typename Run>
void run_task(const SubtractionBackward& task, Run run) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    const T* grad_output = read<T>(task.grad_output);
    if (task.grad_a)
      run(SubtractionGradA<T>{task.shape, grad_output,
                              written<T>(task.grad_a)});
    if (task.grad_b)
      run(SubtractionGradB<T>{task.shape, grad_output,
                              written<T>(task.grad_b)});
  });
}

}  // namespace san::simple

#endif  // CUDA_KERNELS_WINDOW_OPS_SIMPLE_H_
