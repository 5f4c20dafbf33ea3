// The stem on CUDA (tasks.h).
//
// Idea. The 1x1 convolution of a few input channels is cheaper to compute than
// to read: a thread that owns some channels of a window computes it for the
// four pixels wherever it needs the maximum, forward and backward, and the
// largest tensor of a network is never in memory. The four pixels are the same
// for neighbouring threads, which own neighbouring channels, so each is read
// once. Of three input channels, an image's, pixels and weights stay in
// registers, and one pass sums all gradients (channel_sums.h).
#include "cuda_kernels/cuda/warp.h"
#include "cuda_kernels/norm_relu/channel_sums.h"
#include "cuda_kernels/norm_relu/cuda_windows.h"
#include "cuda_kernels/relu.h"

namespace san::norm_relu {
namespace {

// Windows whose pixels are under way together.
constexpr int kForwardInFlight = 4;

template <typename A, typename Index, int kInputs>
struct Windows {
  Windows(const Stem& stem, bool cut_off_too)
      : places(stem.shape, cut_off_too),
        inputs(static_cast<Index>(stem.shape.channels)),
        channels(static_cast<Index>(stem.channels)),
        x(static_cast<const A*>(stem.x)),
        weight(static_cast<const A*>(stem.weight)),
        shift(static_cast<const A*>(stem.shift)) {}

  WindowPlaces<2, Index, kInputs> places;
  Index inputs, channels;
  const A *x, *weight, *shift;
};

// A window's pixels: of kInputs input channels, or if that is 0 of as many as
// there are, which then stay in memory.
template <typename A, int kInputs>
struct Pixels {
  const A* first;
  A x[4][kInputs + (kInputs == 0)];

  template <typename Index>
  __device__ void load(const Windows<A, Index, kInputs>& windows,
                       Index window) {
    first = windows.x + windows.places.first(window);
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int i = 0; i < kInputs; ++i)
        x[q][i] = first[windows.places.step(q) + i];
  }
};

// The weights and shifts of kChannels output channels from c on.
template <typename A, typename Index, int kInputs, int kChannels>
struct Filters {
  const Windows<A, Index, kInputs>& windows;
  Index c;
  A weight[kChannels * kInputs + (kInputs == 0)], shift[kChannels];

  __device__ Filters(const Windows<A, Index, kInputs>& windows, Index c)
      : windows(windows), c(c) {
    if constexpr (kInputs > 0) load(windows.weight + c * kInputs, weight);
    load(windows.shift + c, shift);
  }

  // Of channel v.
  __device__ void convolve(const Pixels<A, kInputs>& pixels, int v,
                           A (&z)[4]) const {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      z[q] = shift[v];
      if constexpr (kInputs > 0) {
#pragma unroll
        for (int i = 0; i < kInputs; ++i)
          z[q] += pixels.x[q][i] * weight[v * kInputs + i];
      } else {
        const A* from = pixels.first + windows.places.step(q);
        for (Index i = 0; i < windows.inputs; ++i)
          z[q] +=
              from[i] * windows.weight[uint64_t{c + v} * windows.inputs + i];
      }
    }
  }
};

// The larger one; NaN if one is.
template <typename A>
__device__ A larger(A a, A b) {
#if SAN_HALF_INSTRUCTIONS
  if constexpr (std::is_same_v<A, float>) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
  }
#endif
  return b > a || b != b ? b : a;
}

// Which of the pixels is the maximum: the first of equals, NaN before all.
template <typename A>
struct Top {
  A value;
  int number;
  bool wins[4];  // over those before it

  __device__ explicit Top(const A (&z)[4]) : value(z[0]), number(0) {
#pragma unroll
    for (int q = 1; q < 4; ++q) {
      wins[q] = z[q] > value || z[q] != z[q];
      if (wins[q]) value = z[q], number = q;
    }
  }
  // Its input channel i, of pixels in registers, which have no index.
  template <int kInputs>
  __device__ A of(const A (&x)[4][kInputs], int i) const {
    A result = x[0][i];
#pragma unroll
    for (int q = 1; q < 4; ++q)
      if (wins[q]) result = x[q][i];
    return result;
  }
};

template <typename A, int kInputs, int kBytes, typename Index>
__global__ void __launch_bounds__(kThreads)
    forward(Windows<A, Index, kInputs> windows, A* output) {
  constexpr int kChannels = kWidth<A, kBytes>;
  const Index c = own_channel<Index>(kChannels);
  const Index count = windows.places.count();
  const Index window = first_pixel<Index>(kForwardInFlight);
  if (c >= windows.channels) return;
  const Filters<A, Index, kInputs, kChannels> filters(windows, c);
  Pixels<A, kInputs> pixels[kForwardInFlight];
#pragma unroll
  for (int i = 0; i < kForwardInFlight; ++i)
    pixels[i].load(windows, min(window + i * blockDim.y, count - 1));
#pragma unroll
  for (int i = 0; i < kForwardInFlight; ++i) {
    if (window + i * blockDim.y >= count) return;
    A values[kChannels];
#pragma unroll
    for (int v = 0; v < kChannels; ++v) {
      A z[4];
      filters.convolve(pixels[i], v, z);
      values[v] = A(0);
#pragma unroll
      for (int q = 0; q < 4; ++q) values[v] = larger(values[v], z[q]);
    }
    store(output + uint64_t{window + i * blockDim.y} * windows.channels + c,
          values);
  }
}

// Quantity i < I is the gradient of weight[c, i], quantity I that of shift[c]
// (channel_sums.h).
template <typename T, int kInputs, int kBytes>
struct ParameterGradient {
  using A = T;
  using Index = IndexOf<kBytes>;
  static constexpr int kChannels = kWidth<A, kBytes>;
  static constexpr int kQuantities = 4, kInFlight = 1;
  static_assert(kInputs == 0 || kInputs + 1 == kQuantities);

  struct Channels : Filters<A, Index, kInputs, kChannels> {
    __device__ Channels(const ParameterGradient& task, Index c)
        : Filters<A, Index, kInputs, kChannels>(task.windows, c) {}
  };
  struct Pixel : Pixels<A, kInputs> {
    A grad[kChannels];

    __device__ void load(const ParameterGradient& task, Index p, Index c) {
      Pixels<A, kInputs>::load(task.windows, p);
      norm_relu::load(task.grad + uint64_t{p} * task.windows.channels + c,
                      grad);
    }
  };
  __device__ void add(const Channels& own, const Pixel& pixel, Index, Index,
                      A (&sums)[kQuantities][kChannels]) const {
#pragma unroll
    for (int v = 0; v < kChannels; ++v) {
      A z[4];
      own.convolve(pixel, v, z);
      const Top<A> top(z);
      const A g = relu_gradient(top.value, pixel.grad[v]);
#pragma unroll
      for (int i = 0; i < kQuantities; ++i) {
        if constexpr (kInputs > 0)
          sums[i][v] += i < kInputs ? g * top.of(pixel.x, i % kInputs) : g;
        else
          sums[i][v] += g * factor(pixel, top, i);
      }
    }
  }
  // What the gradient is multiplied by for quantity `number` of this block.
  __device__ A factor(const Pixel& pixel, const Top<A>& top, int number) const {
    const uint64_t i = uint64_t{blockIdx.z} * kQuantities + number;
    return i < windows.inputs ? pixel.first[windows.places.step(top.number) + i]
                              : A(1);
  }

  Windows<A, Index, kInputs> windows;
  const A* grad;
  int64_t quantities;
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

// The threads of a window share its channels, each adds up what its own send to
// the pixels, and then they do together.
template <typename A, int kInputs, int kBytes, typename Index>
__global__ void __launch_bounds__(kThreads)
    backward_input(Windows<A, Index, kInputs> windows, const A* grad,
                   A* grad_x) {
  constexpr int kChannels = kWidth<A, kBytes>;
  constexpr int kTogether = kInputs + (kInputs == 0);
  const auto& places = windows.places;
  const Index window = first_pixel<Index>(1);
  const int lanes = blockDim.x;
  const bool exists = window < places.count();
  const auto at = places.place(exists ? window : 0);
  const unsigned there = exists ? places.pixels(at) : 0;
  const bool full = there == places.kFull;
  Pixels<A, kInputs> pixels = {};
  if (full) pixels.load(windows, window);
#pragma unroll 1
  for (Index first = 0; first < windows.inputs; first += kTogether) {
    A sums[4][kTogether] = {};
#pragma unroll 1
    for (Index c = threadIdx.x * kChannels; full && c < windows.channels;
         c += lanes * kChannels) {
      const Filters<A, Index, kInputs, kChannels> filters(windows, c);
      A grads[kChannels];
      load(grad + uint64_t{places.number(at)} * windows.channels + c, grads);
#pragma unroll
      for (int v = 0; v < kChannels; ++v) {
        A z[4];
        filters.convolve(pixels, v, z);
        const Top<A> top(z);
        const A g = relu_gradient(top.value, grads[v]);
        const A* weight =
            windows.weight + uint64_t{c + v} * windows.inputs + first;
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          const A term =
              g * (kInputs > 0 ? filters.weight[v * kInputs + i] : weight[i]);
          // No index, for which sums would lie in memory.
#pragma unroll
          for (int q = 0; q < 4; ++q)
            sums[q][i] += top.number == q ? term : A(0);
        }
      }
    }
#pragma unroll 1
    for (int bit = 1; bit < lanes; bit *= 2)
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          sums[q][i] += shuffle_xor(sums[q][i], bit);
    if (threadIdx.x != 0) continue;
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
        if (there >> q & 1)
          grad_x[places.first(at) + places.step(q) + first + i] = sums[q][i];
  }
}

// Calls f(kInputs, kBytes), integral constants: what there are kernels for.
template <typename A, typename F>
void with_sizes(const Stem& stem, std::initializer_list<const void*> addresses,
                F f) {
  using Any = std::integral_constant<int, 0>;
  const ImageShape& s = stem.shape;
  const int64_t pixels = s.batch * s.height * s.width;
  const bool wide =
      s.channels == 3 &&
      allows_wide<A>(pixels, stem.channels, {stem.weight, stem.shift}) &&
      allows_wide<A>(pixels, stem.channels, addresses);
  with_bytes<A>(wide, [&](auto bytes) {
    if constexpr (bytes == kWideBytes)
      f(std::integral_constant<int, 3>(), bytes);
    else
      f(Any(), bytes);
  });
}

template <typename A>
void run(const StemForward& task, void* stream) {
  with_sizes<A>(task.stem, {task.output}, [&](auto inputs, auto bytes) {
    using Index = IndexOf<bytes>;
    const Windows<A, Index, inputs> windows(task.stem, false);
    launch_vectors(&forward<A, inputs, bytes, Index>, kForwardInFlight,
                   kWidth<A, bytes>, windows.places.count(), task.stem.channels,
                   stream, windows, static_cast<A*>(task.output));
  });
}

template <typename A>
void run(const StemBackward& task, void* stream) {
  const A* grad = static_cast<const A*>(task.grad_output);
  const int64_t inputs = task.stem.shape.channels;
  const int64_t channels = task.stem.channels;
  with_sizes<A>(task.stem, {grad}, [&](auto known_inputs, auto bytes) {
    using Index = IndexOf<bytes>;
    const Windows<A, Index, known_inputs> full(task.stem, false),
        all(task.stem, true);
    sum_channels<1, Index>(
        ParameterGradient<A, known_inputs, bytes>{full, grad, inputs + 1},
        StoreGradients{inputs, task.grad_weight, task.grad_shift},
        full.places.count(), channels, task.workspace, stream);
    const int64_t pixels = all.places.count();
    if (!task.grad_x || pixels == 0 || inputs == 0) return;
    const dim3 block = block_of(channels / kWidth<A, bytes>);
    launch(&backward_input<A, known_inputs, bytes, Index>,
           {static_cast<unsigned>(blocks_of(pixels, block.y)), block}, stream,
           all, grad, static_cast<A*>(task.grad_x));
  });
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
