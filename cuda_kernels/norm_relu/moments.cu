// Mean and variance of each channel on CUDA (tasks.h).
//
// Idea. Deviations from a value near the mean are summed, and their squares, in
// one pass (channel_sums.h).
#include "cuda_kernels/norm_relu/channel_sums.h"

namespace san::norm_relu {
namespace {

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

// The deviation and its square (channel_sums.h).
template <typename T, int kBytes>
struct Deviation {
  using A = Accumulator<T>;
  using Index = IndexOf<kBytes>;
  static constexpr int kChannels = kWidth<T, kBytes>;
  static constexpr int kQuantities = 2, kInFlight = 4;

  struct Channels {
    A centre[kChannels];

    __device__ Channels(const Deviation& task, Index c) {
#pragma unroll
      for (int v = 0; v < kChannels; ++v)
        centre[v] = static_cast<A>(task.centre[c + v]);
    }
  };
  struct Pixel {
    A x[kChannels];

    __device__ void load(const Deviation& task, Index p, Index c) {
      norm_relu::load(task.x + uint64_t{p} * task.channels + c, x);
    }
  };
  __device__ void add(const Channels& own, const Pixel& pixel, Index, Index,
                      A (&sums)[kQuantities][kChannels]) const {
#pragma unroll
    for (int v = 0; v < kChannels; ++v) {
      const A d = pixel.x[v] - own.centre[v];
      sums[0][v] += d;
      sums[1][v] += d * d;
    }
  }

  const T* x;
  Index channels;
  const double* centre;
  int64_t quantities = kQuantities;
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

}  // namespace

void run_on_cuda(const ChannelMoments& task, void* stream) {
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    const ImageShape& s = task.shape;
    const int64_t pixels = s.batch * s.height * s.width;
    const T* x = static_cast<const T*>(task.x);
    launch(&find_centre<T>,
           {static_cast<unsigned>(blocks_of(s.channels, 64)), 64}, stream, x,
           pixels, s.channels, task.mean);
    with_bytes<T>(allows_wide<T>(pixels, s.channels, {x}), [&](auto bytes) {
      using Index = IndexOf<bytes>;
      sum_channels<2, Index>(
          Deviation<T, bytes>{x, static_cast<Index>(s.channels), task.mean},
          StoreMoments{static_cast<double>(pixels), task.mean, task.variance},
          pixels, s.channels, task.workspace, stream);
    });
  });
}

}  // namespace san::norm_relu
