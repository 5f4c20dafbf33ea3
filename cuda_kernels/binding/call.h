// One call of an operator: its tensors as they are named, and where it runs.
#ifndef CUDA_KERNELS_BINDING_CALL_H_
#define CUDA_KERNELS_BINDING_CALL_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <deque>
#include <string>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/cuda/device.h"

namespace san {

// Keeps the tensors until the call ends, and runs it only if those that are
// written share memory with no other. All throw ValueError.
class Call {
 public:
  // `stream` is a cudaStream_t.
  explicit Call(const char* op, void* stream = nullptr)
      : op_(op), stream_(stream) {}

  const Tensor& read(const char* name, pybind11::handle object,
                     Accepts accepts = Accepts::kRowMajor);
  const Tensor& write(const char* name, pybind11::handle object,
                      Accepts accepts = Accepts::kRowMajor);
  // What is written or, for None, not asked for: null then.
  const Tensor* write_unless_none(const char* name, pybind11::handle object,
                                  Accepts accepts = Accepts::kRowMajor);
  // A gradient, written: like the tensor that it belongs to.
  const Tensor& gradient(const char* name, pybind11::handle object,
                         const Tensor& of,
                         Accepts accepts = Accepts::kRowMajor);

  // Memory [1, 1, 1, n] for partial sums on CUDA; null on the CPU.
  void* workspace(pybind11::handle object, int64_t elements, ScalarType type,
                  const Tensor& like);

  // Lets a tensor that is written be the very memory of one that is read.
  void may_be(const Tensor& written, const Tensor& other);
  void check_memory() const;

  // Runs on_cpu() or on_cuda(stream), where `like` lies.
  template <typename OnCpu, typename OnCuda>
  void run_by(const Tensor& like, const OnCpu& on_cpu,
              const OnCuda& on_cuda) const {
    check_memory();
    if (!like.on_cuda()) {
      const pybind11::gil_scoped_release without_gil;
      return on_cpu();
    }
#ifdef SAN_NO_CUDA
    (void)on_cuda;
    refuse("tensors", "be on the CPU, for this build has no CUDA kernels",
           "cuda:" + std::to_string(like.device_id()));
#else
    const pybind11::gil_scoped_release without_gil;
    const CudaDeviceGuard guard(like.device_id());
    on_cuda(stream_);
#endif
  }

  // Calls the overload of run_on_cpu or run_on_cuda beside the task; `more` is
  // what run_on_cuda takes beyond task and stream.
  template <typename Task, typename... More>
  void run(const Tensor& like, const Task& task, More... more) const {
    run_by(
        like, [&] { run_on_cpu(task); },
        [&](auto* stream) { run_on_cuda(task, more..., stream); });
  }

  [[noreturn]] void refuse(const std::string& argument, const std::string& rule,
                           const std::string& value) const {
    fail(op_, argument, rule, value);
  }
  const char* op() const { return op_; }

 private:
  struct Argument {
    Tensor tensor;
    bool is_written;
    const Tensor* may_be = nullptr;
  };

  const char* op_;
  void* stream_;
  std::deque<Argument> arguments_;
};

// The memory of a tensor that may not be there.
inline void* data_of(const Tensor* tensor) {
  return tensor ? tensor->data() : nullptr;
}

// A cudaStream_t as Python hands it over.
inline void* stream_of(uintptr_t number) {
  return reinterpret_cast<void*>(number);
}

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_CALL_H_
