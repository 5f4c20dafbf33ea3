// Runs the fused patchwise attention on checked arguments, on the CPU or on
// CUDA.
#include "cuda_kernels/patchwise/binding.h"

#include <string>

#include "cuda_kernels/patchwise/arguments.h"

namespace py = pybind11;

namespace san {
namespace {

// phi, psi and the parameters of the hidden layer.
struct HiddenInputs {
  HiddenInputs(PatchwiseCall& call, py::handle phi_object,
               py::handle psi_object, py::handle scale_object,
               py::handle shift_object, py::handle weight_object)
      : phi(call.read("phi", phi_object, Accepts::kPixels)),
        psi(call.read("psi", psi_object, Accepts::kPixels)),
        scale(call.read("scale", scale_object)),
        shift(call.read("shift", shift_object)),
        weight(call.read("weight", weight_object)) {}

  // The task, whose hidden layer or its gradient is `hidden`.
  PatchwiseHiddenForward task(const PatchwiseCall& call, const Tensor& hidden,
                              int64_t kernel_size) const {
    check_kind(psi, {&phi}, {&scale, &shift, &weight, &hidden});
    phi.require_shape_of(psi);
    const int64_t R = psi.size(3), G = weight.size(0);
    const Window window =
        same_window(call.op(), "psi", psi.size(1), psi.size(2), kernel_size);
    if (R < 1 || G < 1)
      call.refuse("weight", "have at least one channel of each kind",
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

  const Tensor &phi, &psi, &scale, &shift, &weight;
};

void hidden_forward(py::handle phi, py::handle psi, py::handle scale,
                    py::handle shift, py::handle weight,
                    py::handle hidden_object, int64_t kernel_size,
                    bool tensor_cores, bool allow_tf32, py::handle workspace,
                    uintptr_t stream) {
  PatchwiseCall call("patchwise_hidden_forward", stream);
  const HiddenInputs in(call, phi, psi, scale, shift, weight);
  const Tensor& hidden = call.write("hidden", hidden_object);
  PatchwiseHiddenForward task = in.task(call, hidden, kernel_size);
  if (hidden.empty()) return call.check_memory();
  call.run_by_kernels(in.psi, {tensor_cores, allow_tf32, workspace}, task);
}

void hidden_backward(py::handle grad_object, py::handle phi, py::handle psi,
                     py::handle scale, py::handle shift, py::handle weight,
                     py::handle grad_phi, py::handle grad_psi,
                     py::handle grad_scale, py::handle grad_shift,
                     py::handle grad_weight, int64_t kernel_size,
                     bool tensor_cores, bool allow_tf32, py::handle workspace,
                     uintptr_t stream) {
  PatchwiseCall call("patchwise_hidden_backward", stream);
  const Tensor& grad = call.read("grad_hidden", grad_object);
  const HiddenInputs in(call, phi, psi, scale, shift, weight);
  PatchwiseHiddenBackward task = {
      in.task(call, grad, kernel_size),
      grad.data(),
      call.pixel_gradient("grad_phi", grad_phi, in.phi),
      call.pixel_gradient("grad_psi", grad_psi, in.psi),
      call.gradient("grad_scale", grad_scale, in.scale).data(),
      call.gradient("grad_shift", grad_shift, in.shift).data(),
      call.gradient("grad_weight", grad_weight, in.weight).data(),
      nullptr};
  call.run_by_kernels(in.psi, {tensor_cores, allow_tf32, workspace}, task);
}

// hidden, value and the parameters of the mapping's last layer.
struct CoreInputs {
  CoreInputs(PatchwiseCall& call, py::handle hidden_object,
             py::handle value_object, py::handle weight_object,
             py::handle bias_object)
      : hidden(call.read("hidden", hidden_object)),
        value(call.read("value", value_object, Accepts::kPixels)),
        weight(call.read("weight", weight_object)),
        bias(call.read("bias", bias_object)) {}

  // The task, whose output or its gradient is `output`.
  PatchwiseCoreForward task(const PatchwiseCall& call,
                            const Tensor& output) const {
    check_kind(value, {&output}, {&hidden, &weight, &bias});
    const int64_t channels = value.size(3), groups = weight.size(0);
    const int64_t k = weight.size(1);
    const Window window =
        same_window(call.op(), "value", value.size(1), value.size(2), k);
    if (groups < 1 || channels % groups != 0)
      call.refuse("weight",
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

  const Tensor &hidden, &value, &weight, &bias;
};

void core_forward(py::handle hidden, py::handle value, py::handle weight,
                  py::handle bias, py::handle output_object, bool tensor_cores,
                  bool allow_tf32, py::handle workspace, uintptr_t stream) {
  PatchwiseCall call("patchwise_core_forward", stream);
  const CoreInputs in(call, hidden, value, weight, bias);
  const Tensor& output = call.write("output", output_object, Accepts::kPixels);
  PatchwiseCoreForward task = in.task(call, output);
  if (output.empty()) return call.check_memory();
  call.run_by_kernels(in.value, {tensor_cores, allow_tf32, workspace}, task);
}

void core_backward(py::handle grad_object, py::handle hidden, py::handle value,
                   py::handle weight, py::handle bias, py::handle grad_hidden,
                   py::handle grad_value, py::handle grad_weight,
                   py::handle grad_bias, bool tensor_cores, bool allow_tf32,
                   py::handle workspace, uintptr_t stream) {
  PatchwiseCall call("patchwise_core_backward", stream);
  const Tensor& grad = call.read("grad_output", grad_object, Accepts::kPixels);
  const CoreInputs in(call, hidden, value, weight, bias);
  PatchwiseCoreBackward task = {
      in.task(call, grad),
      readable(grad),
      call.gradient("grad_hidden", grad_hidden, in.hidden).data(),
      call.pixel_gradient("grad_value", grad_value, in.value),
      call.gradient("grad_weight", grad_weight, in.weight).data(),
      call.gradient("grad_bias", grad_bias, in.bias).data(),
      nullptr};
  call.run_by_kernels(in.value, {tensor_cores, allow_tf32, workspace}, task);
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
                            int64_t weight_channels, int64_t kernel_size,
                            bool allow_tf32) {
  const char* op = "patchwise_tensor_workspace";
  const Tensor image(op, "image", object, Access::kRead, Accepts::kPixels);
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
  hidden.forward.allow_tf32 = allow_tf32;
  PatchwiseCoreBackward core = {};
  core.forward.type = image.type();
  core.forward.batch = image.size(0);
  core.forward.channels = image.size(3);
  core.forward.weight_channels = weight_channels;
  core.forward.window = window;
  core.forward.allow_tf32 = allow_tf32;
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
             arg("tensor_cores") = false, arg("allow_tf32") = false,
             arg("workspace") = py::none(), arg("stream") = 0,
             "Writes the hidden layer of the patchwise mapping.");
  module.def("patchwise_hidden_backward", &hidden_backward, arg("grad_hidden"),
             arg("phi"), arg("psi"), arg("scale"), arg("shift"), arg("weight"),
             arg("grad_phi"), arg("grad_psi"), arg("grad_scale"),
             arg("grad_shift"), arg("grad_weight"), py::kw_only(),
             arg("kernel_size"), arg("tensor_cores") = false,
             arg("allow_tf32") = false, arg("workspace") = py::none(),
             arg("stream") = 0,
             "Writes the gradients of patchwise_hidden_forward.");
  module.def("patchwise_core_forward", &core_forward, arg("hidden"),
             arg("value"), arg("weight"), arg("bias"), arg("output"),
             py::kw_only(), arg("tensor_cores") = false,
             arg("allow_tf32") = false, arg("workspace") = py::none(),
             arg("stream") = 0,
             "Writes the sum of value with the weights made from hidden.");
  module.def("patchwise_core_backward", &core_backward, arg("grad_output"),
             arg("hidden"), arg("value"), arg("weight"), arg("bias"),
             arg("grad_hidden"), arg("grad_value"), arg("grad_weight"),
             arg("grad_bias"), py::kw_only(), arg("tensor_cores") = false,
             arg("allow_tf32") = false, arg("workspace") = py::none(),
             arg("stream") = 0,
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
             arg("kernel_size"), arg("allow_tf32") = false,
             "How many elements of float32 `kernel` needs as workspace, "
             "[1, 1, 1, n], with tensor_cores, for psi or value like `image`; "
             "None where they do not take its type or sizes.");
}

}  // namespace san
