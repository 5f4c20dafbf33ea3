// Tasks of the fused pairwise attention: everything between the three 1x1
// convolutions and the block's output, without a tensor that has K taps.
// Callers have checked everything.
//
// N batch, H W image, k odd footprint, K = k * k, R relation channels, G weight
// channels, M value channels (a multiple of G), F = 2 R + M.
//
// `features` is [N, H, W, F]: phi, psi and beta of every pixel side by side.
// For a pixel p and a pixel q of its footprint, at offset o (one of K):
//
//   a[p, q]      = relu(scale * (phi[p] - psi[q]) + shift)             [R]
//   z[p, q]      = relu(w1 a[p, q] + table[o])                         [R]
//   logit[p, q]  = w2 z[p, q]                                          [G]
//   output[p, c] = sum over q of softmax(logit)[p, q, c mod G] * beta[q, c]
//
// What the backward needs of the softmax is the logarithm of its denominator,
//   log_sum_exp[p, g] = log(sum over q of exp(logit[p, q, g])),
// for with it every weight is exp(logit - log_sum_exp), and the weighted sum
// that the gradient of a softmax subtracts is grad_output * output, summed over
// the channels of a group. So nothing goes over a footprint twice.
//
// Reflect padding of k / 2. A mirrored tap shows a pixel that the footprint
// holds already, at that pixel's own offset (mirroring never adds distance), so
// the sums go over the footprint cut off at the image's border, and a pixel
// that several taps show counts several times. No padding is ever made.
//
// On the CPU all tensors are float32 or all are float64. Of half types are only
// features, output and their gradients, of `type`: any on CUDA, on the CPU
// bfloat16 if multiplies_bfloat16(). Then all other tensors are float32,
// log_sum_exp among them, and so is the arithmetic; but on tensor cores
// (tensor.h), for half types and, if `allow_tf32`, for float32 in the forward,
// and on the CPU pixel by pixel (rows.cc), the factors of its products, a, z,
// w1, w2 and the gradients, are rounded to the half type or to TF32.
#ifndef CUDA_KERNELS_PAIRWISE_TASKS_H_
#define CUDA_KERNELS_PAIRWISE_TASKS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::pairwise {

struct PairwiseShape {
  int64_t batch, height, width;
  int64_t kernel_size;
  int64_t relation_channels;  // R
  int64_t weight_channels;    // G
  int64_t value_channels;     // M

  int64_t taps() const { return kernel_size * kernel_size; }
  int64_t feature_channels() const {
    return 2 * relation_channels + value_channels;
  }
};

// scale [R], shift [R], table [K, R], w1 [R, R] and w2 [G, R], outputs first.
struct PairwiseInputs {
  const void *features, *scale, *shift, *table, *w1, *w2;
};

// output is [N, H, W, M], log_sum_exp [N, H, W, G] or null.
struct PairwiseForward {
  ScalarType type;
  PairwiseShape shape;
  PairwiseInputs inputs;
  void *output, *log_sum_exp;
  bool allow_tf32;
};

// output and log_sum_exp are those of the forward.
struct PairwiseBackward {
  ScalarType type;
  PairwiseShape shape;
  PairwiseInputs inputs;
  const void *grad_output, *output, *log_sum_exp;
  void *grad_features, *grad_scale, *grad_shift, *grad_table, *grad_w1,
      *grad_w2;
};

// Sums over all p and taps, in float64, of d = phi[p] - psi[q] - centre and of
// its squares: [R] each. `level` [R] is near the mean of psi; it does not
// matter for the result, but on CUDA, where sums of phi and of psi are taken
// apart, for its digits.
struct PairwiseDifference {
  ScalarType type;
  PairwiseShape shape;  // only F counts of the value's channels
  const void *features, *centre, *level;
  double *first, *second;
};

// grad_d = constant + slope * (phi[p] - psi[q]), of both [R]; grad_features is
// zero for beta.
struct PairwiseDifferenceBackward {
  ScalarType type;
  PairwiseShape shape;
  const void *features, *constant, *slope;
  void* grad_features;
};

// Moments of a over all p and taps, in float64, of c = a - centre:
//   first[o] = sum of c at offset o [K, R], second = sum of c c^T [R, R].
struct PairwiseMoments {
  ScalarType type;
  PairwiseShape shape;
  const void *features, *scale, *shift, *centre;
  double *first, *second;
};

// grad_a = grad_first[o] + grad_second a, with a symmetric grad_second;
// grad_features is zero for beta.
struct PairwiseMomentsBackward {
  ScalarType type;
  PairwiseShape shape;
  const void *features, *scale, *shift, *grad_first, *grad_second;
  void *grad_features, *grad_scale, *grad_shift;
};

void run_on_cpu(const PairwiseForward& task);
void run_on_cpu(const PairwiseBackward& task);
void run_on_cpu(const PairwiseDifference& task);
void run_on_cpu(const PairwiseDifferenceBackward& task);
void run_on_cpu(const PairwiseMoments& task);
void run_on_cpu(const PairwiseMomentsBackward& task);

// `stream` is a cudaStream_t of the current device; `workspace` has room for
// workspace_elements(task) doubles, see workspace.h. Throws
// std::invalid_argument for more channels than fit a block's shared memory.
void run_on_cuda(const PairwiseForward& task, void* stream);
void run_on_cuda(const PairwiseBackward& task, void* workspace, void* stream);
void run_on_cuda(const PairwiseDifference& task, void* workspace, void* stream);
void run_on_cuda(const PairwiseDifferenceBackward& task, void* stream);
void run_on_cuda(const PairwiseMoments& task, void* workspace, void* stream);
void run_on_cuda(const PairwiseMomentsBackward& task, void* workspace,
                 void* stream);

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TASKS_H_
