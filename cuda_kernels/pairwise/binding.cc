// Checks the arguments of the fused pairwise attention against each other and
// runs it, on the CPU or on CUDA.
#include "cuda_kernels/pairwise/binding.h"

#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cuda_kernels/binding/dispatch.h"
#include "cuda_kernels/pairwise/arguments.h"
#include "cuda_kernels/pairwise/workspace.h"

namespace py = pybind11;

namespace san {
namespace {

using pairwise::PairwiseShape;

// The workspace of a task: as many elements of float64 as it needs, at
// `workspace`; null on the CPU, which needs none.
template <typename Task>
void* workspace_of(const PairwiseCall& call, const Features& features,
                   py::handle object, const Task& task,
                   const std::vector<const Tensor*>& others) {
  return checked_workspace(call.op, object, pairwise::workspace_elements(task),
                           ScalarType::kFloat64, features, others);
}

template <typename Task, typename... More>
void run(const PairwiseCall& call, const Features& features, const Task& task,
         More... workspace) {
  run_fused(call.op, features, task, call.stream, workspace...);
}

void forward(py::handle features, py::handle scale, py::handle shift,
             py::handle table, py::handle w1, py::handle w2,
             py::handle output_object, py::handle log_sum_exp_object,
             py::handle kernel_size, bool allow_tf32, py::handle stream) {
  const PairwiseCall call("pairwise_forward", kernel_size, stream);
  const PairwiseArguments inputs(call, features, scale, shift, table, w1, w2);
  const Tensor output(call.op, "output", output_object, Access::kWrite);
  inputs.require_output(output);
  inputs.require_apart_from(output);
  std::optional<Tensor> log_sum_exp;
  if (!log_sum_exp_object.is_none()) {
    log_sum_exp.emplace(call.op, "log_sum_exp", log_sum_exp_object,
                        Access::kWrite);
    inputs.require_log_sum_exp(*log_sum_exp);
    inputs.require_apart_from(*log_sum_exp);
    log_sum_exp->require_apart_from(output);
  }
  if (inputs.features.empty()) return;
  run(call, inputs.features,
      pairwise::PairwiseForward{
          output.type(), inputs.shape, inputs.data(), output.data(),
          log_sum_exp ? log_sum_exp->data() : nullptr, allow_tf32});
}

void backward(py::handle grad_output_object, py::handle output_object,
              py::handle log_sum_exp_object, py::handle features,
              py::handle scale, py::handle shift, py::handle table,
              py::handle w1, py::handle w2, py::handle grad_features_object,
              py::handle grad_scale_object, py::handle grad_shift_object,
              py::handle grad_table_object, py::handle grad_w1_object,
              py::handle grad_w2_object, py::handle kernel_size,
              py::handle workspace, py::handle stream) {
  const PairwiseCall call("pairwise_backward", kernel_size, stream);
  const PairwiseArguments inputs(call, features, scale, shift, table, w1, w2);
  const Tensor grad_output(call.op, "grad_output", grad_output_object,
                           Access::kRead);
  inputs.require_output(grad_output);
  const Tensor output(call.op, "output", output_object, Access::kRead);
  inputs.require_output(output);
  const Tensor log_sum_exp(call.op, "log_sum_exp", log_sum_exp_object,
                           Access::kRead);
  inputs.require_log_sum_exp(log_sum_exp);
  const Tensor grad_features(call.op, "grad_features", grad_features_object,
                             Access::kWrite);
  const Tensor grad_scale(call.op, "grad_scale", grad_scale_object,
                          Access::kWrite);
  const Tensor grad_shift(call.op, "grad_shift", grad_shift_object,
                          Access::kWrite);
  const Tensor grad_table(call.op, "grad_table", grad_table_object,
                          Access::kWrite);
  const Tensor grad_w1(call.op, "grad_w1", grad_w1_object, Access::kWrite);
  const Tensor grad_w2(call.op, "grad_w2", grad_w2_object, Access::kWrite);
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
    require_apart(*grad, {&grad_output, &output, &log_sum_exp});
    inputs.require_apart_from(*grad);
    for (const auto& [other, _] : pairs)
      if (other != grad) grad->require_apart_from(*other);
  }
  const pairwise::PairwiseBackward task = {
      grad_output.type(),   inputs.shape,      inputs.data(),
      grad_output.data(),   output.data(),     log_sum_exp.data(),
      grad_features.data(), grad_scale.data(), grad_shift.data(),
      grad_table.data(),    grad_w1.data(),    grad_w2.data()};
  run(call, inputs.features, task,
      workspace_of(
          call, inputs.features, workspace, task,
          {&grad_output, &output, &log_sum_exp, &inputs.features, &inputs.scale,
           &inputs.shift, &inputs.table, &inputs.w1, &inputs.w2, &grad_features,
           &grad_scale, &grad_shift, &grad_table, &grad_w1, &grad_w2}));
}

// The shape of a task on features and some vectors of R channels.
PairwiseShape relation_shape(const PairwiseCall& call, const Features& features,
                             std::initializer_list<const Tensor*> vectors) {
  const int64_t R = (*vectors.begin())->size(3);
  for (const Tensor* vector : vectors) {
    features.require_mapping(*vector);
    require_matrix(*vector, "[1, 1, 1, R]", 1, R);
  }
  return features.shape(call, R, 1);
}

void check_grad_features(const Tensor& grad, const Features& features,
                         std::initializer_list<const Tensor*> others) {
  grad.require_same_kind(features);
  grad.require_shape_of(features);
  grad.require_apart_from(features);
  require_apart(grad, others);
}

void difference(py::handle features_object, py::handle centre_object,
                py::handle level_object, py::handle first_object,
                py::handle second_object, py::handle kernel_size,
                py::handle workspace, py::handle stream) {
  const PairwiseCall call("pairwise_difference", kernel_size, stream);
  const Features features(call, features_object);
  const Tensor centre(call.op, "centre", centre_object, Access::kRead);
  const Tensor level(call.op, "level", level_object, Access::kRead);
  const Tensor first(call.op, "first", first_object, Access::kWrite);
  const Tensor second(call.op, "second", second_object, Access::kWrite);
  const PairwiseShape shape = relation_shape(call, features, {&centre, &level});
  first.require_kind(ScalarType::kFloat64, features);
  second.require_same_kind(first);
  first.require_apart_from(second);
  for (const Tensor* output : {&first, &second}) {
    require_matrix(*output, "[1, 1, 1, R]", 1, shape.relation_channels);
    require_apart(*output, {&features, &centre, &level});
  }
  const pairwise::PairwiseDifference task = {
      features.type(),
      shape,
      features.data(),
      centre.data(),
      level.data(),
      static_cast<double*>(first.data()),
      static_cast<double*>(second.data())};
  run(call, features, task,
      workspace_of(call, features, workspace, task,
                   {&features, &centre, &level, &first, &second}));
}

void difference_backward(py::handle features_object, py::handle constant_object,
                         py::handle slope_object,
                         py::handle grad_features_object,
                         py::handle kernel_size, py::handle stream) {
  const PairwiseCall call("pairwise_difference_backward", kernel_size, stream);
  const Features features(call, features_object);
  const Tensor constant(call.op, "constant", constant_object, Access::kRead);
  const Tensor slope(call.op, "slope", slope_object, Access::kRead);
  const Tensor grad_features(call.op, "grad_features", grad_features_object,
                             Access::kWrite);
  const PairwiseShape shape =
      relation_shape(call, features, {&constant, &slope});
  check_grad_features(grad_features, features, {&constant, &slope});
  run(call, features,
      pairwise::PairwiseDifferenceBackward{features.type(), shape,
                                           features.data(), constant.data(),
                                           slope.data(), grad_features.data()});
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
             py::handle kernel_size, py::handle workspace, py::handle stream) {
  const PairwiseCall call("pairwise_moments", kernel_size, stream);
  const Features features(call, features_object);
  const Tensor scale(call.op, "scale", scale_object, Access::kRead);
  const Tensor shift(call.op, "shift", shift_object, Access::kRead);
  const Tensor centre(call.op, "centre", centre_object, Access::kRead);
  const Tensor first(call.op, "first", first_object, Access::kWrite);
  const Tensor second(call.op, "second", second_object, Access::kWrite);
  const PairwiseShape shape =
      relation_shape(call, features, {&scale, &shift, &centre});
  check_moments(first, second, shape);
  first.require_kind(ScalarType::kFloat64, features);
  first.require_apart_from(second);
  for (const Tensor* output : {&first, &second})
    require_apart(*output, {&features, &scale, &shift, &centre});
  const pairwise::PairwiseMoments task = {features.type(),
                                          shape,
                                          features.data(),
                                          scale.data(),
                                          shift.data(),
                                          centre.data(),
                                          static_cast<double*>(first.data()),
                                          static_cast<double*>(second.data())};
  run(call, features, task,
      workspace_of(call, features, workspace, task,
                   {&features, &scale, &shift, &centre, &first, &second}));
}

void moments_backward(py::handle grad_first_object,
                      py::handle grad_second_object, py::handle features_object,
                      py::handle scale_object, py::handle shift_object,
                      py::handle grad_features_object,
                      py::handle grad_scale_object,
                      py::handle grad_shift_object, py::handle kernel_size,
                      py::handle workspace, py::handle stream) {
  const PairwiseCall call("pairwise_moments_backward", kernel_size, stream);
  const Tensor grad_first(call.op, "grad_first", grad_first_object,
                          Access::kRead);
  const Tensor grad_second(call.op, "grad_second", grad_second_object,
                           Access::kRead);
  const Features features(call, features_object);
  const Tensor scale(call.op, "scale", scale_object, Access::kRead);
  const Tensor shift(call.op, "shift", shift_object, Access::kRead);
  const Tensor grad_features(call.op, "grad_features", grad_features_object,
                             Access::kWrite);
  const PairwiseShape shape = relation_shape(call, features, {&scale, &shift});
  check_moments(grad_first, grad_second, shape);
  features.require_mapping(grad_first);
  check_grad_features(grad_features, features,
                      {&grad_first, &grad_second, &scale, &shift});
  const Tensor grad_scale(call.op, "grad_scale", grad_scale_object,
                          Access::kWrite);
  const Tensor grad_shift(call.op, "grad_shift", grad_shift_object,
                          Access::kWrite);
  grad_scale.require_apart_from(grad_shift);
  for (const Tensor* grad : {&grad_scale, &grad_shift}) {
    grad->require_same_kind(scale);
    grad->require_shape_of(scale);
    require_apart(*grad, {&grad_first, &grad_second, &features, &scale, &shift,
                          &grad_features});
  }
  const pairwise::PairwiseMomentsBackward task = {
      features.type(),    shape,
      features.data(),    scale.data(),
      shift.data(),       grad_first.data(),
      grad_second.data(), grad_features.data(),
      grad_scale.data(),  grad_shift.data()};
  run(call, features, task,
      workspace_of(call, features, workspace, task,
                   {&grad_first, &grad_second, &features, &scale, &shift,
                    &grad_features, &grad_scale, &grad_shift}));
}

int64_t workspace_elements(const std::string& name, py::handle object,
                           int64_t relation_channels, int64_t weight_channels,
                           py::handle kernel_size) {
  const PairwiseCall call("pairwise_workspace", kernel_size, py::int_(0));
  const Features features(call, object);
  const PairwiseShape shape =
      features.shape(call, relation_channels, weight_channels);
  const auto elements = [&](auto task) {
    task.type = features.type();
    task.shape = shape;
    return pairwise::workspace_elements(task);
  };
  switch (checked_choice(call.op, "name", py::str(name),
                         {"pairwise_backward", "pairwise_difference",
                          "pairwise_moments", "pairwise_moments_backward"})) {
    case 0:
      return elements(pairwise::PairwiseBackward());
    case 1:
      return elements(pairwise::PairwiseDifference());
    case 2:
      return elements(pairwise::PairwiseMoments());
    default:
      return elements(pairwise::PairwiseMomentsBackward());
  }
}

}  // namespace

void define_pairwise(py::module_& module) {
  const auto only = py::kw_only();
  const auto arg = [](const char* name) { return py::arg(name); };
  const auto stream = py::arg("stream") = 0;
  const auto workspace = py::arg("workspace") = py::none();
  const auto allow_tf32 = py::arg("allow_tf32") = false;
  module.def("pairwise_forward", &forward,
             "Writes the attention of features into output and, unless it is "
             "None, the logarithms of its softmax's denominators.",
             arg("features"), arg("scale"), arg("shift"), arg("table"),
             arg("w1"), arg("w2"), arg("output"), arg("log_sum_exp"), only,
             arg("kernel_size"), allow_tf32, stream);
  module.def("pairwise_backward", &backward,
             "Writes the gradients of pairwise_forward.", arg("grad_output"),
             arg("output"), arg("log_sum_exp"), arg("features"), arg("scale"),
             arg("shift"), arg("table"), arg("w1"), arg("w2"),
             arg("grad_features"), arg("grad_scale"), arg("grad_shift"),
             arg("grad_table"), arg("grad_w1"), arg("grad_w2"), only,
             arg("kernel_size"), workspace, stream);
  module.def("pairwise_difference", &difference,
             "Writes the float64 sums of phi - psi - centre and its squares.",
             arg("features"), arg("centre"), arg("level"), arg("first"),
             arg("second"), only, arg("kernel_size"), workspace, stream);
  module.def("pairwise_difference_backward", &difference_backward,
             "Writes the gradient of pairwise_difference.", arg("features"),
             arg("constant"), arg("slope"), arg("grad_features"), only,
             arg("kernel_size"), stream);
  module.def("pairwise_moments", &moments,
             "Writes the float64 moments of the relation.", arg("features"),
             arg("scale"), arg("shift"), arg("centre"), arg("first"),
             arg("second"), only, arg("kernel_size"), workspace, stream);
  module.def("pairwise_moments_backward", &moments_backward,
             "Writes the gradient of pairwise_moments.", arg("grad_first"),
             arg("grad_second"), arg("features"), arg("scale"), arg("shift"),
             arg("grad_features"), arg("grad_scale"), arg("grad_shift"), only,
             arg("kernel_size"), workspace, stream);
  module.def("pairwise_workspace", &workspace_elements,
             "The float64 elements of workspace that a function of this module "
             "needs for features on CUDA.",
             arg("name"), arg("features"), arg("relation_channels"),
             arg("weight_channels"), only, arg("kernel_size"));
}

}  // namespace san
