// Runs a checked task of the fused operators where its tensors lie.
#ifndef CUDA_KERNELS_BINDING_DISPATCH_H_
#define CUDA_KERNELS_BINDING_DISPATCH_H_

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/cuda/device.h"

namespace san {

// Calls the overload of run_on_cpu or run_on_cuda beside the task; `more` is
// what run_on_cuda takes beyond task and stream. Throws ValueError if the build
// has no CUDA kernels for tensors like `like`.
template <typename Task, typename... More>
void run_fused(const char* op, const Tensor& like, const Task& task,
               void* stream, More... more) {
  if (!like.on_cuda()) {
    const pybind11::gil_scoped_release without_gil;
    return run_on_cpu(task);
  }
#ifdef SAN_NO_CUDA
  (void)stream, ((void)more, ...);
  fail(op, "tensors", "be on the CPU, for this build has no CUDA kernels",
       "cuda:" + std::to_string(like.device_id()));
#else
  (void)op;
  const pybind11::gil_scoped_release without_gil;
  const CudaDeviceGuard guard(like.device_id());
  run_on_cuda(task, more..., stream);
#endif
}

// A cudaStream_t as Python hands it over.
inline void* stream_of(uintptr_t number) {
  return reinterpret_cast<void*>(number);
}

// The memory [1, 1, 1, n] of the type given that a task on CUDA needs for its
// partial sums; null on the CPU. It shares nothing with `others`.
inline void* checked_workspace(const char* op, pybind11::handle object,
                               int64_t elements, ScalarType type,
                               const Tensor& like,
                               const std::vector<const Tensor*>& others) {
  if (!like.on_cuda()) return nullptr;
  const Tensor workspace(op, "workspace", object, Access::kWrite);
  workspace.require_kind(type, like);
  if (workspace.size(3) < elements)
    fail(op, "workspace",
         "have shape [1, 1, 1, n] with n of at least " +
             std::to_string(elements),
         std::to_string(workspace.size(3)));
  for (const Tensor* other : others) workspace.require_apart_from(*other);
  return workspace.data();
}

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_DISPATCH_H_
