#include "cuda_kernels/patchwise/binding.h"

#include <algorithm>
#include <string>
#include <vector>

#include "cuda_kernels/patchwise/arguments.h"

namespace py = pybind11;

namespace san {
namespace {

void check_outputs(const std::vector<const Tensor*>& outputs,
                   std::vector<const Tensor*> others) {
  for (const Tensor* output : outputs) {
    for (const Tensor* other : others) output->require_apart_from(*other);
    others.push_back(output);
  }
}

PatchwiseHiddenForward hidden_task(const char* op, const Tensor& phi,
                                   const Tensor& psi, const Tensor& scale,
                                   const Tensor& shift, const Tensor& weight,
                                   const Tensor& hidden, int64_t kernel_size) {
  check_kind(psi, {&phi}, {&scale, &shift, &weight, &hidden});
  phi.require_shape_of(psi);
  const int64_t R = psi.size(3), G = weight.size(0);
  const Window window =
      same_window(op, "psi", psi.size(1), psi.size(2), kernel_size);
  if (R < 1 || G < 1)
    fail(op, "weight", "have at least one channel of each kind",
         std::to_string(G) + " from " + std::to_string(R));
  const __int128 S = __int128{R} * (window.taps() + 1);
  weight.require_shape("[G, R * (k * k + 1), 1, 1]", {G, S, 1, 1});
  scale.require_shape("[1, R * (k * k + 1), 1, 1]", {1, S, 1, 1});
  shift.require_shape_of(scale);
  hidden.require_shape("[N, H, W, G]",
                       {psi.size(0), psi.size(1), psi.size(2), G});
  return {psi.type(),
          psi.size(0),
          R,
          G,
          window,
          readable(phi),
          readable(psi),
          scale.data(),
          shift.data(),
          weight.data(),
          hidden.data()};
}

void hidden_forward(py::handle phi_object, py::handle psi_object,
                    py::handle scale_object, py::handle shift_object,
                    py::handle weight_object, py::handle hidden_object,
                    int64_t kernel_size, bool tensor_cores,
                    py::handle workspace, uintptr_t stream) {
  const char* op = "patchwise_hidden_forward";
  const Tensor phi = pixels(op, "phi", phi_object, Access::kRead);
  const Tensor psi = pixels(op, "psi", psi_object, Access::kRead);
  const Tensor scale(op, "scale", scale_object, Access::kRead);
  const Tensor shift(op, "shift", shift_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor hidden(op, "hidden", hidden_object, Access::kWrite);
  PatchwiseHiddenForward task =
      hidden_task(op, phi, psi, scale, shift, weight, hidden, kernel_size);
  check_outputs({&hidden}, {&phi, &psi, &scale, &shift, &weight});
  if (hidden.empty()) return;
  settle(op, psi, tensor_cores, workspace,
         {&phi, &psi, &scale, &shift, &weight, &hidden}, task);
  run_fused(op, hidden, task, stream_of(stream));
}

void hidden_backward(py::handle grad_object, py::handle phi_object,
                     py::handle psi_object, py::handle scale_object,
                     py::handle shift_object, py::handle weight_object,
                     py::handle grad_phi_object, py::handle grad_psi_object,
                     py::handle grad_scale_object, py::handle grad_shift_object,
                     py::handle grad_weight_object, int64_t kernel_size,
                     bool tensor_cores, py::handle workspace,
                     uintptr_t stream) {
  const char* op = "patchwise_hidden_backward";
  const Tensor grad(op, "grad_hidden", grad_object, Access::kRead);
  const Tensor phi = pixels(op, "phi", phi_object, Access::kRead);
  const Tensor psi = pixels(op, "psi", psi_object, Access::kRead);
  const Tensor scale(op, "scale", scale_object, Access::kRead);
  const Tensor shift(op, "shift", shift_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor grad_phi =
      pixels(op, "grad_phi", grad_phi_object, Access::kWrite);
  const Tensor grad_psi =
      pixels(op, "grad_psi", grad_psi_object, Access::kWrite);
  const Tensor grad_scale(op, "grad_scale", grad_scale_object, Access::kWrite);
  const Tensor grad_shift(op, "grad_shift", grad_shift_object, Access::kWrite);
  const Tensor grad_weight(op, "grad_weight", grad_weight_object,
                           Access::kWrite);
  PatchwiseHiddenBackward task = {
      hidden_task(op, phi, psi, scale, shift, weight, grad, kernel_size),
      grad.data(),
      writable(grad_phi),
      writable(grad_psi),
      grad_scale.data(),
      grad_shift.data(),
      grad_weight.data(),
      nullptr};
  check_kind(psi, {&grad_phi, &grad_psi},
             {&grad_scale, &grad_shift, &grad_weight});
  grad_phi.require_shape_of(phi);
  grad_psi.require_shape_of(psi);
  grad_scale.require_shape_of(scale);
  grad_shift.require_shape_of(shift);
  grad_weight.require_shape_of(weight);
  check_outputs({&grad_phi, &grad_psi, &grad_scale, &grad_shift, &grad_weight},
                {&grad, &phi, &psi, &scale, &shift, &weight});
  settle(op, psi, tensor_cores, workspace,
         {&grad, &phi, &psi, &scale, &shift, &weight, &grad_phi, &grad_psi,
          &grad_scale, &grad_shift, &grad_weight},
         task);
  run_fused(op, psi, task, stream_of(stream));
}

PatchwiseCoreForward core_task(const char* op, const Tensor& hidden,
                               const Tensor& value, const Tensor& weight,
                               const Tensor& bias, const Tensor& output) {
  check_kind(value, {&output}, {&hidden, &weight, &bias});
  const int64_t channels = value.size(3), groups = weight.size(0);
  const int64_t k = weight.size(1);
  const Window window =
      same_window(op, "value", value.size(1), value.size(2), k);
  if (groups < 1 || channels % groups != 0)
    fail(op, "weight",
         "have a number of channels that divides value's, " +
             std::to_string(channels),
         std::to_string(groups));
  hidden.require_shape("[N, H, W, G]",
                       {value.size(0), value.size(1), value.size(2), groups});
  weight.require_shape("[G, k, k, G]", {groups, k, k, groups});
  bias.require_shape("[1, G, k, k]", {1, groups, k, k});
  output.require_shape_of(value);
  return {value.type(), value.size(0),   channels,        groups,
          window,       hidden.data(),   readable(value), weight.data(),
          bias.data(),  writable(output)};
}

void core_forward(py::handle hidden_object, py::handle value_object,
                  py::handle weight_object, py::handle bias_object,
                  py::handle output_object, bool tensor_cores,
                  py::handle workspace, uintptr_t stream) {
  const char* op = "patchwise_core_forward";
  const Tensor hidden(op, "hidden", hidden_object, Access::kRead);
  const Tensor value = pixels(op, "value", value_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor bias(op, "bias", bias_object, Access::kRead);
  const Tensor output = pixels(op, "output", output_object, Access::kWrite);
  PatchwiseCoreForward task =
      core_task(op, hidden, value, weight, bias, output);
  check_outputs({&output}, {&hidden, &value, &weight, &bias});
  if (output.empty()) return;
  settle(op, value, tensor_cores, workspace,
         {&hidden, &value, &weight, &bias, &output}, task);
  run_fused(op, output, task, stream_of(stream));
}

void core_backward(py::handle grad_object, py::handle hidden_object,
                   py::handle value_object, py::handle weight_object,
                   py::handle bias_object, py::handle grad_hidden_object,
                   py::handle grad_value_object, py::handle grad_weight_object,
                   py::handle grad_bias_object, bool tensor_cores,
                   py::handle workspace, uintptr_t stream) {
  const char* op = "patchwise_core_backward";
  const Tensor grad = pixels(op, "grad_output", grad_object, Access::kRead);
  const Tensor hidden(op, "hidden", hidden_object, Access::kRead);
  const Tensor value = pixels(op, "value", value_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor bias(op, "bias", bias_object, Access::kRead);
  const Tensor grad_hidden(op, "grad_hidden", grad_hidden_object,
                           Access::kWrite);
  const Tensor grad_value =
      pixels(op, "grad_value", grad_value_object, Access::kWrite);
  const Tensor grad_weight(op, "grad_weight", grad_weight_object,
                           Access::kWrite);
  const Tensor grad_bias(op, "grad_bias", grad_bias_object, Access::kWrite);
  PatchwiseCoreBackward task = {
      core_task(op, hidden, value, weight, bias, grad),
      readable(grad),
      grad_hidden.data(),
      writable(grad_value),
      grad_weight.data(),
      grad_bias.data(),
      nullptr};
  check_kind(value, {&grad_value}, {&grad_hidden, &grad_weight, &grad_bias});
  grad_hidden.require_shape_of(hidden);
  grad_value.require_shape_of(value);
  grad_weight.require_shape_of(weight);
  grad_bias.require_shape_of(bias);
  check_outputs({&grad_hidden, &grad_value, &grad_weight, &grad_bias},
                {&grad, &hidden, &value, &weight, &bias});
  settle(op, value, tensor_cores, workspace,
         {&grad, &hidden, &value, &weight, &bias, &grad_hidden, &grad_value,
          &grad_weight, &grad_bias},
         task);
  run_fused(op, value, task, stream_of(stream));
}

// The workspaces of the backward passes, in elements.
int64_t hidden_workspace(int64_t batch, int64_t relation_channels,
                         int64_t height, int64_t width, int64_t weight_channels,
                         int64_t kernel_size) {
  const char* op = "patchwise_hidden_workspace";
  require_least(op, "batch", batch, 0);
  require_least(op, "relation_channels", relation_channels, 1);
  require_least(op, "weight_channels", weight_channels, 1);
  PatchwiseHiddenForward task = {};
  task.batch = batch;
  task.relation_channels = relation_channels;
  task.weight_channels = weight_channels;
  task.window = same_window(op, "phi", height, width, kernel_size);
  return workspace_size(task);
}

int64_t core_workspace(int64_t batch, int64_t channels, int64_t height,
                       int64_t width, int64_t weight_channels,
                       int64_t kernel_size) {
  const char* op = "patchwise_core_workspace";
  require_least(op, "batch", batch, 0);
  require_least(op, "channels", channels, 0);
  require_least(op, "weight_channels", weight_channels, 1);
  PatchwiseCoreForward task = {};
  task.batch = batch;
  task.channels = channels;
  task.weight_channels = weight_channels;
  task.window = same_window(op, "value", height, width, kernel_size);
  return workspace_size(task);
}

// What a kernel needs by tensor cores for an image like psi or value.
py::object tensor_workspace(const std::string& kernel, py::handle object,
                            int64_t weight_channels, int64_t kernel_size) {
  const char* op = "patchwise_tensor_workspace";
  const Tensor image = pixels(op, "image", object, Access::kRead);
  require_least(op, "weight_channels", weight_channels, 1);
  require_least(op, "image's channels", image.size(3), 1);
  const Window window =
      same_window(op, "image", image.size(1), image.size(2), kernel_size);
  PatchwiseHiddenBackward hidden = {};
  hidden.forward.type = image.type();
  hidden.forward.batch = image.size(0);
  hidden.forward.relation_channels = image.size(3);
  hidden.forward.weight_channels = weight_channels;
  hidden.forward.window = window;
  PatchwiseCoreBackward core = {};
  core.forward.type = image.type();
  core.forward.batch = image.size(0);
  core.forward.channels = image.size(3);
  core.forward.weight_channels = weight_channels;
  core.forward.window = window;
  // No device may be asked where there is none.
  if (!image.on_cuda()) return py::none();
  int64_t elements = -1;
  if (kernel == "patchwise_hidden_forward")
    elements = tensor_workspace_size(image, hidden.forward);
  else if (kernel == "patchwise_hidden_backward")
    elements = tensor_workspace_size(image, hidden);
  else if (kernel == "patchwise_core_forward")
    elements = tensor_workspace_size(image, core.forward);
  else if (kernel == "patchwise_core_backward")
    elements = tensor_workspace_size(image, core);
  else
    fail(op, "kernel",
         "be patchwise_hidden_forward, patchwise_hidden_backward, "
         "patchwise_core_forward or patchwise_core_backward",
         kernel);
  if (elements < 0) return py::none();
  return py::int_(elements);
}

}  // namespace

void define_patchwise(py::module_& module) {
  using py::arg;
  module.attr("LARGEST_PATCHWISE_FOOTPRINT") = kLargestFootprint;
  module.def("patchwise_hidden_forward", &hidden_forward, arg("phi"),
             arg("psi"), arg("scale"), arg("shift"), arg("weight"),
             arg("hidden"), py::kw_only(), arg("kernel_size"),
             arg("tensor_cores") = false, arg("workspace") = py::none(),
             arg("stream") = 0,
             "Writes the hidden layer of the patchwise mapping.");
  module.def("patchwise_hidden_backward", &hidden_backward, arg("grad_hidden"),
             arg("phi"), arg("psi"), arg("scale"), arg("shift"), arg("weight"),
             arg("grad_phi"), arg("grad_psi"), arg("grad_scale"),
             arg("grad_shift"), arg("grad_weight"), py::kw_only(),
             arg("kernel_size"), arg("tensor_cores") = false,
             arg("workspace") = py::none(), arg("stream") = 0,
             "Writes the gradients of patchwise_hidden_forward.");
  module.def("patchwise_core_forward", &core_forward, arg("hidden"),
             arg("value"), arg("weight"), arg("bias"), arg("output"),
             py::kw_only(), arg("tensor_cores") = false,
             arg("workspace") = py::none(), arg("stream") = 0,
             "Writes the sum of value with the weights made from hidden.");
  module.def("patchwise_core_backward", &core_backward, arg("grad_output"),
             arg("hidden"), arg("value"), arg("weight"), arg("bias"),
             arg("grad_hidden"), arg("grad_value"), arg("grad_weight"),
             arg("grad_bias"), py::kw_only(), arg("tensor_cores") = false,
             arg("workspace") = py::none(), arg("stream") = 0,
             "Writes the gradients of patchwise_core_forward.");
  module.def("patchwise_hidden_workspace", &hidden_workspace, arg("batch"),
             arg("relation_channels"), arg("height"), arg("width"),
             py::kw_only(), arg("weight_channels"), arg("kernel_size"),
             "How many elements patchwise_hidden_backward needs as workspace, "
             "[1, 1, 1, n], on CUDA.");
  module.def("patchwise_core_workspace", &core_workspace, arg("batch"),
             arg("channels"), arg("height"), arg("width"), py::kw_only(),
             arg("weight_channels"), arg("kernel_size"),
             "How many elements patchwise_core_backward needs as workspace, "
             "[1, 1, 1, n], on CUDA.");
  module.def("patchwise_tensor_workspace", &tensor_workspace, arg("kernel"),
             arg("image"), py::kw_only(), arg("weight_channels"),
             arg("kernel_size"),
             "How many elements of float32 `kernel` needs as workspace, "
             "[1, 1, 1, n], with tensor_cores, for psi or value like `image`; "
             "None where they do not take its type or sizes.");
}

}  // namespace san
