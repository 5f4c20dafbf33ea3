#include "cuda_kernels/window_ops/binding.h"

#include <initializer_list>
#include <optional>
#include <string>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/cuda/device.h"
#include "cuda_kernels/window_ops/aggregation.h"
#include "cuda_kernels/window_ops/docstrings.h"
#include "cuda_kernels/window_ops/subtraction.h"

namespace py = pybind11;

namespace san {
namespace {

// An image, in either layout.
Tensor image(const char* op, const char* name, py::handle object,
             Access access) {
  return Tensor(op, name, object, access, Accepts::kBothLayouts);
}

std::optional<Tensor> optional_output(const char* op, const char* name,
                                      py::handle object, Accepts accepts) {
  if (object.is_none()) return std::nullopt;
  return Tensor(op, name, object, Access::kWrite, accepts);
}

void* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->data() : nullptr;
}

// A gradient is like the tensor it belongs to and shares no memory with
// `others`.
void check_gradient(const std::optional<Tensor>& gradient, const Tensor& like,
                    std::initializer_list<const Tensor*> others) {
  if (!gradient) return;
  gradient->require_same_kind(like);
  gradient->require_shape_of(like);
  gradient->require_layout_of(like);
  for (const Tensor* other : others) gradient->require_apart_from(*other);
}

template <typename Task>
void run(const char* op, const Options& options, const Tensor& like,
         const Task& task) {
  if (!like.on_cuda()) {
    const py::gil_scoped_release without_gil;
    return options.implementation == Implementation::kFast
               ? fast::run_on_cpu(task)
               : simple::run_on_cpu(task);
  }
#ifdef SAN_NO_CUDA
  fail(op, "tensors", "be on the CPU, for this build has no CUDA kernels",
       "cuda:" + std::to_string(like.device_id()));
#else
  (void)op;
  const py::gil_scoped_release without_gil;
  const CudaDeviceGuard guard(like.device_id());
  return options.implementation == Implementation::kFast
             ? fast::run_on_cuda(task, options.stream)
             : simple::run_on_cuda(task, options.stream);
#endif
}

// The sizes of one aggregation, from its input, weight and output (or its
// gradient), after checking them against each other.
AggregationShape aggregation_shape(const char* op, const Options& options,
                                   const Tensor& input, const Tensor& weight,
                                   const Tensor& output) {
  const int64_t batch = input.size(0), channels = input.size(1);
  const int64_t weight_channels = weight.size(1);
  const Window window = options.window_over(op, "input", input);
  const __int128 rows = window.rows.outputs, columns = window.columns.outputs;
  weight.require_same_kind(input);
  weight.require_shape("[N, Cw, kernel_size^2, H_out * W_out]",
                       {batch, weight_channels, window.taps(), rows * columns});
  if (weight_channels < 1 || channels % weight_channels != 0)
    fail(op, "weight",
         "have a number of channels that divides input's, " +
             std::to_string(channels),
         std::to_string(weight_channels));
  output.require_same_kind(input);
  output.require_shape("[N, C, H_out, W_out]",
                       {batch, channels, rows, columns});
  output.require_layout_of(input);
  return {batch, channels, weight_channels, window, input.layout()};
}

void aggregation_forward(const char* op, const Options& options,
                         py::handle input_object, py::handle weight_object,
                         py::handle output_object) {
  const Tensor input = image(op, "input", input_object, Access::kRead);
  const Tensor weight(op, "weight", weight_object, Access::kRead);
  const Tensor output = image(op, "output", output_object, Access::kWrite);
  const AggregationShape shape =
      aggregation_shape(op, options, input, weight, output);
  output.require_apart_from(input);
  output.require_apart_from(weight);
  if (output.empty()) return;
  run(op, options, input,
      AggregationForward{input.type(), shape, input.data(), weight.data(),
                         output.data()});
}

void aggregation_backward(const char* op, const Options& options,
                          py::handle grad_output_object,
                          py::handle input_object, py::handle weight_object,
                          py::handle grad_input_object,
                          py::handle grad_weight_object) {
  const Tensor grad_output =
      image(op, "grad_output", grad_output_object, Access::kRead);
  const Tensor input = image(op, "input", input_object, Access::kRead);
  // The gradient of the weight does not depend on the weight: where it is all
  // that is asked for, it says how large the weight is.
  const bool is_weightless =
      weight_object.is_none() && grad_input_object.is_none();
  const Tensor weight(op, is_weightless ? "grad_weight" : "weight",
                      is_weightless ? grad_weight_object : weight_object,
                      Access::kRead);
  const auto grad_input = optional_output(op, "grad_input", grad_input_object,
                                          Accepts::kBothLayouts);
  const auto grad_weight = optional_output(
      op, "grad_weight", grad_weight_object, Accepts::kRowMajor);
  const AggregationShape shape =
      aggregation_shape(op, options, input, weight, grad_output);
  check_gradient(grad_input, input, {&grad_output, &input, &weight});
  check_gradient(grad_weight, weight, {&grad_output, &input});
  if (grad_weight && !is_weightless) grad_weight->require_apart_from(weight);
  if (grad_input && grad_weight) grad_weight->require_apart_from(*grad_input);
  if (input.size(0) == 0) return;
  run(op, options, input,
      AggregationBackward{input.type(), shape, grad_output.data(), input.data(),
                          weight.data(), data_or_null(grad_input),
                          data_or_null(grad_weight)});
}

// The sizes of one subtraction2. Checks that `output` (or its gradient) has the
// shape that `image` gives.
SubtractionShape subtraction_shape(const char* op, const Options& options,
                                   const char* name, const Tensor& image,
                                   const Tensor& output) {
  const Window window = options.window_over(op, name, image);
  output.require_same_kind(image);
  output.require_shape(
      "[N, C, kernel_size^2, H_out * W_out]",
      {image.size(0), image.size(1), window.taps(),
       static_cast<__int128>(window.rows.outputs) * window.columns.outputs});
  return {image.size(0), image.size(1), window, image.layout()};
}

void subtraction2_forward(const char* op, const Options& options,
                          py::handle a_object, py::handle b_object,
                          py::handle output_object) {
  const Tensor a = image(op, "a", a_object, Access::kRead);
  const Tensor b = image(op, "b", b_object, Access::kRead);
  const Tensor output(op, "output", output_object, Access::kWrite);
  b.require_same_kind(a);
  b.require_shape_of(a);
  b.require_layout_of(a);
  const SubtractionShape shape = subtraction_shape(op, options, "a", a, output);
  output.require_apart_from(a);
  output.require_apart_from(b);
  if (output.empty()) return;
  run(op, options, a,
      SubtractionForward{a.type(), shape, a.data(), b.data(), output.data()});
}

void subtraction2_backward(const char* op, const Options& options,
                           py::handle grad_output_object,
                           py::handle grad_a_object, py::handle grad_b_object) {
  const Tensor grad_output(op, "grad_output", grad_output_object,
                           Access::kRead);
  const auto grad_a =
      optional_output(op, "grad_a", grad_a_object, Accepts::kBothLayouts);
  const auto grad_b =
      optional_output(op, "grad_b", grad_b_object, Accepts::kBothLayouts);
  if (!grad_a && !grad_b) return;
  const Tensor& image = grad_a ? *grad_a : *grad_b;
  const SubtractionShape shape = subtraction_shape(
      op, options, grad_a ? "grad_a" : "grad_b", image, grad_output);
  check_gradient(grad_a, image, {&grad_output});
  check_gradient(grad_b, image, {&grad_output});
  if (grad_a && grad_b) grad_b->require_apart_from(*grad_a);
  if (grad_output.empty()) return;
  run(op, options, image,
      SubtractionBackward{grad_output.type(), shape, grad_output.data(),
                          data_or_null(grad_a), data_or_null(grad_b)});
}

// Adds `function` to the module under the name `op`, with the named tensors
// as arguments followed by the keyword-only options.
template <typename... Objects, typename... Names>
void define(py::module_& module, const char* op,
            void (*function)(const char*, const Options&, Objects...),
            const char* docstring, Names... names) {
  module.def(
      op,
      [=](Objects... tensors, py::handle kernel_size, py::handle stride,
          py::handle padding, py::handle dilation, py::handle padding_mode,
          py::handle implementation, py::handle stream) {
        function(op,
                 Options(op, kernel_size, stride, padding, dilation,
                         padding_mode, implementation, stream),
                 tensors...);
      },
      py::arg(names)..., py::kw_only(), py::arg("kernel_size"),
      py::arg("stride") = 1, py::arg("padding") = 0, py::arg("dilation") = 1,
      py::arg("padding_mode") = "reflect", py::arg("implementation") = "fast",
      py::arg("stream") = 0, docstring);
}

}  // namespace

void define_window_ops(py::module_& module) {
  define(module, "aggregation_forward", &aggregation_forward,
         kAggregationForwardDoc, "input", "weight", "output");
  define(module, "aggregation_backward", &aggregation_backward,
         kAggregationBackwardDoc, "grad_output", "input", "weight",
         "grad_input", "grad_weight");
  define(module, "subtraction2_forward", &subtraction2_forward,
         kSubtraction2ForwardDoc, "a", "b", "output");
  define(module, "subtraction2_backward", &subtraction2_backward,
         kSubtraction2BackwardDoc, "grad_output", "grad_a", "grad_b");
}

}  // namespace san
