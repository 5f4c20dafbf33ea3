// A checked, borrowed view of a Python tensor (anything that speaks DLPack).
#ifndef CUDA_KERNELS_BINDING_TENSOR_H_
#define CUDA_KERNELS_BINDING_TENSOR_H_

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <string>

#include "cuda_kernels/binding/dlpack.h"
#include "cuda_kernels/layout.h"
#include "cuda_kernels/scalar_types.h"

namespace san {

enum class Access { kRead, kWrite };
enum class Accepts {
  kRowMajor,
  kBothLayouts,  // or channels-last
  kPixels        // [N, H, W, C], perhaps some of the channels of an image
};

// Four dimensions, aligned, of a known scalar type, on the CPU or a CUDA
// device, in a layout that is accepted. There are no gaps but between pixels:
// theirs are the channels of the image that this one is a part of. The capsule
// keeps the memory alive; nothing is copied.
class Tensor {
 public:
  // Throws ValueError if `object` is anything else.
  Tensor(const char* op, const char* name, pybind11::handle object,
         Access access, Accepts accepts = Accepts::kRowMajor);

  // Throws ValueError unless the shape is `expected`. `letters` names the
  // dimensions. The widest type, because products of sizes may not fit less.
  void require_shape(const char* letters,
                     const std::array<__int128, 4>& expected) const;
  void require_shape_of(const Tensor& other) const;
  // Throws ValueError unless type and device are those of `other`.
  void require_same_kind(const Tensor& other) const;
  // Throws ValueError unless the type is `type`, whatever that of `other`, and
  // the device that of `other`.
  void require_kind(ScalarType type, const Tensor& other) const;
  // Throws ValueError unless its layout is, or may as well be, that of `other`.
  void require_layout_of(const Tensor& other) const;
  // Throws ValueError if the two share memory.
  void require_apart_from(const Tensor& other) const;

  int64_t size(int dimension) const { return shape_[dimension]; }
  // Elements from one pixel of [N, H, W, C] to the next, if pixels are
  // accepted.
  int64_t pitch() const { return pitch_; }
  bool empty() const { return bytes_ == 0; }
  void* data() const { return data_; }
  ScalarType type() const { return type_; }
  // kRowMajor if both fit.
  Layout layout() const {
    return is_row_major_ ? Layout::kRowMajor : Layout::kChannelsLast;
  }
#ifdef SAN_EMULATED_CUDA
  // The emulated device (tests/emulated_cuda) is the CPU.
  bool on_cuda() const { return true; }
#else
  bool on_cuda() const { return device_.type == dlpack::kCuda; }
#endif
  int device_id() const { return device_.id; }

 private:
  const dlpack::Tensor& open(pybind11::handle object, Access access);
  // The capsule that __dlpack__ gives.
  pybind11::object called(pybind11::handle object, const char* rule) const;
  void require_device_of(const Tensor& other) const;
  void read_type(const dlpack::Tensor& tensor);
  void read_device(const dlpack::Tensor& tensor);
  void read_shape(const dlpack::Tensor& tensor);
  void read_data(const dlpack::Tensor& tensor);
  void read_layout(const dlpack::Tensor& tensor, Accepts accepts);
  bool read_pitch(const int64_t (&strides)[4]);
  [[noreturn]] void reject(const std::string& rule,
                           const std::string& value) const;

  const char* op_;
  const char* name_;
  pybind11::object capsule_;
  std::array<int64_t, 4> shape_;
  int64_t bytes_;  // from the first to the last
  int64_t pitch_ = 0;
  bool is_row_major_, is_channels_last_;
  void* data_;
  ScalarType type_;
  dlpack::Device device_;
};

}  // namespace san

#endif  // CUDA_KERNELS_BINDING_TENSOR_H_
