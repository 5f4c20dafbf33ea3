// The part of the DLPack ABI that the binding reads, declared here so that the
// module needs no framework's headers. Layout: dmlc/dlpack, versions 0.x
// and 1.x; the exchange of 1.3.
#ifndef CUDA_KERNELS_BINDING_DLPACK_H_
#define CUDA_KERNELS_BINDING_DLPACK_H_

#include <cstdint>

namespace san::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3 };
enum TypeCode : uint8_t { kFloat = 2, kBfloat = 4 };
constexpr uint64_t kReadOnly = 1, kIsCopied = 2;
constexpr uint32_t kMajorVersion = 1;

struct Device {
  int32_t type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null when dense and row-major
  uint64_t byte_offset;
};

// Content of a capsule named "dltensor".
struct ManagedTensor {
  Tensor tensor;
  void* manager_context;
  void (*deleter)(ManagedTensor*);
};

// Content of a capsule named "dltensor_versioned".
struct ManagedTensorVersioned {
  uint32_t major, minor;
  void* manager_context;
  void (*deleter)(ManagedTensorVersioned*);
  uint64_t flags;
  Tensor tensor;
};

// What a type's capsule "dlpack_exchange_api" holds, as far as it is read.
struct Exchange {
  uint32_t major, minor;
  const Exchange* previous;
  void (*allocate)();
  // 0, or a Python error is set. The first argument is a PyObject*.
  int (*export_managed)(void*, ManagedTensorVersioned**);
};

}  // namespace san::dlpack

#endif  // CUDA_KERNELS_BINDING_DLPACK_H_
