// Checks the arguments of the layers around attention and runs them. Tensors
// have four dimensions as everywhere; of vectors and matrices the first are 1.
#include "cuda_kernels/norm_relu/binding.h"

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "cuda_kernels/binding/dispatch.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

using norm_relu::ImageShape;

// The input image [N, H, W, C].
class Image : public Tensor {
 public:
  Image(const char* op, py::handle object)
      : Tensor(op, "x", object, Access::kRead) {}

  ImageShape shape() const { return {size(0), size(1), size(2), size(3)}; }
  ScalarType accumulator() const {
    return type() == ScalarType::kFloat64 ? type() : ScalarType::kFloat32;
  }
  void require_windows(const Tensor& windows, int64_t pool,
                       int64_t channels) const {
    windows.require_same_kind(*this);
    windows.require_shape("[N, H / pool, W / pool, C]",
                          {size(0), size(1) / pool, size(2) / pool, channels});
  }
};

// A vector or matrix, of the type given.
Tensor matrix(const char* op, const char* name, py::handle object,
              Access access, ScalarType type, int64_t rows, int64_t columns) {
  const Tensor tensor(op, name, object, access);
  tensor.require_shape("[1, 1, rows, columns]", {1, 1, rows, columns});
  if (tensor.type() != type)
    fail(op, name, "be a vector of the accumulator of x or, as a sum, float64",
         "another type");
  return tensor;
}

void require_apart(std::initializer_list<const Tensor*> outputs,
                   std::initializer_list<const Tensor*> others) {
  for (const Tensor* output : outputs) {
    for (const Tensor* other : others) output->require_apart_from(*other);
    for (const Tensor* other : outputs)
      if (other != output) output->require_apart_from(*other);
  }
}

int64_t checked_pool(const char* op, py::handle pool) {
  if (!py::isinstance<py::int_>(pool) ||
      !(pool.equal(py::int_(1)) || pool.equal(py::int_(2))))
    fail(op, "pool", "be 1 or 2", py::repr(pool));
  return pool.cast<int64_t>();
}

constexpr ScalarType kSum = ScalarType::kFloat64;

double* sums(const Tensor& tensor) {
  return static_cast<double*>(tensor.data());
}

// The workspace of a task that sums `vectors` values per channel.
double* partial_sums(const char* op, py::handle workspace, int64_t vectors,
                     const Tensor& like, int64_t channels,
                     const std::vector<const Tensor*>& others) {
  return static_cast<double*>(checked_workspace(
      op, workspace, norm_relu::workspace_elements(vectors, channels), kSum,
      like, others));
}

void channel_moments(py::handle x_object, py::handle mean_object,
                     py::handle variance_object, py::handle workspace,
                     uintptr_t stream) {
  const char* op = "channel_moments";
  const Image x(op, x_object);
  const int64_t C = x.size(3);
  if (x.empty()) fail(op, "x", "have at least one element", "a size of 0");
  const Tensor mean =
      matrix(op, "mean", mean_object, Access::kWrite, kSum, 1, C);
  const Tensor variance =
      matrix(op, "variance", variance_object, Access::kWrite, kSum, 1, C);
  require_apart({&mean, &variance}, {&x});
  run_fused(op, x,
            norm_relu::ChannelMoments{
                x.type(), x.shape(), x.data(), sums(mean), sums(variance),
                partial_sums(op, workspace, 2, x, C, {&x, &mean, &variance})},
            stream_of(stream));
}

// x, scale, shift and pool, which all directions share.
struct Norm {
  Norm(const char* op, py::handle x_object, py::handle scale_object,
       py::handle shift_object, py::handle pool_object)
      : op(op),
        x(op, x_object),
        C(x.size(3)),
        pool(checked_pool(op, pool_object)),
        scale(vector("scale", scale_object)),
        shift(vector("shift", shift_object)) {}

  Tensor vector(const char* name, py::handle object) const {
    return matrix(op, name, object, Access::kRead, x.accumulator(), 1, C);
  }
  Tensor windows(const char* name, py::handle object, Access access) const {
    const Tensor tensor(op, name, object, access);
    x.require_windows(tensor, pool, C);
    return tensor;
  }
  norm_relu::NormRelu task() const {
    return {x.type(), x.shape(), pool, x.data(), scale.data(), shift.data()};
  }

  const char* op;
  Image x;
  int64_t C, pool;
  Tensor scale, shift;
};

void forward(py::handle x, py::handle scale, py::handle shift,
             py::handle output_object, py::handle pool, uintptr_t stream) {
  const Norm norm("norm_relu_forward", x, scale, shift, pool);
  const Tensor output = norm.windows("output", output_object, Access::kWrite);
  require_apart({&output}, {&norm.x, &norm.scale, &norm.shift});
  run_fused(norm.op, norm.x,
            norm_relu::NormReluForward{norm.task(), output.data()},
            stream_of(stream));
}

void backward_sums(py::handle grad_object, py::handle x, py::handle scale,
                   py::handle shift, py::handle mean_object,
                   py::handle sum_object, py::handle moment_object,
                   py::handle output_object, py::handle pool,
                   py::handle workspace, uintptr_t stream) {
  const char* op = "norm_relu_sums";
  const Norm norm(op, x, scale, shift, pool);
  const Tensor grad = norm.windows("grad_output", grad_object, Access::kRead);
  const Tensor mean = norm.vector("mean", mean_object);
  const Tensor sum =
      matrix(op, "sum", sum_object, Access::kWrite, kSum, 1, norm.C);
  const Tensor moment =
      matrix(op, "moment", moment_object, Access::kWrite, kSum, 1, norm.C);
  require_apart({&sum, &moment},
                {&grad, &norm.x, &norm.scale, &norm.shift, &mean});
  std::optional<Tensor> output;
  if (!output_object.is_none()) {
    output = norm.windows("output", output_object, Access::kWrite);
    require_apart({&*output}, {&grad, &norm.x, &norm.scale, &norm.shift, &mean,
                               &sum, &moment});
  }
  std::vector<const Tensor*> others = {&grad, &norm.x, &mean, &sum, &moment};
  if (output) others.push_back(&*output);
  run_fused(op, norm.x,
            norm_relu::NormReluSums{
                norm.task(), grad.data(), mean.data(), sums(sum), sums(moment),
                output ? output->data() : nullptr,
                partial_sums(op, workspace, 2, norm.x, norm.C, others)},
            stream_of(stream));
}

void backward(py::handle grad_object, py::handle x, py::handle scale,
              py::handle shift, py::handle constant_object,
              py::handle slope_object, py::handle grad_x_object,
              py::handle pool, uintptr_t stream) {
  const Norm norm("norm_relu_backward", x, scale, shift, pool);
  const Tensor grad = norm.windows("grad_output", grad_object, Access::kRead);
  const Tensor constant = norm.vector("constant", constant_object);
  const Tensor slope = norm.vector("slope", slope_object);
  const Tensor grad_x(norm.op, "grad_x", grad_x_object, Access::kWrite);
  grad_x.require_same_kind(norm.x);
  grad_x.require_shape_of(norm.x);
  require_apart({&grad_x},
                {&norm.x, &norm.scale, &norm.shift, &constant, &slope});
  // Without pooling an element's gradient is read before its own is written.
  if (norm.pool != 1 || grad_x.data() != grad.data())
    grad_x.require_apart_from(grad);
  run_fused(
      norm.op, norm.x,
      norm_relu::NormReluBackward{norm.task(), grad.data(), constant.data(),
                                  slope.data(), grad_x.data()},
      stream_of(stream));
}

// Images, weight and shift of the stem.
struct StemInputs {
  StemInputs(const char* op, py::handle x_object, py::handle weight_object,
             py::handle shift_object)
      : op(op),
        x(op, x_object),
        weight(op, "weight", weight_object, Access::kRead),
        C(weight.size(2)),
        I(x.size(3)),
        shift(
            matrix(op, "shift", shift_object, Access::kRead, x.type(), 1, C)) {
    if (x.type() != ScalarType::kFloat32 && x.type() != ScalarType::kFloat64)
      fail(op, "x", "be float32 or float64", "a half type");
    weight.require_same_kind(x);
    weight.require_shape("[1, 1, C, I]", {1, 1, C, I});
  }

  norm_relu::Stem task() const {
    return {x.type(), x.shape(), C, x.data(), weight.data(), shift.data()};
  }

  const char* op;
  Image x;
  Tensor weight;
  int64_t C, I;
  Tensor shift;
};

void stem_forward(py::handle x, py::handle weight, py::handle shift,
                  py::handle output_object, uintptr_t stream) {
  const StemInputs in("stem_forward", x, weight, shift);
  const Tensor output(in.op, "output", output_object, Access::kWrite);
  in.x.require_windows(output, 2, in.C);
  require_apart({&output}, {&in.x, &in.weight, &in.shift});
  run_fused(in.op, in.x, norm_relu::StemForward{in.task(), output.data()},
            stream_of(stream));
}

void stem_backward(py::handle grad_object, py::handle x, py::handle weight,
                   py::handle shift, py::handle grad_x_object,
                   py::handle grad_weight_object, py::handle grad_shift_object,
                   py::handle workspace, uintptr_t stream) {
  const char* op = "stem_backward";
  const StemInputs in(op, x, weight, shift);
  const Tensor grad(op, "grad_output", grad_object, Access::kRead);
  in.x.require_windows(grad, 2, in.C);
  const Tensor grad_weight = matrix(op, "grad_weight", grad_weight_object,
                                    Access::kWrite, kSum, in.C, in.I);
  const Tensor grad_shift = matrix(op, "grad_shift", grad_shift_object,
                                   Access::kWrite, kSum, 1, in.C);
  require_apart({&grad_weight, &grad_shift},
                {&grad, &in.x, &in.weight, &in.shift});
  std::optional<Tensor> grad_x;
  if (!grad_x_object.is_none()) {
    grad_x.emplace(op, "grad_x", grad_x_object, Access::kWrite);
    grad_x->require_same_kind(in.x);
    grad_x->require_shape_of(in.x);
    require_apart({&*grad_x}, {&grad, &in.x, &in.weight, &in.shift,
                               &grad_weight, &grad_shift});
  }
  std::vector<const Tensor*> others = {&grad, &in.x, &grad_weight, &grad_shift};
  if (grad_x) others.push_back(&*grad_x);
  run_fused(op, in.x,
            norm_relu::StemBackward{
                in.task(), grad.data(), grad_x ? grad_x->data() : nullptr,
                sums(grad_weight), sums(grad_shift),
                partial_sums(op, workspace, in.I + 1, in.x, in.C, others)},
            stream_of(stream));
}

}  // namespace

void define_norm_relu(py::module_& module) {
  const auto only = py::kw_only();
  const auto arg = [](const char* name) { return py::arg(name); };
  const auto stream = py::arg("stream") = 0;
  const auto workspace = py::arg("workspace") = py::none();
  module.def("norm_relu_workspace", &norm_relu::workspace_elements,
             "How many float64 elements the tasks here that sum `vectors` "
             "values per channel need as workspace, [1, 1, 1, n], on CUDA. "
             "channel_moments and norm_relu_sums sum 2, stem_backward I + 1.",
             arg("vectors"), arg("channels"));
  module.def("channel_moments", &channel_moments,
             "Writes the float64 mean and biased variance of each channel of "
             "x [N, H, W, C].",
             arg("x"), arg("mean"), arg("variance"), only, workspace, stream);
  module.def("norm_relu_forward", &forward,
             "Writes max(0, scale * x + shift), or its maxima over windows of "
             "2 x 2 pixels.",
             arg("x"), arg("scale"), arg("shift"), arg("output"), only,
             arg("pool") = 1, stream);
  module.def("norm_relu_sums", &backward_sums,
             "Writes the sums over all pixels of g and of g * (x - mean), and "
             "the output again unless it is None.",
             arg("grad_output"), arg("x"), arg("scale"), arg("shift"),
             arg("mean"), arg("sum"), arg("moment"), arg("output"), only,
             arg("pool") = 1, workspace, stream);
  module.def("norm_relu_backward", &backward,
             "Writes scale * g + constant + slope * x into grad_x.",
             arg("grad_output"), arg("x"), arg("scale"), arg("shift"),
             arg("constant"), arg("slope"), arg("grad_x"), only,
             arg("pool") = 1, stream);
  module.def("stem_forward", &stem_forward,
             "Writes the maxima over windows of 2 x 2 pixels of max(0, weight "
             "x + shift).",
             arg("x"), arg("weight"), arg("shift"), arg("output"), only,
             stream);
  module.def("stem_backward", &stem_backward,
             "Writes the gradients of stem_forward; that of x unless it is "
             "None.",
             arg("grad_output"), arg("x"), arg("weight"), arg("shift"),
             arg("grad_x"), arg("grad_weight"), arg("grad_shift"), only,
             workspace, stream);
}

}  // namespace san
