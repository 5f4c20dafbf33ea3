// Tasks of the layers around attention: batch norm, ReLU and 2x2 max pooling as
// one, and the stem, which is a 1x1 convolution in front of these. Callers have
// checked everything. CPU and CUDA, all four scalar types.
//
// N batch, H W image, C channels, P = N * H * W pixels, k = pool (1 or 2).
// Images are [N, H, W, C]. A norm is a scale and a shift for each channel:
//
//   output[n, i, j, c] = max over the k x k pixels q of window (i, j) of
//       relu(scale[c] * x[n, q, c] + shift[c])
//
// with H / k x W / k windows; what is left over at the border is in none. The
// first of several equal maxima takes the gradient. No task keeps anything but
// x for its backward, and all are the same bits for any number of threads. A
// workspace holds partial sums on CUDA; on the CPU it is null.
#ifndef CUDA_KERNELS_NORM_RELU_TASKS_H_
#define CUDA_KERNELS_NORM_RELU_TASKS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::norm_relu {

struct ImageShape {
  int64_t batch, height, width, channels;
};

// Mean and biased variance over all pixels: [C] each.
struct ChannelMoments {
  ScalarType type;
  ImageShape shape;
  const void* x;
  double *mean, *variance, *workspace;
};

// Scale, shift and all other vectors of [C] are accumulators of the type.
struct NormRelu {
  ScalarType type;
  ImageShape shape;
  int64_t pool;
  const void *x, *scale, *shift;
};

struct NormReluForward {
  NormRelu norm;
  void* output;
};

// With g the gradient where its output is positive and x[q] what it went to:
//   sum[c] = sum of g, moment[c] = sum of g * (x[q] - mean[c])
// Writes the output too, unless it is null.
struct NormReluSums {
  NormRelu norm;
  const void *grad_output, *mean;
  double *sum, *moment;
  void* output;
  double* workspace;
};

//   grad_x = scale * g (where x is what g went to) + constant + slope * x
// With k = 1 grad_x may be grad_output.
struct NormReluBackward {
  NormRelu norm;
  const void *grad_output, *constant, *slope;
  void* grad_x;
};

// The stem: x is [N, H, W, I], and the sum over i of weight[c, i] * x[n, q, i]
// takes the place of scale[c] * x[n, q, c]; k = 2. float32 and float64.
struct Stem {
  ScalarType type;
  ImageShape shape;  // of x
  int64_t channels;  // C
  const void *x, *weight, *shift;
};

struct StemForward {
  Stem stem;
  void* output;
};

// A null grad_x is not computed.
struct StemBackward {
  Stem stem;
  const void* grad_output;
  void* grad_x;
  double *grad_weight, *grad_shift, *workspace;
};

// Elements of a workspace for `vectors` sums of [C]: one for each band of
// pixels. A block sums a band of up to 256 channels.
constexpr int64_t kSumBlocksOnCuda = 1024;
constexpr int64_t workspace_elements(int64_t vectors, int64_t channels) {
  const int64_t across = channels > 0 ? (channels + 255) / 256 : 1;
  const int64_t bands = kSumBlocksOnCuda / across;
  return (bands > 0 ? bands : 1) * vectors * channels;
}

void run_on_cpu(const ChannelMoments& task);
void run_on_cpu(const NormReluForward& task);
void run_on_cpu(const NormReluSums& task);
void run_on_cpu(const NormReluBackward& task);
void run_on_cpu(const StemForward& task);
void run_on_cpu(const StemBackward& task);

// `stream` is a cudaStream_t of the current device; these return at once.
void run_on_cuda(const ChannelMoments& task, void* stream);
void run_on_cuda(const NormReluForward& task, void* stream);
void run_on_cuda(const NormReluSums& task, void* stream);
void run_on_cuda(const NormReluBackward& task, void* stream);
void run_on_cuda(const StemForward& task, void* stream);
void run_on_cuda(const StemBackward& task, void* stream);

}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_TASKS_H_
