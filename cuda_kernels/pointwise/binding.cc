// Checks the arguments of the 1x1 convolution and runs it, on the CPU only.
// Tensors have four dimensions as everywhere; of vectors the first three are 1.
#include "cuda_kernels/pointwise/binding.h"

#include <string>

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/pointwise/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

constexpr char kOp[] = "pointwise_forward";

constexpr char kDoc[] =
    "y = bias + sum over c of weight[:, c] * f(x[..., c]), or y += that.\n\n"
    "f is max(0, scale * x + shift); max(0, x) if `relu`; else x. On the CPU:\n"
    "x [N, H, W, C] and y [N, H, W, O] in float32, float64, or bfloat16 where\n"
    "takes_bfloat16() and C is at most 2048; of the accumulator of x, scale "
    "and\n"
    "shift [1, 1, 1, C] or both None, bias [1, 1, 1, O] or None. panels, of\n"
    "the dtype of x, is the weight [O, C] in parts of 32 rows,\n"
    "[1, ceil(O / 32), C, 32], the last one filled up with zeros; in bfloat16\n"
    "with pairs of columns side by side, [1, ceil(O / 32), ceil(C / 2), 64].\n"
    "Written in place; the same bits for any number of threads.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

constexpr char kTakesBfloat16Doc[] =
    "Whether pointwise_forward takes bfloat16: the processor multiplies pairs\n"
    "of it (avx512_bf16), in the instruction set in use, and has no AMX, "
    "which\n"
    "PyTorch uses.";

const Tensor* vector_unless_none(Call& call, const char* name,
                                 py::handle object, const Tensor& like,
                                 int64_t length) {
  if (object.is_none()) return nullptr;
  const Tensor& tensor = call.read(name, object);
  tensor.require_kind(like.type() == ScalarType::kFloat64
                          ? ScalarType::kFloat64
                          : ScalarType::kFloat32,
                      like);
  tensor.require_shape("[1, 1, 1, channels]", {1, 1, 1, length});
  return &tensor;
}

void forward(py::handle x_object, py::handle scale_object,
             py::handle shift_object, py::handle panels_object,
             py::handle bias_object, py::handle y_object, bool relu, bool add) {
  Call call(kOp);
  const Tensor& x = call.read("x", x_object);
  const bool pairs = x.type() == ScalarType::kBfloat16;
  if (x.type() == ScalarType::kFloat16)
    fail(kOp, "x", "be float32, float64 or bfloat16", "float16");
  if (pairs && !pointwise::takes_bfloat16())
    fail(kOp, "x", "be float32 or float64 on this processor", "bfloat16");
  if (x.on_cuda()) fail(kOp, "x", "be on the CPU", "a tensor on CUDA");
  const Tensor& panels = call.read("panels", panels_object);
  const Tensor& y = call.write("y", y_object);
  const int64_t C = x.size(3), O = y.size(3);
  y.require_same_kind(x);
  y.require_shape("[N, H, W, O]", {x.size(0), x.size(1), x.size(2), O});
  panels.require_same_kind(x);
  if (pairs && C > pointwise::kMostBfloat16Channels)
    fail(kOp, "x", "have at most 2048 channels in bfloat16", std::to_string(C));
  const __int128 steps = pairs ? (C + 1) / 2 : C;
  panels.require_shape(
      pairs ? "[1, ceil(O / 32), ceil(C / 2), 64]" : "[1, ceil(O / 32), C, 32]",
      {1, pointwise::panels_of(O), steps, pointwise::kPanel * (1 + pairs)});
  const Tensor* scale = vector_unless_none(call, "scale", scale_object, x, C);
  const Tensor* shift = vector_unless_none(call, "shift", shift_object, x, C);
  const Tensor* bias = vector_unless_none(call, "bias", bias_object, x, O);
  if (!scale != !shift)
    fail(kOp, "shift", "be given if and only if scale is",
         shift ? "a tensor" : "None");
  if (scale && !relu) fail(kOp, "relu", "be True with scale", "False");
  call.check_memory();
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
  module.def("takes_bfloat16", &pointwise::takes_bfloat16, kTakesBfloat16Doc);
  module.def("pointwise_forward", &forward, kDoc, py::arg("x"),
             py::arg("scale"), py::arg("shift"), py::arg("panels"),
             py::arg("bias"), py::arg("y"), py::kw_only(),
             py::arg("relu") = false, py::arg("add") = false);
}

}  // namespace san
