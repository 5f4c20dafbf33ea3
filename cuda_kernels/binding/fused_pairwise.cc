// Checks the arguments of the fused pairwise attention and runs it. Its tensors
// have four dimensions as everywhere; of vectors and matrices the first are 1.
#include "cuda_kernels/binding/fused_pairwise.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/fused/pairwise.h"

namespace py = pybind11;

namespace san {
namespace {

using fused::PairwiseShape;

int64_t footprint(const char* op, py::handle kernel_size) {
  const Options options(op, kernel_size, py::int_(1), py::int_(0), py::int_(1),
                        py::str("reflect"), py::str("fast"), py::int_(0));
  if (options.kernel_size % 2 == 0)
    fail(op, "kernel_size", "be odd", std::to_string(options.kernel_size));
  return options.kernel_size;
}

void require_matrix(const Tensor& matrix, const char* letters, __int128 rows,
                    __int128 columns) {
  matrix.require_shape(letters, {1, 1, rows, columns});
}

// The images of a task: [N, H, W, F] with phi, psi and, where asked for, beta.
class Features : public Tensor {
 public:
  Features(const char* op, py::handle object)
      : Tensor(op, "features", object, Access::kRead), op_(op) {
    if (on_cuda())
      fail(op, "features", "be on the CPU",
           "cuda:" + std::to_string(device_id()));
    if (type() != ScalarType::kFloat32 && type() != ScalarType::kFloat64)
      fail(op, "features", "be float32 or float64", "a half type");
    if (size(1) < 1 || size(2) < 1)
      fail(op, "features", "have a height and width of at least 1",
           std::to_string(size(1)) + " x " + std::to_string(size(2)));
  }

  PairwiseShape shape(int64_t kernel_size, int64_t relation,
                      int64_t groups) const {
    const int64_t value = size(3) - 2 * relation;
    if (relation < 1 || value < 0)
      fail(op_, "features",
           "have at least twice the channels of scale, " +
               std::to_string(relation) + " > 0",
           std::to_string(size(3)));
    if (groups < 1 || value % groups != 0)
      fail(op_, "w2",
           "have a number of rows that divides the value's channels, " +
               std::to_string(value),
           std::to_string(groups));
    return {size(0), size(1), size(2), kernel_size, relation, groups, value};
  }

 private:
  const char* op_;
};

void check_output(const Tensor& output,
                  std::initializer_list<const Tensor*> others) {
  for (const Tensor* other : others) output.require_apart_from(*other);
}

// The inputs that forward and backward share.
struct Inputs {
  Inputs(const char* op, py::handle kernel_size, py::handle features_object,
         py::handle scale_object, py::handle shift_object,
         py::handle table_object, py::handle w1_object, py::handle w2_object)
      : features(op, features_object),
        scale(op, "scale", scale_object, Access::kRead),
        shift(op, "shift", shift_object, Access::kRead),
        table(op, "table", table_object, Access::kRead),
        w1(op, "w1", w1_object, Access::kRead),
        w2(op, "w2", w2_object, Access::kRead),
        shape(features.shape(footprint(op, kernel_size), scale.size(3),
                             w2.size(2))) {
    const int64_t R = shape.relation_channels;
    for (const Tensor* tensor : {&scale, &shift, &table, &w1, &w2})
      tensor->require_same_kind(features);
    require_matrix(scale, "[1, 1, 1, R]", 1, R);
    require_matrix(shift, "[1, 1, 1, R]", 1, R);
    require_matrix(table, "[1, 1, K, R]",
                   static_cast<__int128>(shape.kernel_size) * shape.kernel_size,
                   R);
    require_matrix(w1, "[1, 1, R, R]", R, R);
    require_matrix(w2, "[1, 1, G, R]", shape.weight_channels, R);
  }

  fused::PairwiseInputs data() const {
    return {features.data(), scale.data(), shift.data(),
            table.data(),    w1.data(),    w2.data()};
  }
  void require_apart(const Tensor& output) const {
    check_output(output, {&features, &scale, &shift, &table, &w1, &w2});
  }
  // The shape of the output or its gradient.
  void require_output(const Tensor& output) const {
    output.require_same_kind(features);
    output.require_shape("[N, H, W, M]", {shape.batch, shape.height,
                                          shape.width, shape.value_channels});
  }

  Features features;
  Tensor scale, shift, table, w1, w2;
  PairwiseShape shape;
};

template <typename Task>
void run(const Task& task) {
  const py::gil_scoped_release without_gil;
  fused::run_on_cpu(task);
}

void forward(py::handle features, py::handle scale, py::handle shift,
             py::handle table, py::handle w1, py::handle w2,
             py::handle output_object, py::handle kernel_size) {
  const char* op = "pairwise_forward";
  const Inputs inputs(op, kernel_size, features, scale, shift, table, w1, w2);
  const Tensor output(op, "output", output_object, Access::kWrite);
  inputs.require_output(output);
  inputs.require_apart(output);
  if (output.empty()) return;
  run(fused::PairwiseForward{output.type(), inputs.shape, inputs.data(),
                             output.data()});
}

void backward(py::handle grad_output_object, py::handle features,
              py::handle scale, py::handle shift, py::handle table,
              py::handle w1, py::handle w2, py::handle grad_features_object,
              py::handle grad_scale_object, py::handle grad_shift_object,
              py::handle grad_table_object, py::handle grad_w1_object,
              py::handle grad_w2_object, py::handle kernel_size) {
  const char* op = "pairwise_backward";
  const Inputs inputs(op, kernel_size, features, scale, shift, table, w1, w2);
  const Tensor grad_output(op, "grad_output", grad_output_object,
                           Access::kRead);
  inputs.require_output(grad_output);
  const Tensor grad_features(op, "grad_features", grad_features_object,
                             Access::kWrite);
  const Tensor grad_scale(op, "grad_scale", grad_scale_object, Access::kWrite);
  const Tensor grad_shift(op, "grad_shift", grad_shift_object, Access::kWrite);
  const Tensor grad_table(op, "grad_table", grad_table_object, Access::kWrite);
  const Tensor grad_w1(op, "grad_w1", grad_w1_object, Access::kWrite);
  const Tensor grad_w2(op, "grad_w2", grad_w2_object, Access::kWrite);
  const std::pair<const Tensor*, const Tensor*> pairs[] = {
      {&grad_features, &inputs.features},
      {&grad_scale, &inputs.scale},
      {&grad_shift, &inputs.shift},
      {&grad_table, &inputs.table},
      {&grad_w1, &inputs.w1},
      {&grad_w2, &inputs.w2}};
  for (const auto& [grad, of] : pairs) {
    grad->require_same_kind(*of);
    grad->require_shape_of(*of);
    grad->require_apart_from(grad_output);
    inputs.require_apart(*grad);
    for (const auto& [other, _] : pairs)
      if (other != grad) grad->require_apart_from(*other);
  }
  run(fused::PairwiseBackward{
      grad_output.type(), inputs.shape, inputs.data(), grad_output.data(),
      grad_features.data(), grad_scale.data(), grad_shift.data(),
      grad_table.data(), grad_w1.data(), grad_w2.data()});
}

// The shape of a task on features and some vectors of R channels.
PairwiseShape relation_shape(const char* op, py::handle kernel_size,
                             const Features& features,
                             std::initializer_list<const Tensor*> vectors) {
  const int64_t R = (*vectors.begin())->size(3);
  for (const Tensor* vector : vectors) {
    vector->require_same_kind(features);
    require_matrix(*vector, "[1, 1, 1, R]", 1, R);
  }
  return features.shape(footprint(op, kernel_size), R, 1);
}

void require_float64(const char* op, const char* name, const Tensor& tensor) {
  if (tensor.type() != ScalarType::kFloat64 || tensor.on_cuda())
    fail(op, name, "be float64 on the CPU", "another type or device");
}

void check_grad_features(const Tensor& grad, const Features& features,
                         std::initializer_list<const Tensor*> others) {
  grad.require_same_kind(features);
  grad.require_shape_of(features);
  grad.require_apart_from(features);
  check_output(grad, others);
}

void difference(py::handle features_object, py::handle centre_object,
                py::handle first_object, py::handle second_object,
                py::handle kernel_size) {
  const char* op = "pairwise_difference";
  const Features features(op, features_object);
  const Tensor centre(op, "centre", centre_object, Access::kRead);
  const Tensor first(op, "first", first_object, Access::kWrite);
  const Tensor second(op, "second", second_object, Access::kWrite);
  const PairwiseShape shape =
      relation_shape(op, kernel_size, features, {&centre});
  require_float64(op, "first", first);
  second.require_same_kind(first);
  first.require_apart_from(second);
  for (const Tensor* output : {&first, &second}) {
    require_matrix(*output, "[1, 1, 1, R]", 1, shape.relation_channels);
    check_output(*output, {&features, &centre});
  }
  run(fused::PairwiseDifference{
      features.type(), shape, features.data(), centre.data(),
      static_cast<double*>(first.data()), static_cast<double*>(second.data())});
}

void difference_backward(py::handle features_object, py::handle constant_object,
                         py::handle slope_object,
                         py::handle grad_features_object,
                         py::handle kernel_size) {
  const char* op = "pairwise_difference_backward";
  const Features features(op, features_object);
  const Tensor constant(op, "constant", constant_object, Access::kRead);
  const Tensor slope(op, "slope", slope_object, Access::kRead);
  const Tensor grad_features(op, "grad_features", grad_features_object,
                             Access::kWrite);
  const PairwiseShape shape =
      relation_shape(op, kernel_size, features, {&constant, &slope});
  check_grad_features(grad_features, features, {&constant, &slope});
  run(fused::PairwiseDifferenceBackward{features.type(), shape, features.data(),
                                        constant.data(), slope.data(),
                                        grad_features.data()});
}

void check_moments(const Tensor& first, const Tensor& second,
                   const PairwiseShape& shape) {
  require_matrix(first, "[1, 1, K, R]",
                 static_cast<__int128>(shape.kernel_size) * shape.kernel_size,
                 shape.relation_channels);
  require_matrix(second, "[1, 1, R, R]", shape.relation_channels,
                 shape.relation_channels);
  second.require_same_kind(first);
}

void moments(py::handle features_object, py::handle scale_object,
             py::handle shift_object, py::handle centre_object,
             py::handle first_object, py::handle second_object,
             py::handle kernel_size) {
  const char* op = "pairwise_moments";
  const Features features(op, features_object);
  const Tensor scale(op, "scale", scale_object, Access::kRead);
  const Tensor shift(op, "shift", shift_object, Access::kRead);
  const Tensor centre(op, "centre", centre_object, Access::kRead);
  const Tensor first(op, "first", first_object, Access::kWrite);
  const Tensor second(op, "second", second_object, Access::kWrite);
  const PairwiseShape shape =
      relation_shape(op, kernel_size, features, {&scale, &shift, &centre});
  check_moments(first, second, shape);
  require_float64(op, "first", first);
  first.require_apart_from(second);
  for (const Tensor* output : {&first, &second})
    check_output(*output, {&features, &scale, &shift, &centre});
  run(fused::PairwiseMoments{features.type(), shape, features.data(),
                             scale.data(), shift.data(), centre.data(),
                             static_cast<double*>(first.data()),
                             static_cast<double*>(second.data())});
}

void moments_backward(py::handle grad_first_object,
                      py::handle grad_second_object, py::handle features_object,
                      py::handle scale_object, py::handle shift_object,
                      py::handle grad_features_object,
                      py::handle grad_scale_object,
                      py::handle grad_shift_object, py::handle kernel_size) {
  const char* op = "pairwise_moments_backward";
  const Tensor grad_first(op, "grad_first", grad_first_object, Access::kRead);
  const Tensor grad_second(op, "grad_second", grad_second_object,
                           Access::kRead);
  const Features features(op, features_object);
  const Tensor scale(op, "scale", scale_object, Access::kRead);
  const Tensor shift(op, "shift", shift_object, Access::kRead);
  const Tensor grad_features(op, "grad_features", grad_features_object,
                             Access::kWrite);
  const PairwiseShape shape =
      relation_shape(op, kernel_size, features, {&scale, &shift});
  check_moments(grad_first, grad_second, shape);
  grad_first.require_same_kind(features);
  check_grad_features(grad_features, features,
                      {&grad_first, &grad_second, &scale, &shift});
  const Tensor grad_scale(op, "grad_scale", grad_scale_object, Access::kWrite);
  const Tensor grad_shift(op, "grad_shift", grad_shift_object, Access::kWrite);
  grad_scale.require_apart_from(grad_shift);
  for (const Tensor* grad : {&grad_scale, &grad_shift}) {
    grad->require_same_kind(features);
    grad->require_shape_of(scale);
    check_output(*grad, {&grad_first, &grad_second, &features, &scale, &shift,
                         &grad_features});
  }
  run(fused::PairwiseMomentsBackward{
      features.type(), shape, features.data(), scale.data(), shift.data(),
      grad_first.data(), grad_second.data(), grad_features.data(),
      grad_scale.data(), grad_shift.data()});
}

}  // namespace

void define_fused_pairwise(py::module_& module) {
  const auto only = py::kw_only();
  const auto arg = [](const char* name) { return py::arg(name); };
  module.def("pairwise_forward", &forward,
             "Writes the attention of features into output.", arg("features"),
             arg("scale"), arg("shift"), arg("table"), arg("w1"), arg("w2"),
             arg("output"), only, arg("kernel_size"));
  module.def("pairwise_backward", &backward,
             "Writes the gradients of pairwise_forward.", arg("grad_output"),
             arg("features"), arg("scale"), arg("shift"), arg("table"),
             arg("w1"), arg("w2"), arg("grad_features"), arg("grad_scale"),
             arg("grad_shift"), arg("grad_table"), arg("grad_w1"),
             arg("grad_w2"), only, arg("kernel_size"));
  module.def("pairwise_difference", &difference,
             "Writes the float64 sums of phi - psi - centre and its squares.",
             arg("features"), arg("centre"), arg("first"), arg("second"), only,
             arg("kernel_size"));
  module.def("pairwise_difference_backward", &difference_backward,
             "Writes the gradient of pairwise_difference.", arg("features"),
             arg("constant"), arg("slope"), arg("grad_features"), only,
             arg("kernel_size"));
  module.def("pairwise_moments", &moments,
             "Writes the float64 moments of the relation.", arg("features"),
             arg("scale"), arg("shift"), arg("centre"), arg("first"),
             arg("second"), only, arg("kernel_size"));
  module.def("pairwise_moments_backward", &moments_backward,
             "Writes the gradient of pairwise_moments.", arg("grad_first"),
             arg("grad_second"), arg("features"), arg("scale"), arg("shift"),
             arg("grad_features"), arg("grad_scale"), arg("grad_shift"), only,
             arg("kernel_size"));
}

}  // namespace san
