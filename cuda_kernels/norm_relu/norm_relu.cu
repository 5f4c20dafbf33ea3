// Norm, ReLU and pooling on CUDA (tasks.h).
//
// Idea. These are streams (cuda_vectors.h): a thread owns some channels of a
// window, so that a window's pixels are read once, and in the backward pass
// written by who has found its maximum. Nothing is kept from the forward pass,
// the maximum of a window is found again. Sums are in channel_sums.h.
#include "cuda_kernels/norm_relu/channel_sums.h"
#include "cuda_kernels/norm_relu/cuda_windows.h"
#include "cuda_kernels/relu.h"

namespace san::norm_relu {
namespace {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

template <typename T, int k, typename Index>
struct Windows {
  using A = Accumulator<T>;
  using Places = WindowPlaces<k, Index>;

  Windows(const NormRelu& norm, bool cut_off_too)
      : places(norm.shape, cut_off_too),
        x(static_cast<const T*>(norm.x)),
        scale(static_cast<const A*>(norm.scale)),
        shift(static_cast<const A*>(norm.shift)) {}

  // Some channels of those of the window's pixels that are `there`.
  template <int kChannels>
  __device__ void load(int64_t first, unsigned there,
                       A (&pixels)[k * k][kChannels]) const {
#pragma unroll
    for (int q = 0; q < k * k; ++q)
      if (there >> q & 1)
        norm_relu::load(x + first + places.step(q), pixels[q]);
  }

  Places places;
  const T* x;
  const A *scale, *shift;
};

// The norms of some channels.
template <typename A, int kChannels>
struct Norms {
  A scale[kChannels], shift[kChannels];

  template <typename Windows, typename Index>
  __device__ Norms(const Windows& windows, Index c) {
    load(windows.scale + c, scale);
    load(windows.shift + c, shift);
  }

  struct Top {
    A value, x;
    int number;
  };
  // The maximum of a window in channel v, before the ReLU: the first of equals,
  // NaN before all, as torch's max_pool2d.
  template <int kPixels>
  __device__ Top top(const A (&pixels)[kPixels][kChannels], int v) const {
    Top best = {0, 0, -1};
#pragma unroll
    for (int q = 0; q < kPixels; ++q) {
      const A z = scale[v] * pixels[q][v] + shift[v];
      if (q == 0 || z > best.value || z != z) best = {z, pixels[q][v], q};
    }
    return best;
  }
};

// Windows of a thread, whose loads are all under way together: about four.
template <int k>
constexpr int kInFlight = k == 1 ? 4 : 1;

template <typename T, int k, int kBytes, typename Index>
__global__ void __launch_bounds__(kThreads)
    forward(Windows<T, k, Index> windows, T* output) {
  using A = Accumulator<T>;
  constexpr int kChannels = kWidth<T, kBytes>;
  const Index c = own_channel<Index>(kChannels);
  const Index channels = windows.places.channels();
  const Index window = first_pixel<Index>(kInFlight<k>);
  const Index count = windows.places.count();
  if (c >= channels) return;
  const Norms<A, kChannels> norms(windows, c);
  A pixels[kInFlight<k>][k * k][kChannels];
#pragma unroll
  for (int i = 0; i < kInFlight<k>; ++i) {
    const Index one = min(window + i * blockDim.y, count - 1);
    windows.load(windows.places.first(one) + c, windows.places.kFull,
                 pixels[i]);
  }
#pragma unroll
  for (int i = 0; i < kInFlight<k>; ++i) {
    if (window + i * blockDim.y >= count) return;
    A values[kChannels];
#pragma unroll
    for (int v = 0; v < kChannels; ++v)
      values[v] = relu(norms.top(pixels[i], v).value);
    store(output + uint64_t{window + i * blockDim.y} * channels + c, values);
  }
}

// The two sums of a channel; also the output (channel_sums.h).
template <typename T, int k, int kBytes>
struct WindowGradient {
  using A = Accumulator<T>;
  using Index = IndexOf<kBytes>;
  static constexpr int kChannels = kWidth<T, kBytes>;
  static constexpr int kQuantities = 2;
  static constexpr int kInFlight = k == 1 ? 2 : 1;

  struct Channels {
    Norms<A, kChannels> norms;
    A mean[kChannels];

    __device__ Channels(const WindowGradient& task, Index c)
        : norms(task.windows, c) {
      load(task.mean + c, mean);
    }
  };
  struct Pixel {
    A x[k * k][kChannels], grad[kChannels];

    __device__ void load(const WindowGradient& task, Index p, Index c) {
      task.windows.load(task.windows.places.first(p) + c,
                        task.windows.places.kFull, x);
      norm_relu::load(task.grad + task.offset(p, c), grad);
    }
  };
  __device__ void add(const Channels& own, const Pixel& pixel, Index p, Index c,
                      A (&sums)[kQuantities][kChannels]) const {
    A values[kChannels];
#pragma unroll
    for (int v = 0; v < kChannels; ++v) {
      const auto top = own.norms.top(pixel.x, v);
      const A g = relu_gradient(top.value, pixel.grad[v]);
      sums[0][v] += g;
      sums[1][v] += g * (top.x - own.mean[v]);
      values[v] = relu(top.value);
    }
    if (output) store(output + offset(p, c), values);
  }
  __device__ uint64_t offset(Index p, Index c) const {
    return uint64_t{p} * windows.places.channels() + c;
  }

  Windows<T, k, Index> windows;
  const T* grad;
  const A* mean;
  T* output;
  int64_t quantities = kQuantities;
};

struct StoreSums {
  SAN_HOST_DEVICE void operator()(int64_t, int64_t c,
                                  const double* totals) const {
    sum[c] = totals[0];
    moment[c] = totals[1];
  }
  double *sum, *moment;
};

// A thread writes all pixels of its windows, the ones that are cut off too.
template <typename T, int k, int kBytes, typename Index>
__global__ void __launch_bounds__(kThreads)
    backward(Windows<T, k, Index> windows, const T* grad,
             const Accumulator<T>* constants, const Accumulator<T>* slopes,
             T* grad_x) {
  using A = Accumulator<T>;
  constexpr int kChannels = kWidth<T, kBytes>, kPixels = k * k;
  constexpr int kWindows = kInFlight<k>;
  const auto& places = windows.places;
  const Index c = own_channel<Index>(kChannels), count = places.count();
  if (c >= places.channels()) return;
  int64_t first[kWindows] = {};
  unsigned there[kWindows] = {};
  A pixels[kWindows][kPixels][kChannels] = {}, grads[kWindows][kChannels] = {};
#pragma unroll
  for (int i = 0; i < kWindows; ++i) {
    const Index window = first_pixel<Index>(kWindows) + i * blockDim.y;
    if (window >= count) continue;
    const auto at = places.place(window);
    first[i] = places.first(at) + c;
    there[i] = places.pixels(at);
    windows.load(first[i], there[i], pixels[i]);
    if (there[i] == places.kFull)
      load(grad + uint64_t{places.number(at)} * places.channels() + c,
           grads[i]);
  }
  const Norms<A, kChannels> norms(windows, c);
  A constant[kChannels], slope[kChannels];
  load(constants + c, constant);
  load(slopes + c, slope);
#pragma unroll
  for (int i = 0; i < kWindows; ++i) {
    A results[kPixels][kChannels];
#pragma unroll
    for (int v = 0; v < kChannels; ++v) {
      const auto top = norms.top(pixels[i], v);
      const A passed = norms.scale[v] * relu_gradient(top.value, grads[i][v]);
#pragma unroll
      for (int q = 0; q < kPixels; ++q) {
        results[q][v] = constant[v] + slope[v] * pixels[i][q][v];
        if (top.number == q && there[i] == places.kFull)
          results[q][v] += passed;
      }
    }
#pragma unroll
    for (int q = 0; q < kPixels; ++q)
      if (there[i] >> q & 1)
        store(grad_x + first[i] + places.step(q), results[q]);
  }
}

// Calls f(k, kBytes), integral constants: the pool, and the size of accesses
// that the norm and these images and vectors allow.
template <typename T, typename F>
void with_sizes(const NormRelu& norm,
                std::initializer_list<const void*> addresses, F f) {
  const ImageShape& s = norm.shape;
  const int64_t pixels = s.batch * s.height * s.width;
  const bool wide =
      allows_wide<T>(pixels, s.channels, {norm.x, norm.scale, norm.shift}) &&
      allows_wide<T>(pixels, s.channels, addresses);
  with_bytes<T>(wide, [&](auto bytes) {
    norm.pool == 1 ? f(Constant<1>(), bytes) : f(Constant<2>(), bytes);
  });
}

template <typename T>
void run(const NormReluForward& task, void* stream) {
  with_sizes<T>(task.norm, {task.output}, [&](auto k, auto bytes) {
    using Index = IndexOf<bytes>;
    const Windows<T, k, Index> windows(task.norm, false);
    launch_vectors(&forward<T, k, bytes, Index>, kInFlight<k>, kWidth<T, bytes>,
                   windows.places.count(), task.norm.shape.channels, stream,
                   windows, static_cast<T*>(task.output));
  });
}

template <typename T>
void run(const NormReluSums& task, void* stream) {
  const auto addresses = {task.grad_output, task.mean,
                          static_cast<const void*>(task.output)};
  with_sizes<T>(task.norm, addresses, [&](auto k, auto bytes) {
    using Index = IndexOf<bytes>;
    const Windows<T, k, Index> windows(task.norm, false);
    sum_channels<2, Index>(
        WindowGradient<T, k, bytes>{
            windows, static_cast<const T*>(task.grad_output),
            static_cast<const Accumulator<T>*>(task.mean),
            static_cast<T*>(task.output)},
        StoreSums{task.sum, task.moment}, windows.places.count(),
        task.norm.shape.channels, task.workspace, stream);
  });
}

template <typename T>
void run(const NormReluBackward& task, void* stream) {
  using A = Accumulator<T>;
  const auto addresses = {task.grad_output, task.constant, task.slope,
                          static_cast<const void*>(task.grad_x)};
  with_sizes<T>(task.norm, addresses, [&](auto k, auto bytes) {
    using Index = IndexOf<bytes>;
    const Windows<T, k, Index> windows(task.norm, true);
    launch_vectors(
        &backward<T, k, bytes, Index>, kInFlight<k>, kWidth<T, bytes>,
        windows.places.count(), task.norm.shape.channels, stream, windows,
        static_cast<const T*>(task.grad_output),
        static_cast<const A*>(task.constant), static_cast<const A*>(task.slope),
        static_cast<T*>(task.grad_x));
  });
}

template <typename Task>
void run_any(const Task& task, void* stream) {
  with_scalar_type(task.norm.type,
                   [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace

void run_on_cuda(const NormReluForward& task, void* stream) {
  run_any(task, stream);
}
void run_on_cuda(const NormReluSums& task, void* stream) {
  run_any(task, stream);
}
void run_on_cuda(const NormReluBackward& task, void* stream) {
  run_any(task, stream);
}

}  // namespace san::norm_relu
