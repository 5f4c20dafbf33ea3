// The stem on CUDA (norm_relu.h).
//
// Idea. The 1x1 convolution of a few input channels is cheaper to compute than
// to read: a thread that owns a channel of a window computes it for the four
// pixels wherever it needs the maximum, forward and backward, and the largest
// tensor of a network is never in memory. The four pixels are the same for all
// threads of a warp, which are neighbouring channels, so each is read once.
#include "cuda_kernels/norm_relu/channel_sums.h"

namespace san::norm_relu {
namespace {

template <typename A>
struct Windows {
  explicit Windows(const Stem& stem)
      : shape(stem.shape),
        channels(stem.channels),
        x(static_cast<const A*>(stem.x)),
        weight(static_cast<const A*>(stem.weight)),
        shift(static_cast<const A*>(stem.shift)) {}

  // The maximum of a window, and its pixel.
  struct Top {
    A value;
    int number;
    SAN_HOST_DEVICE A gate(A grad) const { return value <= 0 ? 0 : grad; }
  };

  SAN_HOST_DEVICE int64_t rows() const { return shape.height / 2; }
  SAN_HOST_DEVICE int64_t columns() const { return shape.width / 2; }
  SAN_HOST_DEVICE int64_t count() const {
    return shape.batch * rows() * columns();
  }
  SAN_HOST_DEVICE const A* pixel(int64_t window, int number) const {
    const int64_t h = window / columns() % rows() * 2 + number / 2;
    const int64_t w = window % columns() * 2 + number % 2;
    const int64_t n = window / columns() / rows();
    return x + ((n * shape.height + h) * shape.width + w) * shape.channels;
  }
  SAN_HOST_DEVICE Top top(int64_t window, int64_t c) const {
    Top best = {0, -1};
    for (int number = 0; number < 4; ++number) {
      const A* from = pixel(window, number);
      A z = shift[c];
      for (int64_t i = 0; i < shape.channels; ++i)
        z += from[i] * weight[c * shape.channels + i];
      if (number == 0 || z > best.value || z != z) best = {z, number};
    }
    return best;
  }

  ImageShape shape;
  int64_t channels;
  const A *x, *weight, *shift;
};

template <typename A>
__global__ void forward(Windows<A> windows, A* output) {
  const int64_t window = own_pixel(), c = own_channel();
  if (window >= windows.count() || c >= windows.channels) return;
  const A value = windows.top(window, c).value;
  output[window * windows.channels + c] = value < 0 ? 0 : value;
}

// Quantity i < I is the gradient of weight[c, i], quantity I that of shift[c].
template <typename A>
struct ParameterGradient {
  SAN_HOST_DEVICE A operator()(int64_t window, int64_t c, int i) const {
    const auto top = windows.top(window, c);
    const A g = top.gate(grad[window * windows.channels + c]);
    return i == windows.shape.channels
               ? g
               : g * windows.pixel(window, top.number)[i];
  }
  Windows<A> windows;
  const A* grad;
};

struct StoreGradients {
  SAN_HOST_DEVICE void operator()(int64_t i, int64_t c,
                                  const double* totals) const {
    if (i == inputs)
      grad_shift[c] = totals[0];
    else
      grad_weight[c * inputs + i] = totals[0];
  }
  int64_t inputs;
  double *grad_weight, *grad_shift;
};

// A thread owns one input channel of one pixel and asks all channels of the
// window whether they took it.
template <typename A>
__global__ void backward_input(Windows<A> windows, const A* grad, A* grad_x) {
  const ImageShape& s = windows.shape;
  const int64_t p = own_pixel(), i = own_channel();
  if (p >= s.batch * s.height * s.width || i >= s.channels) return;
  const int64_t h = p / s.width % s.height, w = p % s.width;
  A sum = 0;
  if (h / 2 < windows.rows() && w / 2 < windows.columns()) {
    const int64_t n = p / s.width / s.height;
    const int64_t window =
        (n * windows.rows() + h / 2) * windows.columns() + w / 2;
    for (int64_t c = 0; c < windows.channels; ++c) {
      const auto top = windows.top(window, c);
      if (top.number == h % 2 * 2 + w % 2)
        sum += top.gate(grad[window * windows.channels + c]) *
               windows.weight[c * s.channels + i];
    }
  }
  grad_x[p * s.channels + i] = sum;
}

template <typename A>
void run(const StemForward& task, void* stream) {
  const Windows<A> windows(task.stem);
  launch_elements(&forward<A>, windows.count(), windows.channels, stream,
                  windows, static_cast<A*>(task.output));
}

template <typename A>
void run(const StemBackward& task, void* stream) {
  const Windows<A> windows(task.stem);
  const ImageShape& s = task.stem.shape;
  const A* grad = static_cast<const A*>(task.grad_output);
  sum_channels<A, 1>(
      ParameterGradient<A>{windows, grad},
      StoreGradients{s.channels, task.grad_weight, task.grad_shift},
      s.channels + 1, windows.count(), windows.channels, task.workspace,
      stream);
  if (!task.grad_x) return;
  launch_elements(&backward_input<A>, s.batch * s.height * s.width, s.channels,
                  stream, windows, grad, static_cast<A*>(task.grad_x));
}

}  // namespace

void run_on_cuda(const StemForward& task, void* stream) {
  task.stem.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                         : run<float>(task, stream);
}
void run_on_cuda(const StemBackward& task, void* stream) {
  task.stem.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                         : run<float>(task, stream);
}

}  // namespace san::norm_relu
