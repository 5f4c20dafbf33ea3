// The arguments that the functions of the fused pairwise attention share, read
// and checked. Tensors have four dimensions as everywhere; of vectors and
// matrices the first are 1.
#ifndef CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_
#define CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_

#include <pybind11/pybind11.h>

#include <string>

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/pairwise/tasks.h"

namespace san {

// What is not a tensor.
struct PairwiseOptions {
  PairwiseOptions(const char* op, pybind11::handle kernel_size,
                  pybind11::handle cuda_stream) {
    const Options options(op, kernel_size, pybind11::int_(1), pybind11::int_(0),
                          pybind11::int_(1), pybind11::str("reflect"),
                          pybind11::str("fast"), cuda_stream);
    if (options.kernel_size % 2 == 0)
      fail(op, "kernel_size", "be odd", std::to_string(options.kernel_size));
    footprint = options.kernel_size;
    stream = options.stream;
  }

  int64_t footprint;
  void* stream;
};

// A call on features, [N, H, W, F] with phi, psi and, where asked for, beta.
class PairwiseCall : public Call {
 public:
  PairwiseCall(const char* op, pybind11::handle features_object,
               const PairwiseOptions& options)
      : Call(op, options.stream),
        footprint_(options.footprint),
        features(read("features", features_object)) {
    const bool pairs =
        features.type() == ScalarType::kBfloat16 && multiplies_bfloat16();
    if (!features.on_cuda() && is_half() && !pairs)
      refuse("features", "be float32 or float64 on the CPU", "a half type");
    if (features.size(1) < 1 || features.size(2) < 1)
      refuse("features", "have a height and width of at least 1",
             std::to_string(features.size(1)) + " x " +
                 std::to_string(features.size(2)));
  }

  // A parameter or what is kept of a pass, of the type that is computed in.
  const Tensor& parameter(const char* name, pybind11::handle object) {
    const Tensor& tensor = read(name, object);
    tensor.require_kind(accumulator(), features);
    return tensor;
  }
  const Tensor& matrix(const char* name, pybind11::handle object,
                       const char* letters, __int128 rows, __int128 columns) {
    const Tensor& tensor = parameter(name, object);
    tensor.require_shape(letters, {1, 1, rows, columns});
    return tensor;
  }
  // A vector of R; the first says how many that is.
  const Tensor& vector(const char* name, pybind11::handle object) {
    const Tensor& tensor = parameter(name, object);
    if (relation_ < 0) relation_ = tensor.size(3);
    tensor.require_shape("[1, 1, 1, R]", {1, 1, 1, relation_});
    return tensor;
  }
  // Sums, written in float64.
  double* sums(const char* name, pybind11::handle object, const char* letters,
               __int128 rows, __int128 columns) {
    const Tensor& tensor = write(name, object);
    tensor.require_kind(ScalarType::kFloat64, features);
    tensor.require_shape(letters, {1, 1, rows, columns});
    return static_cast<double*>(tensor.data());
  }

  // Once a vector has been read.
  pairwise::PairwiseShape shape(int64_t groups = 1) const {
    return shape_of(relation_, groups);
  }
  pairwise::PairwiseShape shape_of(int64_t relation, int64_t groups) const {
    if (relation < 1 || relation > features.size(3) / 2)
      refuse("features",
             "have at least twice the channels of scale, " +
                 std::to_string(relation) + " > 0",
             std::to_string(features.size(3)));
    const int64_t value = features.size(3) - 2 * relation;
    if (groups < 1 || value % groups != 0)
      refuse("w2",
             "have a number of rows that divides the value's channels, " +
                 std::to_string(value),
             std::to_string(groups));
    return {features.size(0),
            features.size(1),
            features.size(2),
            footprint_,
            relation,
            groups,
            value};
  }
  int64_t relation() const { return relation_; }
  __int128 taps() const {
    return static_cast<__int128>(footprint_) * footprint_;
  }
  ScalarType accumulator() const {
    return is_half() ? ScalarType::kFloat32 : features.type();
  }

 private:
  bool is_half() const {
    return features.type() != ScalarType::kFloat32 &&
           features.type() != ScalarType::kFloat64;
  }

  int64_t footprint_, relation_ = -1;

 public:
  const Tensor& features;
};

// A call with all inputs of the attention, which forward and backward share.
class AttentionCall : public PairwiseCall {
 public:
  AttentionCall(const char* op, pybind11::handle features_object,
                pybind11::handle scale_object, pybind11::handle shift_object,
                pybind11::handle table_object, pybind11::handle w1_object,
                pybind11::handle w2_object, const PairwiseOptions& options)
      : PairwiseCall(op, features_object, options),
        scale(vector("scale", scale_object)),
        shift(vector("shift", shift_object)),
        table(
            matrix("table", table_object, "[1, 1, K, R]", taps(), relation())),
        w1(matrix("w1", w1_object, "[1, 1, R, R]", relation(), relation())),
        w2(parameter("w2", w2_object)),
        shape(PairwiseCall::shape(w2.size(2))) {
    w2.require_shape("[1, 1, G, R]", {1, 1, shape.weight_channels, relation()});
  }

  pairwise::PairwiseInputs inputs() const {
    return {features.data(), scale.data(), shift.data(),
            table.data(),    w1.data(),    w2.data()};
  }
  const void* require_log_sum_exp(const Tensor& tensor) const {
    tensor.require_kind(accumulator(), features);
    tensor.require_shape("[N, H, W, G]", {shape.batch, shape.height,
                                          shape.width, shape.weight_channels});
    return tensor.data();
  }
  // The output or its gradient.
  const Tensor& require_output(const Tensor& output) const {
    output.require_same_kind(features);
    output.require_shape("[N, H, W, M]", {shape.batch, shape.height,
                                          shape.width, shape.value_channels});
    return output;
  }

  const Tensor &scale, &shift, &table, &w1, &w2;
  pairwise::PairwiseShape shape;
};

}  // namespace san

#endif  // CUDA_KERNELS_PAIRWISE_ARGUMENTS_H_
