// The arguments that the functions of the fused pairwise attention share, read
// and checked. Tensors have four dimensions as everywhere; of vectors and
// matrices the first are 1.
#ifndef CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_
#define CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/pairwise/tasks.h"

namespace san {

// What is not a tensor.
struct PairwiseCall {
  PairwiseCall(const char* op, pybind11::handle kernel_size,
               pybind11::handle cuda_stream)
      : op(op) {
    const Options options(op, kernel_size, pybind11::int_(1), pybind11::int_(0),
                          pybind11::int_(1), pybind11::str("reflect"),
                          pybind11::str("fast"), cuda_stream);
    if (options.kernel_size % 2 == 0)
      fail(op, "kernel_size", "be odd", std::to_string(options.kernel_size));
    footprint = options.kernel_size;
    stream = options.stream;
  }

  const char* op;
  int64_t footprint;
  void* stream;
};

inline void require_matrix(const Tensor& matrix, const char* letters,
                           __int128 rows, __int128 columns) {
  matrix.require_shape(letters, {1, 1, rows, columns});
}

inline void require_apart(const Tensor& output,
                          std::initializer_list<const Tensor*> others) {
  for (const Tensor* other : others) output.require_apart_from(*other);
}

// The images of a task: [N, H, W, F] with phi, psi and, where asked for, beta.
class Features : public Tensor {
 public:
  Features(const PairwiseCall& call, pybind11::handle object)
      : Tensor(call.op, "features", object, Access::kRead), op_(call.op) {
    if (!on_cuda() && half())
      fail(op_, "features", "be float32 or float64 on the CPU", "a half type");
    if (size(1) < 1 || size(2) < 1)
      fail(op_, "features", "have a height and width of at least 1",
           std::to_string(size(1)) + " x " + std::to_string(size(2)));
  }

  // A mapping, a vector or a matrix has the type that they are computed in.
  void require_mapping(const Tensor& tensor) const {
    tensor.require_kind(half() ? ScalarType::kFloat32 : type(), *this);
  }

  pairwise::PairwiseShape shape(const PairwiseCall& call, int64_t relation,
                                int64_t groups) const {
    if (relation < 1 || relation > size(3) / 2)
      fail(op_, "features",
           "have at least twice the channels of scale, " +
               std::to_string(relation) + " > 0",
           std::to_string(size(3)));
    const int64_t value = size(3) - 2 * relation;
    if (groups < 1 || value % groups != 0)
      fail(op_, "w2",
           "have a number of rows that divides the value's channels, " +
               std::to_string(value),
           std::to_string(groups));
    return {size(0), size(1), size(2), call.footprint, relation, groups, value};
  }

 private:
  bool half() const {
    return type() != ScalarType::kFloat32 && type() != ScalarType::kFloat64;
  }

  const char* op_;
};

// The inputs that forward and backward share.
struct PairwiseArguments {
  PairwiseArguments(const PairwiseCall& call, pybind11::handle features_object,
                    pybind11::handle scale_object,
                    pybind11::handle shift_object,
                    pybind11::handle table_object, pybind11::handle w1_object,
                    pybind11::handle w2_object)
      : features(call, features_object),
        scale(call.op, "scale", scale_object, Access::kRead),
        shift(call.op, "shift", shift_object, Access::kRead),
        table(call.op, "table", table_object, Access::kRead),
        w1(call.op, "w1", w1_object, Access::kRead),
        w2(call.op, "w2", w2_object, Access::kRead),
        shape(features.shape(call, scale.size(3), w2.size(2))) {
    const int64_t R = shape.relation_channels;
    for (const Tensor* tensor : {&scale, &shift, &table, &w1, &w2})
      features.require_mapping(*tensor);
    require_matrix(scale, "[1, 1, 1, R]", 1, R);
    require_matrix(shift, "[1, 1, 1, R]", 1, R);
    require_matrix(table, "[1, 1, K, R]",
                   static_cast<__int128>(shape.kernel_size) * shape.kernel_size,
                   R);
    require_matrix(w1, "[1, 1, R, R]", R, R);
    require_matrix(w2, "[1, 1, G, R]", shape.weight_channels, R);
  }

  pairwise::PairwiseInputs data() const {
    return {features.data(), scale.data(), shift.data(),
            table.data(),    w1.data(),    w2.data()};
  }
  void require_apart_from(const Tensor& output) const {
    require_apart(output, {&features, &scale, &shift, &table, &w1, &w2});
  }
  void require_log_sum_exp(const Tensor& tensor) const {
    features.require_mapping(tensor);
    tensor.require_shape("[N, H, W, G]", {shape.batch, shape.height,
                                          shape.width, shape.weight_channels});
  }
  // The shape of the output or its gradient.
  void require_output(const Tensor& output) const {
    output.require_same_kind(features);
    output.require_shape("[N, H, W, M]", {shape.batch, shape.height,
                                          shape.width, shape.value_channels});
  }

  Features features;
  Tensor scale, shift, table, w1, w2;
  pairwise::PairwiseShape shape;
};

}  // namespace san

#endif  // CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_
