// Runs the layers around attention on checked arguments. Tensors have four
// dimensions as everywhere; of vectors and matrices the first are 1.
#include "cuda_kernels/norm_relu/binding.h"

#include "cuda_kernels/binding/call.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace py = pybind11;

namespace san {
namespace {

// A call on the input image [N, H, W, C].
class ImageCall : public Call {
 public:
  ImageCall(const char* op, py::handle x_object, uintptr_t stream)
      : Call(op, stream_of(stream)), x(read("x", x_object)) {}

  // A vector or matrix that is read, of the type given.
  const Tensor& matrix(const char* name, py::handle object, ScalarType type,
                       int64_t rows, int64_t columns) {
    return checked(read(name, object), name, type, rows, columns);
  }
  const Tensor& vector(const char* name, py::handle object) {
    const bool is_double = x.type() == ScalarType::kFloat64;
    return matrix(name, object, is_double ? x.type() : ScalarType::kFloat32, 1,
                  x.size(3));
  }
  // Sums, written in float64.
  double* sums(const char* name, py::handle object, int64_t rows,
               int64_t columns) {
    return static_cast<double*>(
        checked(write(name, object), name, ScalarType::kFloat64, rows, columns)
            .data());
  }
  // What windows of pool x pool pixels give, or its gradient.
  const Tensor& require_windows(const Tensor& windows, int64_t pool,
                                int64_t channels) const {
    windows.require_same_kind(x);
    windows.require_shape(
        "[N, H / pool, W / pool, C]",
        {x.size(0), x.size(1) / pool, x.size(2) / pool, channels});
    return windows;
  }
  // The workspace of a task that sums `vectors` values per channel.
  double* partial_sums(py::handle object, int64_t vectors, int64_t channels) {
    return static_cast<double*>(
        workspace(object, norm_relu::workspace_elements(vectors, channels),
                  ScalarType::kFloat64, x));
  }

  norm_relu::ImageShape shape() const {
    return {x.size(0), x.size(1), x.size(2), x.size(3)};
  }

  const Tensor& x;

 private:
  const Tensor& checked(const Tensor& tensor, const char* name, ScalarType type,
                        int64_t rows, int64_t columns) const {
    tensor.require_shape("[1, 1, rows, columns]", {1, 1, rows, columns});
    if (tensor.type() != type)
      refuse(name, "be a vector of the accumulator of x or, as a sum, float64",
             "another type");
    return tensor;
  }
};

int64_t checked_pool(const char* op, py::handle pool) {
  if (!py::isinstance<py::int_>(pool) ||
      !(pool.equal(py::int_(1)) || pool.equal(py::int_(2))))
    fail(op, "pool", "be 1 or 2", py::repr(pool));
  return pool.cast<int64_t>();
}

void channel_moments(py::handle x, py::handle mean_object,
                     py::handle variance_object, py::handle workspace,
                     uintptr_t stream) {
  ImageCall call("channel_moments", x, stream);
  if (call.x.empty())
    call.refuse("x", "have at least one element", "a size of 0");
  const int64_t C = call.x.size(3);
  double* mean = call.sums("mean", mean_object, 1, C);
  double* variance = call.sums("variance", variance_object, 1, C);
  call.run(call.x, norm_relu::ChannelMoments{
                       call.x.type(), call.shape(), call.x.data(), mean,
                       variance, call.partial_sums(workspace, 2, C)});
}

// x, scale, shift and pool, which all directions share.
class NormCall : public ImageCall {
 public:
  NormCall(const char* op, py::handle x, py::handle scale_object,
           py::handle shift_object, py::handle pool_object, uintptr_t stream)
      : ImageCall(op, x, stream),
        pool(checked_pool(op, pool_object)),
        scale(vector("scale", scale_object)),
        shift(vector("shift", shift_object)) {}

  const Tensor& windows(const Tensor& tensor) const {
    return require_windows(tensor, pool, x.size(3));
  }
  norm_relu::NormRelu task() const {
    return {x.type(), shape(), pool, x.data(), scale.data(), shift.data()};
  }

  int64_t pool;
  const Tensor &scale, &shift;
};

void forward(py::handle x, py::handle scale, py::handle shift,
             py::handle output, py::handle pool, uintptr_t stream) {
  NormCall call("norm_relu_forward", x, scale, shift, pool, stream);
  call.run(call.x,
           norm_relu::NormReluForward{
               call.task(), call.windows(call.write("output", output)).data()});
}

void backward_sums(py::handle grad_object, py::handle x, py::handle scale,
                   py::handle shift, py::handle mean_object,
                   py::handle sum_object, py::handle moment_object,
                   py::handle output_object, py::handle pool,
                   py::handle workspace, uintptr_t stream) {
  NormCall call("norm_relu_sums", x, scale, shift, pool, stream);
  const int64_t C = call.x.size(3);
  const Tensor& grad = call.windows(call.read("grad_output", grad_object));
  const Tensor& mean = call.vector("mean", mean_object);
  double* sum = call.sums("sum", sum_object, 1, C);
  double* moment = call.sums("moment", moment_object, 1, C);
  const Tensor* output = call.write_unless_none("output", output_object);
  if (output) call.windows(*output);
  call.run(call.x, norm_relu::NormReluSums{
                       call.task(), grad.data(), mean.data(), sum, moment,
                       data_of(output), call.partial_sums(workspace, 2, C)});
}

void backward(py::handle grad_object, py::handle x, py::handle scale,
              py::handle shift, py::handle constant_object,
              py::handle slope_object, py::handle grad_x_object,
              py::handle pool, uintptr_t stream) {
  NormCall call("norm_relu_backward", x, scale, shift, pool, stream);
  const Tensor& grad = call.windows(call.read("grad_output", grad_object));
  const Tensor& constant = call.vector("constant", constant_object);
  const Tensor& slope = call.vector("slope", slope_object);
  const Tensor& grad_x = call.gradient("grad_x", grad_x_object, call.x);
  // Without pooling an element's gradient is read before its own is written.
  if (call.pool == 1) call.may_be(grad_x, grad);
  call.run(call.x, norm_relu::NormReluBackward{call.task(), grad.data(),
                                               constant.data(), slope.data(),
                                               grad_x.data()});
}

// Images, weight and shift of the stem.
class StemCall : public ImageCall {
 public:
  StemCall(const char* op, py::handle x_object, py::handle weight_object,
           py::handle shift_object, uintptr_t stream)
      : ImageCall(op, x_object, stream),
        weight(read("weight", weight_object)),
        C(weight.size(2)),
        I(x.size(3)),
        shift(matrix("shift", shift_object, x.type(), 1, C)) {
    if (x.type() != ScalarType::kFloat32 && x.type() != ScalarType::kFloat64)
      refuse("x", "be float32 or float64", "a half type");
    weight.require_same_kind(x);
    weight.require_shape("[1, 1, C, I]", {1, 1, C, I});
  }

  norm_relu::Stem task() const {
    return {x.type(), shape(), C, x.data(), weight.data(), shift.data()};
  }

  const Tensor& weight;
  int64_t C, I;
  const Tensor& shift;
};

void stem_forward(py::handle x, py::handle weight, py::handle shift,
                  py::handle output_object, uintptr_t stream) {
  StemCall call("stem_forward", x, weight, shift, stream);
  const Tensor& output = call.write("output", output_object);
  call.require_windows(output, 2, call.C);
  call.run(call.x, norm_relu::StemForward{call.task(), output.data()});
}

void stem_backward(py::handle grad_object, py::handle x, py::handle weight,
                   py::handle shift, py::handle grad_x_object,
                   py::handle grad_weight_object, py::handle grad_shift_object,
                   py::handle workspace, uintptr_t stream) {
  StemCall call("stem_backward", x, weight, shift, stream);
  const int64_t C = call.C, I = call.I;
  const Tensor& grad = call.read("grad_output", grad_object);
  call.require_windows(grad, 2, C);
  double* grad_weight = call.sums("grad_weight", grad_weight_object, C, I);
  double* grad_shift = call.sums("grad_shift", grad_shift_object, 1, C);
  void* grad_x = grad_x_object.is_none()
                     ? nullptr
                     : call.gradient("grad_x", grad_x_object, call.x).data();
  call.run(call.x, norm_relu::StemBackward{
                       call.task(), grad.data(), grad_x, grad_weight,
                       grad_shift, call.partial_sums(workspace, I + 1, C)});
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
