// Checks the arguments of the 1x1 convolution and of its gradient and runs
// them, on the CPU only. Tensors have four dimensions as everywhere; of vectors
// the first three are 1.
#include "cuda_kernels/pointwise/binding.h"

#include <string>

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/pointwise/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

constexpr char kDoc[] =
    "y = bias + addend + sum over c of weight[:, c] * f(x[..., c]).\n\n"
    "f is max(0, scale * x + shift); max(0, x) if `relu`; else x. On the CPU:\n"
    "x [N, H, W, C] and y [N, H, W, O] in float32, float64, or bfloat16 where\n"
    "takes_bfloat16() and C is at most 2048; of the accumulator of x, scale "
    "and\n"
    "shift [1, 1, 1, C] or both None, bias [1, 1, 1, O] or None. addend is "
    "like\n"
    "y, or None; it may be y. panels, of\n"
    "the dtype of x, is the weight [O, C] in parts of 32 rows,\n"
    "[1, ceil(O / 32), C, 32], the last one filled up with zeros; in bfloat16\n"
    "with pairs of columns side by side, [1, ceil(O / 32), ceil(C / 2), 64].\n"
    "Written in place; the same bits for any number of threads.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

constexpr char kPanelsDoc[] =
    "Writes the panels of a weight as pointwise_forward takes them.\n\n"
    "weight is [1, 1, O, C], or [1, 1, C, O] if `transposed`; its dtype and "
    "that\n"
    "of panels are those of x there.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

constexpr char kGradientDoc[] =
    "The gradients of pointwise_forward's weight and bias.\n\n"
    "grad_weight[o, c] = sum over pixels of grad_y[..., o] * f(x[..., c]), f "
    "with\n"
    "scale and shift or, where both are None, none; grad_bias[o] the sum of\n"
    "grad_y. On the CPU: x [N, H, W, C] and grad_y [N, H, W, O] in float32,\n"
    "float64, or bfloat16 where takes_bfloat16(); of their accumulator scale "
    "and\n"
    "shift [1, 1, 1, C], grad_weight [1, 1, O, C], grad_bias [1, 1, 1, O]. "
    "The\n"
    "same bits for any number of threads.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

ScalarType accumulator_of(const Tensor& tensor) {
  return tensor.type() == ScalarType::kFloat64 ? ScalarType::kFloat64
                                               : ScalarType::kFloat32;
}

const Tensor* vector_unless_none(Call& call, const char* name,
                                 py::handle object, const Tensor& like,
                                 int64_t length) {
  if (object.is_none()) return nullptr;
  const Tensor& tensor = call.read(name, object);
  tensor.require_kind(accumulator_of(like), like);
  tensor.require_shape("[1, 1, 1, channels]", {1, 1, 1, length});
  return &tensor;
}

// Scale and shift [1, 1, 1, C] of x, or neither.
struct Norm {
  const void *scale, *shift;
};
Norm norm_unless_none(Call& call, py::handle scale_object,
                      py::handle shift_object, const Tensor& x) {
  const Tensor* scale =
      vector_unless_none(call, "scale", scale_object, x, x.size(3));
  const Tensor* shift =
      vector_unless_none(call, "shift", shift_object, x, x.size(3));
  if (!scale != !shift)
    call.refuse("shift", "be given if and only if scale is",
                shift ? "a tensor" : "None");
  return {data_of(scale), data_of(shift)};
}

void require_type(const Call& call, const char* name, const Tensor& tensor) {
  if (tensor.on_cuda()) call.refuse(name, "be on the CPU", "a tensor on CUDA");
  if (tensor.type() == ScalarType::kFloat16)
    call.refuse(name, "be float32, float64 or bfloat16", "float16");
  if (tensor.type() == ScalarType::kBfloat16 && !multiplies_bfloat16())
    call.refuse(name, "be float32 or float64 on this processor", "bfloat16");
}

void require_panels(const Tensor& panels, const Tensor& like, int64_t C,
                    int64_t O) {
  const bool pairs = like.type() == ScalarType::kBfloat16;
  const __int128 steps = pairs ? (C + 1) / 2 : C;
  panels.require_same_kind(like);
  panels.require_shape(
      pairs ? "[1, ceil(O / 32), ceil(C / 2), 64]" : "[1, ceil(O / 32), C, 32]",
      {1, pointwise::panels_of(O), steps, pointwise::kPanel * (1 + pairs)});
}

void forward(py::handle x_object, py::handle scale_object,
             py::handle shift_object, py::handle panels_object,
             py::handle bias_object, py::handle y_object, bool relu,
             py::handle addend_object) {
  Call call("pointwise_forward");
  const Tensor& x = call.read("x", x_object);
  require_type(call, "x", x);
  const Tensor& panels = call.read("panels", panels_object);
  const Tensor& y = call.write("y", y_object);
  const int64_t C = x.size(3), O = y.size(3);
  y.require_same_kind(x);
  y.require_shape("[N, H, W, O]", {x.size(0), x.size(1), x.size(2), O});
  if (x.type() == ScalarType::kBfloat16 && C > pointwise::kMostBfloat16Channels)
    call.refuse("x", "have at most 2048 channels in bfloat16",
                std::to_string(C));
  require_panels(panels, x, C, O);
  const auto norm = norm_unless_none(call, scale_object, shift_object, x);
  const Tensor* bias = vector_unless_none(call, "bias", bias_object, x, O);
  if (norm.scale && !relu) call.refuse("relu", "be True with scale", "False");
  const Tensor* addend = nullptr;
  if (!addend_object.is_none()) {
    addend = &call.read("addend", addend_object);
    addend->require_same_kind(x);
    addend->require_shape_of(y);
    call.may_be(y, *addend);
  }
  call.check_memory();
  const pointwise::Pointwise task = {x.type(),
                                     x.size(0) * x.size(1) * x.size(2),
                                     C,
                                     O,
                                     x.data(),
                                     relu,
                                     norm.scale,
                                     norm.shift,
                                     panels.data(),
                                     data_of(bias),
                                     data_of(addend),
                                     y.data()};
  const py::gil_scoped_release without_gil;
  run_on_cpu(task);
}

void write_panels(py::handle weight_object, py::handle panels_object,
                  bool transposed) {
  Call call("pointwise_panels");
  const Tensor& weight = call.read("weight", weight_object);
  const Tensor& panels = call.write("panels", panels_object);
  const int64_t rows = weight.size(2), columns = weight.size(3);
  const int64_t C = transposed ? rows : columns;
  const int64_t O = transposed ? columns : rows;
  require_type(call, "weight", weight);
  weight.require_shape("[1, 1, rows, columns]", {1, 1, rows, columns});
  require_panels(panels, weight, C, O);
  call.check_memory();
  const py::gil_scoped_release without_gil;
  run_on_cpu(pointwise::PointwisePanels{weight.type(), C, O, weight.data(),
                                        transposed, panels.data()});
}

void gradient(py::handle x_object, py::handle scale_object,
              py::handle shift_object, py::handle grad_y_object,
              py::handle grad_weight_object, py::handle grad_bias_object) {
  Call call("pointwise_gradient");
  const Tensor& x = call.read("x", x_object);
  require_type(call, "x", x);
  const Tensor& grad_y = call.read("grad_y", grad_y_object);
  const Tensor& grad_weight = call.write("grad_weight", grad_weight_object);
  const Tensor& grad_bias = call.write("grad_bias", grad_bias_object);
  const int64_t C = x.size(3), O = grad_y.size(3);
  grad_y.require_same_kind(x);
  for (const Tensor* tensor : {&grad_weight, &grad_bias})
    tensor->require_kind(accumulator_of(x), x);
  grad_y.require_shape("[N, H, W, O]", {x.size(0), x.size(1), x.size(2), O});
  grad_weight.require_shape("[1, 1, O, C]", {1, 1, O, C});
  grad_bias.require_shape("[1, 1, 1, O]", {1, 1, 1, O});
  const auto norm = norm_unless_none(call, scale_object, shift_object, x);
  call.check_memory();
  const py::gil_scoped_release without_gil;
  run_on_cpu(pointwise::PointwiseGradient{
      x.type(), x.size(0) * x.size(1) * x.size(2), C, O, x.data(), norm.scale,
      norm.shift, grad_y.data(), grad_weight.data(), grad_bias.data()});
}

}  // namespace

void define_pointwise(py::module_& module) {
  module.attr("POINTWISE_PANEL") = pointwise::kPanel;
  module.def("pointwise_forward", &forward, kDoc, py::arg("x"),
             py::arg("scale"), py::arg("shift"), py::arg("panels"),
             py::arg("bias"), py::arg("y"), py::kw_only(),
             py::arg("relu") = false, py::arg("addend") = py::none());
  module.def("pointwise_panels", &write_panels, kPanelsDoc, py::arg("weight"),
             py::arg("panels"), py::kw_only(), py::arg("transposed") = false);
  module.def("pointwise_gradient", &gradient, kGradientDoc, py::arg("x"),
             py::arg("scale"), py::arg("shift"), py::arg("grad_y"),
             py::arg("grad_weight"), py::arg("grad_bias"));
}

}  // namespace san
