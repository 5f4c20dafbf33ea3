// Launchers of the fused patchwise attention: one argument struct per
// direction. Callers have checked everything.
//
//   relation[n, :, p] = phi[n, r, p] for each r, then
//                       psi[n, r, at(p, t)] for each r and t
//   hidden[n, g, p] = sum over s of
//       weight[g, s] * relu(scale[s] * relation[n, s, p] + shift[s])
//   output[n, c, p] = sum over t of mapped[n, c mod G, t, p]
//                                   * value[n, c, at(p, t)]
//   mapped[n, g, t, p] = bias[g, t] + sum over g' of
//                            weight[g, t, g'] * hidden[n, g', p]
//
// N batch, R channels of phi and psi, S = R * (K + 1), G weight channels, C
// value channels (a multiple of G), K = kernel_size^2 taps of an odd footprint,
// H W image, P = H * W pixels. at(p, t) is tap t of the footprint centred at p,
// mirrored at the edges. Nothing with both K and P elements is ever in memory.
//
// Images are in channels-last: [N, H, W, channels], where pixels may be further
// apart, because phi, psi and value are channels of one image. hidden and the
// parameters are dense, and of the accumulator's type: float32 for half types.
// So is the arithmetic; but on the CPU, of bfloat16 where in_pairs()
// (kernels.h), what is rectified, hidden, weight and the gradients of mapped
// are rounded to bfloat16 before they are multiplied: forward, and backward of
// the core where weight channels fill vectors. For tensor cores see tensor.h.
#ifndef CUDA_KERNELS_PATCHWISE_TASKS_H_
#define CUDA_KERNELS_PATCHWISE_TASKS_H_

#include "cuda_kernels/scalar_types.h"
#include "cuda_kernels/window.h"

namespace san::patchwise {

constexpr int64_t kLargestFootprint = 127;

// An image [N, H, W, channels] whose pixels are `pitch` elements apart.
template <typename V>
struct PixelsOf {
  V* data;
  int64_t pitch;
};
using Pixels = PixelsOf<const void>;
using WritablePixels = PixelsOf<void>;

struct PatchwiseHiddenForward {
  ScalarType type;  // of phi and psi
  int64_t batch, relation_channels, weight_channels;
  Window window;
  Pixels phi, psi;            // [N, H, W, R]
  const void* scale;          // [S]
  const void* shift;          // [S]
  const void* weight;         // [G, S]
  void* hidden;               // [N, H, W, G]
  bool tensor_cores = false;  // on CUDA; see tensor.h
  bool allow_tf32 = false;    // and round factors in float32 to it
  void* workspace = nullptr;  // for those
};

struct PatchwiseHiddenBackward {
  PatchwiseHiddenForward forward;  // hidden is not read
  const void* grad_hidden;         // [N, H, W, G]
  WritablePixels grad_phi, grad_psi;
  void* grad_scale;
  void* grad_shift;
  void* grad_weight;
  void* workspace;  // on CUDA: workspace_elements of the task's type
};

struct PatchwiseCoreForward {
  ScalarType type;  // of value and output
  int64_t batch, channels, weight_channels;
  Window window;
  const void* hidden;  // [N, H, W, G]
  Pixels value;        // [N, H, W, C]
  const void* weight;  // [G, K, G]
  const void* bias;    // [G, K]
  WritablePixels output;
  bool tensor_cores = false;  // on CUDA; see tensor.h
  bool allow_tf32 = false;    // and round factors in float32 to it
  void* workspace = nullptr;  // for those
};

struct PatchwiseCoreBackward {
  PatchwiseCoreForward forward;  // output is not read
  Pixels grad_output;
  void* grad_hidden;
  WritablePixels grad_value;
  void* grad_weight;
  void* grad_bias;
  void* workspace;  // on CUDA: workspace_elements of the task's type
};

void run_on_cpu(const PatchwiseHiddenForward& task);
void run_on_cpu(const PatchwiseHiddenBackward& task);
void run_on_cpu(const PatchwiseCoreForward& task);
void run_on_cpu(const PatchwiseCoreBackward& task);

// On a stream of the current device, a cudaStream_t; these return at once and
// throw std::runtime_error if CUDA refuses to launch.
void run_on_cuda(const PatchwiseHiddenForward& task, void* stream);
void run_on_cuda(const PatchwiseHiddenBackward& task, void* stream);
void run_on_cuda(const PatchwiseCoreForward& task, void* stream);
void run_on_cuda(const PatchwiseCoreBackward& task, void* stream);

// What the backward pass of these sizes keeps there meanwhile; pointers are not
// read.
int64_t workspace_elements(const PatchwiseHiddenForward& task);
int64_t workspace_elements(const PatchwiseCoreForward& task);
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TASKS_H_
