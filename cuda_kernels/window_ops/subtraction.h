// Launchers of subtraction2 and its gradients, as aggregation.h.
//
//   output[n, c, t, p] = padded(a)[n, c, centre(p)] - padded(b)[n, c, at(p, t)]
//
// N batch, C channels, K taps, P output pixels; a and b are [N, C, H, W], both
// and their gradients in one layout, output [N, C, K, P] in row-major order. A
// plane is one (n, c). subtraction(x) is subtraction2(x, x).
#ifndef CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_H_
#define CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_H_

#include "cuda_kernels/layout.h"
#include "cuda_kernels/scalar_types.h"
#include "cuda_kernels/window.h"

namespace san {

struct SubtractionShape {
  int64_t batch;
  int64_t channels;
  Window window;
  Layout layout;  // of all images; fast on CUDA is kRowMajor only

  SAN_HOST_DEVICE int64_t planes() const { return batch * channels; }
  SAN_HOST_DEVICE ImageIndex image() const {
    return {channels, window.pixels(), layout};
  }
};

struct SubtractionForward {
  ScalarType type;
  SubtractionShape shape;
  const void* a;
  const void* b;
  void* output;
};

// A gradient whose pointer is null is not computed.
struct SubtractionBackward {
  ScalarType type;
  SubtractionShape shape;
  const void* grad_output;
  void* grad_a;
  void* grad_b;
};

namespace simple {
void run_on_cpu(const SubtractionForward& task);
void run_on_cpu(const SubtractionBackward& task);
// `stream` is a cudaStream_t of the current device; returns at once.
void run_on_cuda(const SubtractionForward& task, void* stream);
void run_on_cuda(const SubtractionBackward& task, void* stream);
}  // namespace simple

namespace fast {
void run_on_cpu(const SubtractionForward& task);
void run_on_cpu(const SubtractionBackward& task);
void run_on_cuda(const SubtractionForward& task, void* stream);
void run_on_cuda(const SubtractionBackward& task, void* stream);
}  // namespace fast

}  // namespace san

#endif  // CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_H_
