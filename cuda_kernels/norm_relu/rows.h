// The inner loops of norm_relu.h: one row of windows at a time, vectors along
// the channels, compiled once per instruction set and chosen at run time. They
// know nothing of threads.
#ifndef CUDA_KERNELS_NORM_RELU_ROWS_H_
#define CUDA_KERNELS_NORM_RELU_ROWS_H_

#include <cstdint>

#include "cuda_kernels/scalar_types.h"

namespace san::norm_relu {

// A row of `windows` windows of k x k pixels. x is the first pixel; pixels lie
// `channels` apart, rows of pixels `x_row`.
template <typename T>
struct WindowRow {
  int64_t windows, channels, x_row;
  const T* x;
  const Accumulator<T>*scale, *shift;
};

template <typename T>
struct NormReluRows {
  using A = Accumulator<T>;
  // sums[0, c] += x - centre, sums[1, c] += its square, over `pixels` pixels.
  void (*add_moments)(const T* x, const A* centre, int64_t pixels,
                      int64_t channels, A* sums);
  // The rest by k: [0] is k = 1, [1] is k = 2.
  void (*forward[2])(const WindowRow<T>&, T* output);
  // sums[0, c] += g, sums[1, c] += g * (x[q] - mean); output may be null.
  void (*add_sums[2])(const WindowRow<T>&, const T* grad, const A* mean,
                      A* sums, T* output);
  void (*backward[2])(const WindowRow<T>&, const T* grad, const A* constant,
                      const A* slope, T* grad_x);
  // to = constant + slope * x, of pixels that are in no window.
  void (*fill)(const T* x, const A* constant, const A* slope, int64_t pixels,
               int64_t channels, T* to);
};

// The fastest table that this processor can run.
template <typename T>
const NormReluRows<T>& norm_relu_rows();

// A row of windows of the stem. weight is [I, C].
template <typename A>
struct StemRow {
  int64_t windows, inputs, channels, x_row;
  const A *x, *weight, *shift;
};

template <typename A>
struct StemRows {
  void (*forward)(const StemRow<A>&, A* output);
  // sums [I + 1, C]: gradients of weight and shift, added; grad_x may be null.
  void (*backward)(const StemRow<A>&, const A* grad, A* sums, A* grad_x);
};

template <typename A>
const StemRows<A>& stem_rows();

}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_ROWS_H_
