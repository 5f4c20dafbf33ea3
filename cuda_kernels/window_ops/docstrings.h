// The documentation of the Python functions.
#ifndef CUDA_KERNELS_WINDOW_OPS_DOCSTRINGS_H_
#define CUDA_KERNELS_WINDOW_OPS_DOCSTRINGS_H_

namespace san {

// Follows every op: what its keyword options mean. A macro, so that the
// compiler joins it to the docstring before it.
#define SAN_OPTIONS_DOC                                                      \
  "\n\n"                                                                     \
  "All tensors are dense, of one dtype and on one device, and export\n"      \
  "DLPack. Images [N, C, H, W] are in row-major order or all in\n"           \
  "channels-last (on CUDA 'simple' computes those); other tensors are\n"     \
  "row-major. Half types are summed in float32. Every element has one\n"     \
  "writer that sums in a fixed order: equal bits in every run, with any\n"   \
  "number of threads.\n\n"                                                   \
  "Options:\n"                                                               \
  "  kernel_size, stride, padding, dilation: pixels, along both axes.\n"     \
  "  padding_mode: 'reflect', as numpy.pad defines it for any image size,\n" \
  "    or 'zeros'.\n"                                                        \
  "  implementation: 'fast', or 'simple' for one formula per element, the\n" \
  "    oracle.\n"                                                            \
  "  stream: the CUDA stream to work on, as an integer; 0 is the default\n"  \
  "    stream. Without effect on the CPU.\n\n"                               \
  "Raises:\n"                                                                \
  "  ValueError: an argument breaks a rule, which the message names.\n"      \
  "  RuntimeError: CUDA refused to launch.\n"

constexpr char kAggregationForwardDoc[] =
    "output[n, c, p] = sum over taps t of\n"
    "    weight[n, c mod Cw, t, p] * padded(input)[n, c, at(p, t)]\n\n"
    "Written in place. Shapes: input [N, C, H, W], weight [N, Cw, K, P] with\n"
    "K = kernel_size^2, P = H_out * W_out and C a multiple of Cw, output\n"
    "[N, C, H_out, W_out]. Equation 2 of Zhao et al., CVPR 2020, with the\n"
    "interleaved weight sharing of the published code." SAN_OPTIONS_DOC;

constexpr char kAggregationBackwardDoc[] =
    "The gradients of aggregation_forward, each in the shape of its tensor.\n\n"
    "Written in place; a gradient that is None is not computed. That of the\n"
    "weight needs no weight, which may be None beside it "
    "alone." SAN_OPTIONS_DOC;

constexpr char kSubtraction2ForwardDoc[] =
    "output[n, c, t, p] = padded(a)[n, c, centre(p)] -\n"
    "                     padded(b)[n, c, at(p, t)]\n\n"
    "Written in place. Shapes: a and b [N, C, H, W], output [N, C, K, P] with\n"
    "K = kernel_size^2 and P = H_out * W_out. The subtraction relation of\n"
    "Zhao et al., CVPR 2020, section 3.1." SAN_OPTIONS_DOC;

constexpr char kSubtraction2BackwardDoc[] =
    "The gradients of subtraction2_forward, [N, C, H, W] each.\n\n"
    "Written in place; a gradient that is None is not "
    "computed." SAN_OPTIONS_DOC;

#undef SAN_OPTIONS_DOC

}  // namespace san

#endif  // CUDA_KERNELS_WINDOW_OPS_DOCSTRINGS_H_
