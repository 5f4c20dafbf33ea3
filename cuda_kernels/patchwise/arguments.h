// Checks of the fused patchwise attention's arguments, and which kernels run
// it.
#ifndef CUDA_KERNELS_PATCHWISE_ARGUMENTS_H_
#define CUDA_KERNELS_PATCHWISE_ARGUMENTS_H_

#include <string>
#include <vector>

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/patchwise/tasks.h"
#include "cuda_kernels/patchwise/tensor.h"

namespace san {
namespace {

namespace py = pybind11;

// Keeps every position far inside 64 bits.
using patchwise::kLargestFootprint;
using patchwise::PatchwiseCoreBackward;
using patchwise::PatchwiseCoreForward;
using patchwise::PatchwiseHiddenBackward;
using patchwise::PatchwiseHiddenForward;
using patchwise::Pixels;
using patchwise::WritablePixels;

constexpr int64_t kLargestSide = int64_t{1} << 30;

inline Pixels readable(const Tensor& image) {
  return {image.data(), image.pitch()};
}

inline WritablePixels writable(const Tensor& image) {
  return {image.data(), image.pitch()};
}

inline bool is_half_type(ScalarType type) {
  return type == ScalarType::kFloat16 || type == ScalarType::kBfloat16;
}

// What the tensors of an op have in common with `image`, one of them: others of
// its type, and hidden and parameters, of its accumulator's.
inline void check_kind(const Tensor& image,
                       const std::vector<const Tensor*>& images,
                       const std::vector<const Tensor*>& others) {
  const bool is_half = is_half_type(image.type());
  for (const Tensor* other : images) other->require_same_kind(image);
  for (const Tensor* other : others)
    is_half ? other->require_kind(ScalarType::kFloat32, image)
            : other->require_same_kind(image);
}

// What a backward pass needs on CUDA; nothing where there are no kernels.
template <typename Task>
int64_t workspace_size(const Task& task) {
#ifdef SAN_NO_CUDA
  (void)task;
  return 0;
#else
  return patchwise::workspace_elements(task);
#endif
}

// What a task needs by tensor cores, in elements of float32; -1 where they do
// not take it. `image` is one of its images.
template <typename Task>
int64_t tensor_workspace_size(const Tensor& image, const Task& task) {
#ifdef SAN_NO_CUDA
  (void)image, (void)task;
  return -1;
#else
  const CudaDeviceGuard guard(image.device_id());
  const int64_t bytes = patchwise::tensor_workspace(task);
  return bytes < 0 ? -1 : (bytes + 3) / 4;
#endif
}

inline PatchwiseHiddenForward& forward_of(PatchwiseHiddenForward& task) {
  return task;
}
inline PatchwiseCoreForward& forward_of(PatchwiseCoreForward& task) {
  return task;
}
template <typename Task>
auto& forward_of(Task& task) {
  return task.forward;
}

inline int64_t plain_workspace_size(const PatchwiseHiddenForward&) { return 0; }
inline int64_t plain_workspace_size(const PatchwiseCoreForward&) { return 0; }
template <typename Task>
int64_t plain_workspace_size(const Task& task) {
  return workspace_size(task.forward);
}

// What the caller asks for: kernels for tensor cores, or the others; how exact
// the first are of float32, and their memory.
struct Kernels {
  bool tensor_cores, allow_tf32;
  py::handle workspace;
};

class PatchwiseCall : public Call {
 public:
  PatchwiseCall(const char* op, uintptr_t stream)
      : Call(op, stream_of(stream)) {}

  // The gradient of an image [N, H, W, C] of adjacent channels.
  WritablePixels pixel_gradient(const char* name, py::handle object,
                                const Tensor& of) {
    return writable(gradient(name, object, of, Accepts::kPixels));
  }

  // Not all types and sizes are for tensor cores.
  template <typename Task>
  void run_by_kernels(const Tensor& image, const Kernels& kernels, Task& task) {
    const bool tensor_cores = kernels.tensor_cores;
    forward_of(task).tensor_cores = tensor_cores;
    forward_of(task).allow_tf32 = kernels.allow_tf32;
    if (tensor_cores && !image.on_cuda())
      refuse("tensor_cores", "be False on the CPU", "True");
    if (!tensor_cores && image.on_cuda() && is_half_type(image.type()))
      refuse("tensors", "be float32 or float64 on CUDA without tensor_cores",
             "a half type");
    const int64_t elements = tensor_cores ? tensor_workspace_size(image, task)
                                          : plain_workspace_size(task);
    if (elements < 0)
      refuse(
          "tensor_cores",
          "be False for a type or sizes without a patchwise_tensor_workspace",
          "True");
    if (elements > 0 || tensor_cores)
      task.workspace =
          workspace(kernels.workspace, elements,
                    tensor_cores ? ScalarType::kFloat32 : image.type(), image);
    run(image, task);
  }
};

inline Window same_window(const char* op, const char* name, int64_t height,
                          int64_t width, int64_t kernel_size) {
  if (height < 1 || width < 1 || height > kLargestSide || width > kLargestSide)
    fail(op, name, "have a height and width from 1 to 2^30",
         std::to_string(height) + " x " + std::to_string(width));
  if (kernel_size < 1 || kernel_size % 2 == 0 ||
      kernel_size > kLargestFootprint)
    fail(op, "kernel_size",
         "be odd, from 1 to " + std::to_string(kLargestFootprint),
         std::to_string(kernel_size));
  const auto axis = [&](int64_t size) {
    return Axis{
        size, size, kernel_size, 1, kernel_size / 2, 1, PaddingMode::kReflect};
  };
  return {axis(height), axis(width)};
}

inline void require_least(const char* op, const char* name, int64_t value,
                          int64_t least) {
  if (value < least)
    fail(op, name, "be at least " + std::to_string(least),
         std::to_string(value));
}

}  // namespace
}  // namespace san

#endif  // CUDA_KERNELS_PATCHWISE_ARGUMENTS_H_
