// The inner loops of the 1x1 convolution: a block of pixels, compiled once per
// instruction set and chosen at run time. They know nothing of threads.
#ifndef CUDA_KERNELS_POINTWISE_ROWS_H_
#define CUDA_KERNELS_POINTWISE_ROWS_H_

#include "cuda_kernels/pointwise/tasks.h"

namespace san::pointwise {

// A block's activations, at most kBlock pixels by kDepth channels, stay in the
// second cache while all panels pass by. Images of 14 x 14 make two blocks.
constexpr int64_t kBlock = 98;
template <typename T>
constexpr int64_t kDepth = sizeof(T) == 2 ? kMostBfloat16Channels : 512;
// Elements from one pixel to the next there. A constant, so that a tile
// addresses its pixels with one register; not a multiple of a page, so that
// they do not fall on the same few sets of a cache.
template <typename T>
constexpr int64_t kPitch = kDepth<T> + 64 / sizeof(T);

// A step of the weight's gradient: its pixels at most, one or a pair of them a
// row, and the columns of a job. Of so many activations those of a tile fit the
// first cache, all of them the second.
constexpr int64_t kGradientSteps = 196, kGradientColumns = 256;
template <typename T>
constexpr int64_t kGradientPixels =
    kGradientSteps * (sizeof(Accumulator<T>) / sizeof(T));
// Rows of the gradient of y that lie beside them.
constexpr int64_t kGradientRows = 192;
// Elements of a step's buffers.
constexpr int64_t kGradientScratch =
    kGradientSteps * (kGradientColumns + kGradientRows + 32);

template <typename T>
struct PointwiseRows {
  // The pixels [begin, end), at most kBlock, and panels [first, last).
  // `activations` has kBlock * kPitch<T> elements.
  void (*forward)(const Pointwise& task, int64_t begin, int64_t end,
                  int64_t first, int64_t last, T* activations);
  // The panels [first, last).
  void (*pack)(const PointwisePanels& task, int64_t first, int64_t last);
  // The pixels [begin, end), at most kGradientPixels<T>, and columns [first,
  // last), at most kGradientColumns, of sums [O, C] and, for the first column,
  // of [O]: they are added to these, or written if not `add`.
  void (*gradient)(const PointwiseGradient& task, int64_t begin, int64_t end,
                   int64_t first, int64_t last, bool add,
                   Accumulator<T>* scratch, Accumulator<T>* weight_sums,
                   Accumulator<T>* bias_sums);
};

// The fastest table that this processor can run.
template <typename T>
const PointwiseRows<T>& pointwise_rows();

}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_ROWS_H_
