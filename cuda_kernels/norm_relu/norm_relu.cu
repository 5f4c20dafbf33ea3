// Norm, ReLU and pooling on CUDA (norm_relu.h).
//
// Idea. These are streams: a thread owns one channel of one window or pixel,
// neighbouring threads neighbouring channels, and what a window needs is read
// k * k times at most, from the cache but for the first. Nothing is kept from
// the forward pass, the maximum of a window is found again. Sums are in
// channel_sums.h.
#include "cuda_kernels/norm_relu/channel_sums.h"

namespace san::norm_relu {
namespace {

// The windows of a norm, and for one channel which pixel is the maximum.
template <typename T, int k>
struct Windows {
  using A = Accumulator<T>;

  explicit Windows(const NormRelu& norm)
      : shape(norm.shape),
        x(static_cast<const T*>(norm.x)),
        scale(static_cast<const A*>(norm.scale)),
        shift(static_cast<const A*>(norm.shift)) {}

  struct Top {
    A value, x;
    int number;
    SAN_HOST_DEVICE A relu() const { return value < 0 ? 0 : value; }
    // The gradient that passes the ReLU.
    SAN_HOST_DEVICE A gate(A grad) const { return value <= 0 ? 0 : grad; }
  };

  SAN_HOST_DEVICE int64_t rows() const { return shape.height / k; }
  SAN_HOST_DEVICE int64_t columns() const { return shape.width / k; }
  SAN_HOST_DEVICE int64_t count() const {
    return shape.batch * rows() * columns();
  }

  // The first of equals, NaN before all, as torch's max_pool2d.
  SAN_HOST_DEVICE Top top(int64_t window, int64_t c) const {
    const int64_t i = window / columns() % rows(), j = window % columns();
    const int64_t n = window / columns() / rows();
    const T* first =
        x +
        ((n * shape.height + i * k) * shape.width + j * k) * shape.channels + c;
    Top best = {0, 0, -1};
    for (int q = 0; q < k * k; ++q) {
      const A v = wide(first[(q / k * shape.width + q % k) * shape.channels]);
      const A z = scale[c] * v + shift[c];
      if (q == 0 || z > best.value || z != z) best = {z, v, q};
    }
    return best;
  }

  ImageShape shape;
  const T* x;
  const A *scale, *shift;
};

template <typename T, int k>
__global__ void forward(Windows<T, k> windows, T* output) {
  const int64_t window = own_pixel(), c = own_channel();
  if (window >= windows.count() || c >= windows.shape.channels) return;
  output[window * windows.shape.channels + c] =
      rounded<T>(windows.top(window, c).relu());
}

// The two sums of a channel, one window at a time; also the output.
template <typename T, int k>
struct WindowGradient {
  using A = Accumulator<T>;

  SAN_HOST_DEVICE A operator()(int64_t window, int64_t c, int q) const {
    const auto top = windows.top(window, c);
    const int64_t at = window * windows.shape.channels + c;
    const A g = top.gate(wide(grad[at]));
    if (q == 0 && output) output[at] = rounded<T>(top.relu());
    return q == 0 ? g : g * (top.x - mean[c]);
  }

  Windows<T, k> windows;
  const T* grad;
  const A* mean;
  T* output;
};

struct StoreSums {
  SAN_HOST_DEVICE void operator()(int64_t, int64_t c,
                                  const double* totals) const {
    sum[c] = totals[0];
    moment[c] = totals[1];
  }
  double *sum, *moment;
};

// A thread owns a pixel, whose window tells whether the gradient is its.
template <typename T, int k>
__global__ void backward(Windows<T, k> windows, const T* grad,
                         const Accumulator<T>* constant,
                         const Accumulator<T>* slope, T* grad_x) {
  using A = Accumulator<T>;
  const ImageShape& s = windows.shape;
  const int64_t p = own_pixel(), c = own_channel();
  if (p >= s.batch * s.height * s.width || c >= s.channels) return;
  const int64_t h = p / s.width % s.height, w = p % s.width;
  const int64_t i = h / k, j = w / k;
  A g = constant[c] + slope[c] * wide(windows.x[p * s.channels + c]);
  if (i < windows.rows() && j < windows.columns()) {
    const int64_t n = p / s.width / s.height;
    const int64_t window = (n * windows.rows() + i) * windows.columns() + j;
    const auto top = windows.top(window, c);
    if (top.number == h % k * k + w % k)
      g += windows.scale[c] * top.gate(wide(grad[window * s.channels + c]));
  }
  grad_x[p * s.channels + c] = rounded<T>(g);
}

// mean[c] = what deviations are taken from, so that squares do not cancel: the
// mean of a few pixels from all over the images but for the largest and the
// smallest. From an outlying pixel all deviations would be as large.
template <typename T>
__global__ void find_centre(const T* x, int64_t pixels, int64_t channels,
                            double* mean) {
  constexpr int kSamples = 32;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  double sum = 0, least = wide(x[c]), most = least;
  for (int64_t i = 0; i < kSamples; ++i) {
    const double value = wide(x[i * pixels / kSamples * channels + c]);
    sum += value;
    least = value < least ? value : least;
    most = value > most ? value : most;
  }
  mean[c] = static_cast<Accumulator<T>>((sum - least - most) / (kSamples - 2));
}

template <typename T>
struct Deviation {
  using A = Accumulator<T>;

  SAN_HOST_DEVICE A operator()(int64_t p, int64_t c, int q) const {
    const A d = wide(x[p * channels + c]) - static_cast<A>(centre[c]);
    return q == 0 ? d : d * d;
  }
  const T* x;
  int64_t channels;
  const double* centre;
};

// Until then mean is the centre.
struct StoreMoments {
  SAN_HOST_DEVICE void operator()(int64_t, int64_t c,
                                  const double* totals) const {
    const double first = totals[0] / pixels;
    const double second = totals[1] / pixels - first * first;
    mean[c] += first;
    variance[c] = second < 0 ? 0 : second;
  }
  double pixels;
  double *mean, *variance;
};

// Calls f(Windows<T, k>).
template <typename F>
void with_windows(const NormRelu& norm, F f) {
  with_scalar_type(norm.type, [&](auto zero) {
    using T = decltype(zero);
    norm.pool == 1 ? f(Windows<T, 1>(norm)) : f(Windows<T, 2>(norm));
  });
}

template <typename T, int k>
void run(const Windows<T, k>& windows, const NormReluForward& task,
         void* stream) {
  launch_elements(&forward<T, k>, windows.count(), windows.shape.channels,
                  stream, windows, static_cast<T*>(task.output));
}

template <typename T, int k>
void run(const Windows<T, k>& windows, const NormReluSums& task, void* stream) {
  using A = Accumulator<T>;
  const WindowGradient<T, k> value = {
      windows, static_cast<const T*>(task.grad_output),
      static_cast<const A*>(task.mean), static_cast<T*>(task.output)};
  sum_channels<A, 2>(value, StoreSums{task.sum, task.moment}, 2,
                     windows.count(), windows.shape.channels, task.workspace,
                     stream);
}

template <typename T, int k>
void run(const Windows<T, k>& windows, const NormReluBackward& task,
         void* stream) {
  using A = Accumulator<T>;
  const ImageShape& s = windows.shape;
  launch_elements(&backward<T, k>, s.batch * s.height * s.width, s.channels,
                  stream, windows, static_cast<const T*>(task.grad_output),
                  static_cast<const A*>(task.constant),
                  static_cast<const A*>(task.slope),
                  static_cast<T*>(task.grad_x));
}

}  // namespace

void run_on_cuda(const ChannelMoments& task, void* stream) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    const ImageShape& s = task.shape;
    const int64_t pixels = s.batch * s.height * s.width;
    const T* x = static_cast<const T*>(task.x);
    launch(&find_centre<T>, channel_shape(s.channels), stream, x, pixels,
           s.channels, task.mean);
    sum_channels<Accumulator<T>, 2>(
        Deviation<T>{x, s.channels, task.mean},
        StoreMoments{static_cast<double>(pixels), task.mean, task.variance}, 2,
        pixels, s.channels, task.workspace, stream);
  });
}
void run_on_cuda(const NormReluForward& task, void* stream) {
  with_windows(task.norm, [&](auto windows) { run(windows, task, stream); });
}
void run_on_cuda(const NormReluSums& task, void* stream) {
  with_windows(task.norm, [&](auto windows) { run(windows, task, stream); });
}
void run_on_cuda(const NormReluBackward& task, void* stream) {
  with_windows(task.norm, [&](auto windows) { run(windows, task, stream); });
}

}  // namespace san::norm_relu
