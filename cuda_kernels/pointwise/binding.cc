// Checks the arguments of the 1x1 convolution and runs it, on the CPU only.
// Tensors have four dimensions as everywhere; of vectors the first three are 1.
#include "cuda_kernels/pointwise/binding.h"

#include <optional>
#include <string>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/binding/tensor.h"
#include "cuda_kernels/pointwise/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

constexpr char kOp[] = "pointwise_forward";

constexpr char kDoc[] =
    "y = bias + sum over c of weight[:, c] * f(x[..., c]), or y += the sum.\n\n"
    "f is max(0, scale * x + shift); max(0, x) if `relu`; else x. All of one\n"
    "type, float32 or float64, on the CPU: x [N, H, W, C], y [N, H, W, O], "
    "scale and shift [1, 1, 1, C]\n"
    "or both None, bias [1, 1, 1, O] or None. panels is the weight [O, C] in\n"
    "parts of 32 rows, [1, ceil(O / 32), C, 32], the last one filled up with\n"
    "zeros. Written in place; the same bits for any number of threads.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

std::optional<Tensor> vector(const char* name, py::handle object,
                             const Tensor& like, int64_t length) {
  if (object.is_none()) return std::nullopt;
  std::optional<Tensor> tensor(Tensor(kOp, name, object, Access::kRead));
  tensor->require_same_kind(like);
  tensor->require_shape("[1, 1, 1, channels]", {1, 1, 1, length});
  return tensor;
}

const void* data_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->data() : nullptr;
}

void forward(py::handle x_object, py::handle scale_object,
             py::handle shift_object, py::handle panels_object,
             py::handle bias_object, py::handle y_object, bool relu, bool add) {
  const Tensor x(kOp, "x", x_object, Access::kRead);
  if (x.type() != ScalarType::kFloat32 && x.type() != ScalarType::kFloat64)
    fail(kOp, "x", "be float32 or float64", "a half type");
  if (x.on_cuda()) fail(kOp, "x", "be on the CPU", "a tensor on CUDA");
  const Tensor y(kOp, "y", y_object, Access::kWrite);
  const Tensor panels(kOp, "panels", panels_object, Access::kRead);
  const int64_t C = x.size(3), O = y.size(3);
  y.require_same_kind(x);
  y.require_shape("[N, H, W, O]", {x.size(0), x.size(1), x.size(2), O});
  panels.require_same_kind(x);
  panels.require_shape("[1, ceil(O / 32), C, 32]",
                       {1, pointwise::panels_of(O), C, pointwise::kPanel});
  const auto scale = vector("scale", scale_object, x, C);
  const auto shift = vector("shift", shift_object, x, C);
  const auto bias = vector("bias", bias_object, x, O);
  if (scale.has_value() != shift.has_value())
    fail(kOp, "shift", "be given if and only if scale is",
         shift ? "a tensor" : "None");
  if (scale && !relu) fail(kOp, "relu", "be True with scale", "False");
  if (bias && add) fail(kOp, "bias", "be None with add", "a tensor");
  y.require_apart_from(x);
  y.require_apart_from(panels);
  for (const auto* other : {&scale, &shift, &bias})
    if (*other) y.require_apart_from(**other);
  const pointwise::Pointwise task = {x.type(),
                                     x.size(0) * x.size(1) * x.size(2),
                                     C,
                                     O,
                                     x.data(),
                                     relu,
                                     data_of(scale),
                                     data_of(shift),
                                     panels.data(),
                                     add,
                                     data_of(bias),
                                     y.data()};
  const py::gil_scoped_release without_gil;
  run_on_cpu(task);
}

}  // namespace

void define_pointwise(py::module_& module) {
  module.attr("POINTWISE_PANEL") = pointwise::kPanel;
  module.def("pointwise_forward", &forward, kDoc, py::arg("x"),
             py::arg("scale"), py::arg("shift"), py::arg("panels"),
             py::arg("bias"), py::arg("y"), py::kw_only(),
             py::arg("relu") = false, py::arg("add") = false);
}

}  // namespace san
