#include "cuda_kernels/binding/tensor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "cuda_kernels/binding/errors.h"

namespace py = pybind11;

namespace san {
namespace {

// Decimal digits; a product of two sizes may need more than 64 bits.
std::string text(__int128 value) {
  if (value < 0) return "-" + text(-value);
  if (value < 10) return std::string(1, static_cast<char>('0' + value));
  return text(value / 10) + text(value % 10);
}

template <typename Sizes>
std::string shape_text(const Sizes& sizes) {
  std::string result = "[";
  for (const auto& size : sizes)
    result += (result.size() > 1 ? ", " : "") + text(size);
  return result + "]";
}

std::string device_text(dlpack::Device device) {
  if (device.type == dlpack::kCpu || device.type == dlpack::kCudaHost)
    return "cpu";
  if (device.type == dlpack::kCuda) return "cuda:" + text(device.id);
  return "DLPack device type " + text(device.type);
}

const char* type_text(ScalarType type) {
  switch (type) {
    case ScalarType::kFloat32:
      return "float32";
    case ScalarType::kFloat64:
      return "float64";
    case ScalarType::kFloat16:
      return "float16";
    case ScalarType::kBfloat16:
      return "bfloat16";
  }
  return "unknown";
}

int64_t item_bytes(ScalarType type) {
  if (type == ScalarType::kFloat64) return 8;
  return type == ScalarType::kFloat32 ? 4 : 2;
}

std::string type_name(py::handle object) {
  return Py_TYPE(object.ptr())->tp_name;
}

// CUDA tensors: the caller passes the stream to work on, so the exporter must
// not synchronise (stream=-1). CPU exporters take no stream.
py::object call_dlpack(py::handle object) {
  const auto device = py::cast<std::pair<int64_t, int64_t>>(
      py::tuple(object.attr("__dlpack_device__")()));
  py::dict arguments;
  if (device.first == dlpack::kCuda) arguments["stream"] = -1;
  const py::object method = object.attr("__dlpack__");
  try {
    return method(**arguments, py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    // Exporters older than DLPack 1.0 do not know max_version.
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return method(**arguments);
}

// The exchange that a type itself, not a parent, offers; null if it does not.
// A parent's knows nothing of what a subclass would refuse.
const dlpack::Exchange* exchange_of(PyTypeObject* type) {
  // One type asks for tensor after tensor. It is kept, as nobody else may be
  // given its address.
  static PyTypeObject* last = nullptr;
  static const dlpack::Exchange* exchange = nullptr;
  if (type == last) return exchange;
  const py::handle handle(reinterpret_cast<PyObject*>(type));
  const py::object own = handle.attr("__dict__");
  const char *attribute = "__dlpack_c_exchange_api__",
             *name = "dlpack_exchange_api";
  const dlpack::Exchange* found = nullptr;
  if (own.contains(attribute)) {
    const py::object capsule = own[attribute];
    if (PyCapsule_IsValid(capsule.ptr(), name))
      found = static_cast<const dlpack::Exchange*>(
          PyCapsule_GetPointer(capsule.ptr(), name));
  }
  while (found && found->major != dlpack::kMajorVersion)
    found = found->previous;
  Py_INCREF(type);
  Py_XDECREF(last);
  last = type;
  exchange = found;
  return exchange;
}

void release(PyObject* capsule) {
  auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(
      PyCapsule_GetPointer(capsule, "dltensor_versioned"));
  if (managed->deleter) managed->deleter(managed);
}

// What __dlpack__ gives, in a twentieth of the time; null where that is to say
// what is wrong, or is the only way.
py::object exchanged(py::handle object) {
  const dlpack::Exchange* exchange = exchange_of(Py_TYPE(object.ptr()));
  if (!exchange) return py::object();
  // The exchange exports tensors that __dlpack__ refuses.
  const py::object has_gradient =
      py::getattr(object, "requires_grad", py::bool_(false));
  if (!has_gradient.is(py::bool_(false))) return py::object();
  dlpack::ManagedTensorVersioned* managed = nullptr;
  if (exchange->export_managed(object.ptr(), &managed) != 0) {
    PyErr_Clear();
    return py::object();
  }
  return py::reinterpret_steal<py::object>(
      PyCapsule_New(managed, "dltensor_versioned", &release));
}

}  // namespace

Tensor::Tensor(const char* op, const char* name, py::handle object,
               Access access, Accepts accepts)
    : op_(op), name_(name) {
  const dlpack::Tensor& tensor = open(object, access);
  read_type(tensor);
  read_device(tensor);
  read_shape(tensor);
  read_layout(tensor, accepts);
  read_data(tensor);
}

void Tensor::reject(const std::string& rule, const std::string& value) const {
  fail(op_, name_, rule, value);
}

// Borrowing: the capsule is never renamed, so its own destructor releases the
// tensor when the view goes away.
const dlpack::Tensor& Tensor::open(py::handle object, Access access) {
  const char* rule = "be a tensor that exports DLPack";
  capsule_ = exchanged(object);
  if (!capsule_) capsule_ = called(object, rule);
  if (PyCapsule_IsValid(capsule_.ptr(), "dltensor"))
    return static_cast<dlpack::ManagedTensor*>(
               PyCapsule_GetPointer(capsule_.ptr(), "dltensor"))
        ->tensor;
  const char* versioned = "dltensor_versioned";
  if (!PyCapsule_IsValid(capsule_.ptr(), versioned))
    reject(rule, type_name(object) + " without a fresh DLPack capsule");
  const auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(
      PyCapsule_GetPointer(capsule_.ptr(), versioned));
  if (managed->major != dlpack::kMajorVersion)
    reject("export DLPack 1.x", text(managed->major) + ".x");
  const uint64_t unwritable = dlpack::kReadOnly | dlpack::kIsCopied;
  if (access == Access::kWrite && (managed->flags & unwritable))
    reject("be writable", "a read-only tensor");
  return managed->tensor;
}

py::object Tensor::called(py::handle object, const char* rule) const {
  if (!py::hasattr(object, "__dlpack__") ||
      !py::hasattr(object, "__dlpack_device__"))
    reject(rule, type_name(object));
  try {
    return call_dlpack(object);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    reject(rule, type_name(object) + " (" +
                     py::cast<std::string>(py::str(error.value())) + ")");
  } catch (py::cast_error&) {
    reject(rule, type_name(object) + " with a malformed __dlpack_device__");
  }
}

void Tensor::read_type(const dlpack::Tensor& tensor) {
  const dlpack::DataType dtype = tensor.dtype;
  const bool real = dtype.code == dlpack::kFloat && dtype.lanes == 1;
  if (real && dtype.bits == 32)
    type_ = ScalarType::kFloat32;
  else if (real && dtype.bits == 64)
    type_ = ScalarType::kFloat64;
  else if (real && dtype.bits == 16)
    type_ = ScalarType::kFloat16;
  else if (dtype.code == dlpack::kBfloat && dtype.lanes == 1 &&
           dtype.bits == 16)
    type_ = ScalarType::kBfloat16;
  else
    reject("be float32, float64, float16 or bfloat16",
           "DLPack type code " + text(dtype.code) + " of " + text(dtype.bits) +
               " bits");
}

void Tensor::read_device(const dlpack::Tensor& tensor) {
  device_ = tensor.device;
  if (device_.type == dlpack::kCudaHost) device_ = {dlpack::kCpu, 0};
  if (device_.type == dlpack::kCpu) device_.id = 0;
  if (device_.type != dlpack::kCpu && device_.type != dlpack::kCuda)
    reject("be on the CPU or a CUDA device", device_text(device_));
}

void Tensor::read_shape(const dlpack::Tensor& tensor) {
  if (tensor.ndim != 4)
    reject("have 4 dimensions", text(tensor.ndim) + " dimensions");
  bytes_ = item_bytes(type_);
  bool overflow = false, empty = false;
  for (int i = 0; i < 4; ++i) {
    shape_[i] = tensor.shape[i];
    if (shape_[i] < 0) reject("have sizes of at least 0", text(shape_[i]));
    empty |= shape_[i] == 0;
    overflow |= __builtin_mul_overflow(bytes_, shape_[i], &bytes_);
  }
  if (empty) bytes_ = 0;
  if (overflow && !empty)
    reject("have less than 2^63 bytes", "shape " + shape_text(shape_));
}

void Tensor::read_layout(const dlpack::Tensor& tensor, Accepts accepts) {
  is_row_major_ = is_channels_last_ = true;
  pitch_ = shape_[3];
  if (bytes_ == 0) return;
  // Without strides a tensor is row-major.
  int64_t strides[4] = {shape_[1] * shape_[2] * shape_[3],
                        shape_[2] * shape_[3], shape_[3], 1};
  if (tensor.strides) std::copy_n(tensor.strides, 4, strides);
  const auto is_dense = [&](std::array<int, 4> innermost_first) {
    int64_t expected = 1;
    for (const int i : innermost_first) {
      if (shape_[i] != 1 && strides[i] != expected) return false;
      expected *= shape_[i];
    }
    return true;
  };
  is_row_major_ = is_dense({3, 2, 1, 0});
  is_channels_last_ = is_dense({1, 3, 2, 0});
  if (is_row_major_) return;
  if (accepts == Accepts::kBothLayouts && is_channels_last_) return;
  if (accepts == Accepts::kPixels && read_pitch(strides)) return;
  const char* rules[] = {
      "be dense and row-major (contiguous)",
      "be dense, in row-major order (contiguous) or in channels-last",
      "be [N, H, W, C] with adjacent channels and pixels one distance apart"};
  reject(
      rules[static_cast<int>(accepts)],
      "shape " + shape_text(shape_) + " with strides " + shape_text(strides));
}

// Whether the pixels are one distance apart.
bool Tensor::read_pitch(const int64_t (&strides)[4]) {
  for (int i = 0; i < 3; ++i)
    if (shape_[i] != 1) pitch_ = strides[i];
  if (pitch_ < shape_[3] || (shape_[3] != 1 && strides[3] != 1)) return false;
  __int128 expected = pitch_;
  for (int i = 2; i >= 0; --i) {
    if (shape_[i] != 1 && strides[i] != expected) return false;
    expected *= shape_[i];
  }
  expected -= pitch_ - shape_[3];
  if (expected > INT64_MAX / item_bytes(type_)) return false;
  bytes_ = static_cast<int64_t>(expected) * item_bytes(type_);
  return true;
}

void Tensor::read_data(const dlpack::Tensor& tensor) {
  data_ = static_cast<char*>(tensor.data) + tensor.byte_offset;
  if (bytes_ == 0) return;
  if (tensor.data == nullptr) reject("have memory", "a null data pointer");
  if (reinterpret_cast<uintptr_t>(data_) % item_bytes(type_) != 0)
    reject("be aligned to its element size", "a misaligned data pointer");
}

void Tensor::require_shape(const char* letters,
                           const std::array<__int128, 4>& expected) const {
  for (int i = 0; i < 4; ++i)
    if (shape_[i] != expected[i])
      reject(
          std::string("have shape ") + letters + " = " + shape_text(expected),
          shape_text(shape_));
}

void Tensor::require_shape_of(const Tensor& other) const {
  if (shape_ != other.shape_)
    reject(std::string("have the shape of ") + other.name_ + ", " +
               shape_text(other.shape_),
           shape_text(shape_));
}

void Tensor::require_same_kind(const Tensor& other) const {
  if (type_ != other.type_)
    reject(std::string("have the dtype of ") + other.name_ + ", " +
               type_text(other.type_),
           type_text(type_));
  require_device_of(other);
}

void Tensor::require_kind(ScalarType type, const Tensor& other) const {
  if (type_ != type)
    reject(std::string("be ") + type_text(type) + " where " + other.name_ +
               " is " + type_text(other.type_),
           type_text(type_));
  require_device_of(other);
}

void Tensor::require_device_of(const Tensor& other) const {
  if (device_.type != other.device_.type || device_.id != other.device_.id)
    reject(std::string("be on the device of ") + other.name_ + ", " +
               device_text(other.device_),
           device_text(device_));
}

void Tensor::require_layout_of(const Tensor& other) const {
  const bool row_major = other.layout() == Layout::kRowMajor;
  if (empty() || (row_major ? is_row_major_ : is_channels_last_)) return;
  const std::string names[] = {"channels-last", "row-major"};
  reject(std::string("have the layout of ") + other.name_ + ", " +
             names[row_major],
         names[!row_major]);
}

void Tensor::require_apart_from(const Tensor& other) const {
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  const auto other_begin = reinterpret_cast<uintptr_t>(other.data_);
  bool apart = bytes_ == 0 || other.bytes_ == 0 ||
               begin + bytes_ <= other_begin ||
               other_begin + other.bytes_ <= begin;
  if (!apart && pitch_ == other.pitch_ && type_ == other.type_) {
    // Perhaps other channels of the same pixels.
    const int64_t item = item_bytes(type_), distance = pitch_ * item;
    const auto away = static_cast<int64_t>(other_begin - begin) % distance;
    const int64_t ahead = away < 0 ? away + distance : away;
    apart =
        ahead >= shape_[3] * item && ahead + other.shape_[3] * item <= distance;
  }
  if (!apart)
    reject(std::string("not share memory with ") + other.name_,
           "overlapping tensors");
}

}  // namespace san
