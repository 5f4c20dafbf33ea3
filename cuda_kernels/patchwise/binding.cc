#include "cuda_kernels/patchwise/binding.h"

#include <algorithm>
#include <string>
#include <vector>

#include "cuda_kernels/binding/dispatch.h"
#include "cuda_kernels/patchwise/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

// Keeps every position far inside 64 bits.
using patchwise::kLargestFootprint;
using patchwise::PatchwiseCoreBackward;
using patchwise::PatchwiseCoreForward;
using patchwise::PatchwiseHiddenBackward;
using patchwise::PatchwiseHiddenForward;
using patchwise::Pixels;
using patchwise::WritablePixels;

constexpr int64_t kLargestSide = int64_t{1} << 30;

Tensor pixels(const char* op, const char* name, py::handle object,
              Access access) {
  return Tensor(op, name, object, access, Accepts::kPixels);
}

Pixels readable(const Tensor& image) { return {image.data(), image.pitch()}; }

WritablePixels writable(const Tensor& image) {
  return {image.data(), image.pitch()};
}

// What the tensors of an op have in common with `image`, one of them: others of
// its type, and hidden and parameters, of its accumulator's.
void check_kind(const char* op, const Tensor& image,
                const std::vector<const Tensor*>& images,
                const std::vector<const Tensor*>& others) {
  const bool is_half = image.type() == ScalarType::kFloat16 ||
                       image.type() == ScalarType::kBfloat16;
  if (is_half && image.on_cuda())
    fail(op, "tensors", "be float32 or float64 on CUDA", "a half type");
  for (const Tensor* other : images) other->require_same_kind(image);
  for (const Tensor* other : others)
    is_half ? other->require_kind(ScalarType::kFloat32, image)
            : other->require_same_kind(image);
}

// What a backward pass needs on CUDA; nothing where there are no kernels.
template <typename Task>
int64_t workspace_size(const Task& task) {
#ifdef SAN_NO_CUDA
  (void)task;
  return 0;
#else
  return patchwise::workspace_elements(task);
#endif
}

void check_outputs(const std::vector<const Tensor*>& outputs,
                   std::vector<const Tensor*> others) {
  for (const Tensor* output : outputs) {
    for (const Tensor* other : others) output->require_apart_from(*other);
    others.push_back(output);
  }
}

Window same_window(const char* op, const char* name, int64_t height,
                   int64_t width, int64_t kernel_size) {
  if (height < 1 || width < 1 || height > kLargestSide || width > kLargestSide)
    fail(op, name, "have a height and width from 1 to 2^30",
         std::to_string(height) + " x " + std::to_string(width));
  if (kernel_size < 1 || kernel_size % 2 == 0 ||
      kernel_size > kLargestFootprint)
    fail(op, "kernel_size",
         "be odd, from 1 to " + std::to_string(kLargestFootprint),
         std::to_string(kernel_size));
  const auto axis = [&](int64_t size) {
    return Axis{
        size, size, kernel_size, 1, kernel_size / 2, 1, PaddingMode::kReflect};
  };
  return {axis(height), axis(width)};
}

void require_least(const char* op, const char* name, int64_t value,
                   int64_t least) {
  if (value < least)
    fail(op, name, "be at least " + std::to_string(least),
         std::to_string(value));
}

PatchwiseHiddenForward hidden_task(const char* op, const Tensor& phi,
                                   const Tensor& psi, const Tensor& scale,
                                   const Tensor& shift, const Tensor& weight,
                                   const Tensor& hidden, int64_t kernel_size) {
  check_kind(op, psi, {&phi}, {&scale, &shift, &weight, &hidden});
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
                    int64_t kernel_size, uintptr_t stream) {
  const char* op = "patchwise_hidden_forward";
  const Tensor phi = pixels(op, "phi", phi_object, Access::kRead);
  const Tensor psi = pixels(op, "psi", psi_object, Access::kRead);
  const Tensor scale(op, "scale", scale_object, Access::kRead);
  const Tensor shift(op, "shift", shift_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor hidden(op, "hidden", hidden_object, Access::kWrite);
  const PatchwiseHiddenForward task =
      hidden_task(op, phi, psi, scale, shift, weight, hidden, kernel_size);
  check_outputs({&hidden}, {&phi, &psi, &scale, &shift, &weight});
  if (hidden.empty()) return;
  run_fused(op, hidden, task, stream_of(stream));
}

void hidden_backward(py::handle grad_object, py::handle phi_object,
                     py::handle psi_object, py::handle scale_object,
                     py::handle shift_object, py::handle weight_object,
                     py::handle grad_phi_object, py::handle grad_psi_object,
                     py::handle grad_scale_object, py::handle grad_shift_object,
                     py::handle grad_weight_object, int64_t kernel_size,
                     py::handle workspace, uintptr_t stream) {
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
  check_kind(op, psi, {&grad_phi, &grad_psi},
             {&grad_scale, &grad_shift, &grad_weight});
  grad_phi.require_shape_of(phi);
  grad_psi.require_shape_of(psi);
  grad_scale.require_shape_of(scale);
  grad_shift.require_shape_of(shift);
  grad_weight.require_shape_of(weight);
  check_outputs({&grad_phi, &grad_psi, &grad_scale, &grad_shift, &grad_weight},
                {&grad, &phi, &psi, &scale, &shift, &weight});
  task.workspace = checked_workspace(
      op, workspace, workspace_size(task.forward), psi.type(), psi,
      {&grad, &phi, &psi, &scale, &shift, &weight, &grad_phi, &grad_psi,
       &grad_scale, &grad_shift, &grad_weight});
  run_fused(op, psi, task, stream_of(stream));
}

PatchwiseCoreForward core_task(const char* op, const Tensor& hidden,
                               const Tensor& value, const Tensor& weight,
                               const Tensor& bias, const Tensor& output) {
  check_kind(op, value, {&output}, {&hidden, &weight, &bias});
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
                  py::handle output_object, uintptr_t stream) {
  const char* op = "patchwise_core_forward";
  const Tensor hidden(op, "hidden", hidden_object, Access::kRead);
  const Tensor value = pixels(op, "value", value_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor bias(op, "bias", bias_object, Access::kRead);
  const Tensor output = pixels(op, "output", output_object, Access::kWrite);
  const PatchwiseCoreForward task =
      core_task(op, hidden, value, weight, bias, output);
  check_outputs({&output}, {&hidden, &value, &weight, &bias});
  if (output.empty()) return;
  run_fused(op, output, task, stream_of(stream));
}

void core_backward(py::handle grad_object, py::handle hidden_object,
                   py::handle value_object, py::handle weight_object,
                   py::handle bias_object, py::handle grad_hidden_object,
                   py::handle grad_value_object, py::handle grad_weight_object,
                   py::handle grad_bias_object, py::handle workspace,
                   uintptr_t stream) {
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
  check_kind(op, value, {&grad_value},
             {&grad_hidden, &grad_weight, &grad_bias});
  grad_hidden.require_shape_of(hidden);
  grad_value.require_shape_of(value);
  grad_weight.require_shape_of(weight);
  grad_bias.require_shape_of(bias);
  check_outputs({&grad_hidden, &grad_value, &grad_weight, &grad_bias},
                {&grad, &hidden, &value, &weight, &bias});
  task.workspace = checked_workspace(
      op, workspace, workspace_size(task.forward), value.type(), value,
      {&grad, &hidden, &value, &weight, &bias, &grad_hidden, &grad_value,
       &grad_weight, &grad_bias});
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

}  // namespace

void define_patchwise(py::module_& module) {
  using py::arg;
  module.attr("LARGEST_PATCHWISE_FOOTPRINT") = kLargestFootprint;
  module.def("patchwise_hidden_forward", &hidden_forward, arg("phi"),
             arg("psi"), arg("scale"), arg("shift"), arg("weight"),
             arg("hidden"), py::kw_only(), arg("kernel_size"),
             arg("stream") = 0,
             "Writes the hidden layer of the patchwise mapping.");
  module.def("patchwise_hidden_backward", &hidden_backward, arg("grad_hidden"),
             arg("phi"), arg("psi"), arg("scale"), arg("shift"), arg("weight"),
             arg("grad_phi"), arg("grad_psi"), arg("grad_scale"),
             arg("grad_shift"), arg("grad_weight"), py::kw_only(),
             arg("kernel_size"), arg("workspace") = py::none(),
             arg("stream") = 0,
             "Writes the gradients of patchwise_hidden_forward.");
  module.def("patchwise_core_forward", &core_forward, arg("hidden"),
             arg("value"), arg("weight"), arg("bias"), arg("output"),
             py::kw_only(), arg("stream") = 0,
             "Writes the sum of value with the weights made from hidden.");
  module.def("patchwise_core_backward", &core_backward, arg("grad_output"),
             arg("hidden"), arg("value"), arg("weight"), arg("bias"),
             arg("grad_hidden"), arg("grad_value"), arg("grad_weight"),
             arg("grad_bias"), py::kw_only(), arg("workspace") = py::none(),
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
}

}  // namespace san
