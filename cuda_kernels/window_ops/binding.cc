#include "cuda_kernels/window_ops/binding.h"

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/window_ops/aggregation.h"
#include "cuda_kernels/window_ops/docstrings.h"
#include "cuda_kernels/window_ops/subtraction.h"

namespace py = pybind11;

namespace san {
namespace {

// Images are taken in either layout.
constexpr Accepts kImage = Accepts::kBothLayouts;

void* gradient_unless_none(Call& call, const char* name, py::handle object,
                           const Tensor& of, Accepts accepts) {
  return object.is_none() ? nullptr
                          : call.gradient(name, object, of, accepts).data();
}

void require_like(const Tensor& image, const Tensor& other) {
  image.require_same_kind(other);
  image.require_shape_of(other);
  image.require_layout_of(other);
}

template <typename Task>
void run(const Call& call, const Options& options, const Tensor& like,
         const Task& task) {
  const bool is_fast = options.implementation == Implementation::kFast;
  call.run_by(
      like,
      [&] { is_fast ? fast::run_on_cpu(task) : simple::run_on_cpu(task); },
      [&](auto* stream) {
        is_fast ? fast::run_on_cuda(task, stream)
                : simple::run_on_cuda(task, stream);
      });
}

// The sizes of one aggregation, from its input, weight and output (or its
// gradient), after checking them against each other.
AggregationShape aggregation_shape(const Call& call, const Options& options,
                                   const Tensor& input, const Tensor& weight,
                                   const Tensor& output) {
  const int64_t batch = input.size(0), channels = input.size(1);
  const int64_t weight_channels = weight.size(1);
  const Window window = options.window_over(call.op(), "input", input);
  const __int128 rows = window.rows.outputs, columns = window.columns.outputs;
  weight.require_same_kind(input);
  weight.require_shape("[N, Cw, kernel_size^2, H_out * W_out]",
                       {batch, weight_channels, window.taps(), rows * columns});
  if (weight_channels < 1 || channels % weight_channels != 0)
    call.refuse("weight",
                "have a number of channels that divides input's, " +
                    std::to_string(channels),
                std::to_string(weight_channels));
  output.require_same_kind(input);
  output.require_shape("[N, C, H_out, W_out]",
                       {batch, channels, rows, columns});
  output.require_layout_of(input);
  return {batch, channels, weight_channels, window, input.layout()};
}

void aggregation_forward(Call& call, const Options& options,
                         py::handle input_object, py::handle weight_object,
                         py::handle output_object) {
  const Tensor& input = call.read("input", input_object, kImage);
  const Tensor& weight = call.read("weight", weight_object);
  const Tensor& output = call.write("output", output_object, kImage);
  const AggregationShape shape =
      aggregation_shape(call, options, input, weight, output);
  if (output.empty()) return call.check_memory();
  run(call, options, input,
      AggregationForward{input.type(), shape, input.data(), weight.data(),
                         output.data()});
}

void aggregation_backward(Call& call, const Options& options,
                          py::handle grad_output_object,
                          py::handle input_object, py::handle weight_object,
                          py::handle grad_input_object,
                          py::handle grad_weight_object) {
  const Tensor& grad_output =
      call.read("grad_output", grad_output_object, kImage);
  const Tensor& input = call.read("input", input_object, kImage);
  // The gradient of the weight does not depend on the weight: where it is all
  // that is asked for, it says how large the weight is.
  const bool is_weightless =
      weight_object.is_none() && grad_input_object.is_none();
  const Tensor& weight = is_weightless
                             ? call.write("grad_weight", grad_weight_object)
                             : call.read("weight", weight_object);
  const AggregationShape shape =
      aggregation_shape(call, options, input, weight, grad_output);
  void* grad_input = gradient_unless_none(call, "grad_input", grad_input_object,
                                          input, kImage);
  void* grad_weight =
      is_weightless
          ? weight.data()
          : gradient_unless_none(call, "grad_weight", grad_weight_object,
                                 weight, Accepts::kRowMajor);
  if (input.size(0) == 0) return call.check_memory();
  run(call, options, input,
      AggregationBackward{input.type(), shape, grad_output.data(), input.data(),
                          weight.data(), grad_input, grad_weight});
}

// The sizes of one subtraction2. Checks that `output` (or its gradient) has the
// shape that `image` gives.
SubtractionShape subtraction_shape(const Call& call, const Options& options,
                                   const char* name, const Tensor& image,
                                   const Tensor& output) {
  const Window window = options.window_over(call.op(), name, image);
  output.require_same_kind(image);
  output.require_shape(
      "[N, C, kernel_size^2, H_out * W_out]",
      {image.size(0), image.size(1), window.taps(),
       static_cast<__int128>(window.rows.outputs) * window.columns.outputs});
  return {image.size(0), image.size(1), window, image.layout()};
}

void subtraction2_forward(Call& call, const Options& options,
                          py::handle a_object, py::handle b_object,
                          py::handle output_object) {
  const Tensor& a = call.read("a", a_object, kImage);
  const Tensor& b = call.read("b", b_object, kImage);
  const Tensor& output = call.write("output", output_object);
  require_like(b, a);
  const SubtractionShape shape =
      subtraction_shape(call, options, "a", a, output);
  if (output.empty()) return call.check_memory();
  run(call, options, a,
      SubtractionForward{a.type(), shape, a.data(), b.data(), output.data()});
}

void subtraction2_backward(Call& call, const Options& options,
                           py::handle grad_output_object,
                           py::handle grad_a_object, py::handle grad_b_object) {
  const Tensor& grad_output = call.read("grad_output", grad_output_object);
  const Tensor* grad_a =
      call.write_unless_none("grad_a", grad_a_object, kImage);
  const Tensor* grad_b =
      call.write_unless_none("grad_b", grad_b_object, kImage);
  if (!grad_a && !grad_b) return;
  const Tensor& image = grad_a ? *grad_a : *grad_b;
  const SubtractionShape shape = subtraction_shape(
      call, options, grad_a ? "grad_a" : "grad_b", image, grad_output);
  if (grad_b) require_like(*grad_b, image);
  if (grad_output.empty()) return call.check_memory();
  run(call, options, image,
      SubtractionBackward{grad_output.type(), shape, grad_output.data(),
                          data_of(grad_a), data_of(grad_b)});
}

// Adds `function` to the module under the name `op`, with the named tensors
// as arguments followed by the keyword-only options.
template <typename... Objects, typename... Names>
void define(py::module_& module, const char* op,
            void (*function)(Call&, const Options&, Objects...),
            const char* docstring, Names... names) {
  module.def(
      op,
      [=](Objects... tensors, py::handle kernel_size, py::handle stride,
          py::handle padding, py::handle dilation, py::handle padding_mode,
          py::handle implementation, py::handle stream) {
        const Options options(op, kernel_size, stride, padding, dilation,
                              padding_mode, implementation, stream);
        Call call(op, options.stream);
        function(call, options, tensors...);
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
