// The fused patchwise attention by tensor cores: where that is possible, and
// its launchers.
//
// Half types natively, with sums in float32; what is multiplied is rounded to
// the type: the rectified relation, hidden, weights, and gradients of these.
// float32 likewise as TF32 if the caller allows that, and else as the sum of
// two TF32, as exactly as float32 itself.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_H_

#include <cstddef>

#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {

// Bytes that a task by tensor cores needs as workspace; -1 where they do not
// take its type or sizes. Pointers are not read.
int64_t tensor_workspace(const PatchwiseHiddenForward& task);
int64_t tensor_workspace(const PatchwiseHiddenBackward& task);
int64_t tensor_workspace(const PatchwiseCoreForward& task);
int64_t tensor_workspace(const PatchwiseCoreBackward& task);

// Of a task for which there is a workspace.
void run_on_tensor_cores(const PatchwiseHiddenForward& task, void* stream);
void run_on_tensor_cores(const PatchwiseHiddenBackward& task, void* stream);
void run_on_tensor_cores(const PatchwiseCoreForward& task, void* stream);
void run_on_tensor_cores(const PatchwiseCoreBackward& task, void* stream);

// An element of float32 that is multiplied exactly; see tensor_operands.h.
struct SplitFloat {
  float value;

  SAN_HOST_DEVICE explicit operator float() const { return value; }
  static SAN_HOST_DEVICE SplitFloat round(float value) { return {value}; }
};

// Calls f(T()) with the type of a forward task's elements: float stands for
// TF32. Not for float64.
template <typename Task, typename F>
void with_tensor_type(const Task& task, F f) {
  switch (task.type) {
    case ScalarType::kFloat32:
      return task.allow_tf32 ? f(float()) : f(SplitFloat());
    case ScalarType::kFloat16:
      return f(float16());
    case ScalarType::kBfloat16:
      return f(bfloat16());
    case ScalarType::kFloat64:
      return;
  }
}

// The first address from `workspace` on that is on a boundary for all loads.
inline unsigned char* aligned(void* workspace) {
  const auto address = reinterpret_cast<uintptr_t>(workspace);
  return reinterpret_cast<unsigned char*>((address + 15) / 16 * 16);
}

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_H_
