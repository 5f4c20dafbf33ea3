// Runs the fused pairwise attention on checked arguments, on the CPU or on
// CUDA.
#include "cuda_kernels/pairwise/binding.h"

#include <string>

#include "cuda_kernels/pairwise/arguments.h"
#include "cuda_kernels/pairwise/workspace.h"

namespace py = pybind11;

namespace san {
namespace {

using pairwise::PairwiseShape;

// Runs a task that needs a workspace of float64 on CUDA.
template <typename Task>
void run_with(py::handle workspace, PairwiseCall& call, const Task& task) {
  const int64_t elements = pairwise::workspace_elements(task);
  call.run(
      call.features, task,
      call.workspace(workspace, elements, ScalarType::kFloat64, call.features));
}

void forward(py::handle features, py::handle scale, py::handle shift,
             py::handle table, py::handle w1, py::handle w2,
             py::handle output_object, py::handle log_sum_exp_object,
             py::handle kernel_size, bool allow_tf32, py::handle stream) {
  const char* op = "pairwise_forward";
  AttentionCall call(op, features, scale, shift, table, w1, w2,
                     PairwiseOptions(op, kernel_size, stream));
  const Tensor& output =
      call.require_output(call.write("output", output_object));
  const Tensor* log_sum_exp =
      call.write_unless_none("log_sum_exp", log_sum_exp_object);
  if (log_sum_exp) call.require_log_sum_exp(*log_sum_exp);
  if (call.features.empty()) return call.check_memory();
  call.run(call.features, pairwise::PairwiseForward{
                              output.type(), call.shape, call.inputs(),
                              output.data(), data_of(log_sum_exp), allow_tf32});
}

void backward(py::handle grad_output_object, py::handle output_object,
              py::handle log_sum_exp, py::handle features, py::handle scale,
              py::handle shift, py::handle table, py::handle w1, py::handle w2,
              py::handle grad_features, py::handle grad_scale,
              py::handle grad_shift, py::handle grad_table, py::handle grad_w1,
              py::handle grad_w2, py::handle kernel_size, py::handle workspace,
              py::handle stream) {
  const char* op = "pairwise_backward";
  AttentionCall call(op, features, scale, shift, table, w1, w2,
                     PairwiseOptions(op, kernel_size, stream));
  const auto output_like = [&](const char* name, py::handle object) {
    return call.require_output(call.read(name, object)).data();
  };
  const auto gradient = [&](const char* name, py::handle object,
                            const Tensor& of) {
    return call.gradient(name, object, of).data();
  };
  run_with(workspace, call,
           pairwise::PairwiseBackward{
               call.features.type(), call.shape, call.inputs(),
               output_like("grad_output", grad_output_object),
               output_like("output", output_object),
               call.require_log_sum_exp(call.read("log_sum_exp", log_sum_exp)),
               gradient("grad_features", grad_features, call.features),
               gradient("grad_scale", grad_scale, call.scale),
               gradient("grad_shift", grad_shift, call.shift),
               gradient("grad_table", grad_table, call.table),
               gradient("grad_w1", grad_w1, call.w1),
               gradient("grad_w2", grad_w2, call.w2)});
}

void difference(py::handle features, py::handle centre_object,
                py::handle level_object, py::handle first, py::handle second,
                py::handle kernel_size, py::handle workspace,
                py::handle stream) {
  const char* op = "pairwise_difference";
  PairwiseCall call(op, features, PairwiseOptions(op, kernel_size, stream));
  const Tensor& centre = call.vector("centre", centre_object);
  const Tensor& level = call.vector("level", level_object);
  const PairwiseShape shape = call.shape();
  const auto sums = [&](const char* name, py::handle object) {
    return call.sums(name, object, "[1, 1, 1, R]", 1, call.relation());
  };
  run_with(workspace, call,
           pairwise::PairwiseDifference{
               call.features.type(), shape, call.features.data(), centre.data(),
               level.data(), sums("first", first), sums("second", second)});
}

void difference_backward(py::handle features, py::handle constant_object,
                         py::handle slope_object, py::handle grad_features,
                         py::handle kernel_size, py::handle stream) {
  const char* op = "pairwise_difference_backward";
  PairwiseCall call(op, features, PairwiseOptions(op, kernel_size, stream));
  const Tensor& constant = call.vector("constant", constant_object);
  const Tensor& slope = call.vector("slope", slope_object);
  call.run(
      call.features,
      pairwise::PairwiseDifferenceBackward{
          call.features.type(), call.shape(), call.features.data(),
          constant.data(), slope.data(),
          call.gradient("grad_features", grad_features, call.features).data()});
}

void moments(py::handle features, py::handle scale_object,
             py::handle shift_object, py::handle centre_object,
             py::handle first, py::handle second, py::handle kernel_size,
             py::handle workspace, py::handle stream) {
  const char* op = "pairwise_moments";
  PairwiseCall call(op, features, PairwiseOptions(op, kernel_size, stream));
  const Tensor& scale = call.vector("scale", scale_object);
  const Tensor& shift = call.vector("shift", shift_object);
  const Tensor& centre = call.vector("centre", centre_object);
  const PairwiseShape shape = call.shape();
  const int64_t R = call.relation();
  run_with(workspace, call,
           pairwise::PairwiseMoments{
               call.features.type(), shape, call.features.data(), scale.data(),
               shift.data(), centre.data(),
               call.sums("first", first, "[1, 1, K, R]", call.taps(), R),
               call.sums("second", second, "[1, 1, R, R]", R, R)});
}

void moments_backward(py::handle grad_first_object,
                      py::handle grad_second_object, py::handle features,
                      py::handle scale_object, py::handle shift_object,
                      py::handle grad_features, py::handle grad_scale,
                      py::handle grad_shift, py::handle kernel_size,
                      py::handle workspace, py::handle stream) {
  const char* op = "pairwise_moments_backward";
  PairwiseCall call(op, features, PairwiseOptions(op, kernel_size, stream));
  const Tensor& scale = call.vector("scale", scale_object);
  const Tensor& shift = call.vector("shift", shift_object);
  const PairwiseShape shape = call.shape();
  const int64_t R = call.relation();
  const Tensor& grad_first = call.matrix("grad_first", grad_first_object,
                                         "[1, 1, K, R]", call.taps(), R);
  const Tensor& grad_second =
      call.matrix("grad_second", grad_second_object, "[1, 1, R, R]", R, R);
  const auto gradient = [&](const char* name, py::handle object,
                            const Tensor& of) {
    return call.gradient(name, object, of).data();
  };
  run_with(workspace, call,
           pairwise::PairwiseMomentsBackward{
               call.features.type(), shape, call.features.data(), scale.data(),
               shift.data(), grad_first.data(), grad_second.data(),
               gradient("grad_features", grad_features, call.features),
               gradient("grad_scale", grad_scale, scale),
               gradient("grad_shift", grad_shift, shift)});
}

int64_t workspace_elements(const std::string& name, py::handle object,
                           int64_t relation_channels, int64_t weight_channels,
                           py::handle kernel_size) {
  const char* op = "pairwise_workspace";
  PairwiseCall call(op, object, PairwiseOptions(op, kernel_size, py::int_(0)));
  const PairwiseShape shape = call.shape_of(relation_channels, weight_channels);
  const auto elements = [&](auto task) {
    task.type = call.features.type();
    task.shape = shape;
    return pairwise::workspace_elements(task);
  };
  switch (checked_choice(op, "name", py::str(name),
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
             "None, the logarithms of its softmax's denominators. Features are "
             "here and below on the CPU float32, float64, or bfloat16 where "
             "takes_bfloat16().",
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
