// Launchers of aggregation and its gradients: one argument struct per direction
// and one function per implementation. Callers have checked everything.
//
//   output[n, c, p] = sum over t of
//       weight[n, c mod G, t, p] * padded(input)[n, c, at(p, t)]
//
// N batch, C channels, G weight channels (C is a multiple of G), K taps,
// P output pixels; input is [N, C, H, W] and output [N, C, P], both and their
// gradients in one layout, weight [N, G, K, P] in row-major order, all without
// gaps and of one scalar type.
#ifndef CUDA_KERNELS_WINDOW_OPS_AGGREGATION_H_
#define CUDA_KERNELS_WINDOW_OPS_AGGREGATION_H_

#include "cuda_kernels/layout.h"
#include "cuda_kernels/scalar_types.h"
#include "cuda_kernels/window.h"

namespace san {

struct AggregationShape {
  int64_t batch;
  int64_t channels;
  int64_t weight_channels;  // >= 1
  Window window;
  Layout layout;  // of all images; fast on CUDA is kRowMajor only

  SAN_HOST_DEVICE ImageIndex input() const {
    return {channels, window.pixels(), layout};
  }
  SAN_HOST_DEVICE ImageIndex output() const {
    return {channels, window.outputs(), layout};
  }
};

struct AggregationForward {
  ScalarType type;
  AggregationShape shape;
  const void* input;
  const void* weight;
  void* output;
};

// A gradient whose pointer is null is not computed.
struct AggregationBackward {
  ScalarType type;
  AggregationShape shape;
  const void* grad_output;
  const void* input;
  const void* weight;
  void* grad_input;
  void* grad_weight;
};

namespace simple {
void run_on_cpu(const AggregationForward& task);
void run_on_cpu(const AggregationBackward& task);
// `stream` is a cudaStream_t of the current device; returns at once.
void run_on_cuda(const AggregationForward& task, void* stream);
void run_on_cuda(const AggregationBackward& task, void* stream);
}  // namespace simple

namespace fast {
void run_on_cpu(const AggregationForward& task);
void run_on_cpu(const AggregationBackward& task);
void run_on_cuda(const AggregationForward& task, void* stream);
void run_on_cuda(const AggregationBackward& task, void* stream);
}  // namespace fast

}  // namespace san

#endif  // CUDA_KERNELS_WINDOW_OPS_AGGREGATION_H_
