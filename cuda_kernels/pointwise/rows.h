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

template <typename T>
struct PointwiseRows {
  // The pixels [begin, end), at most kBlock, and panels [first, last).
  // `activations` has kBlock * kPitch<T> elements.
  void (*forward)(const Pointwise& task, int64_t begin, int64_t end,
                  int64_t first, int64_t last, T* activations);
};

// The fastest table that this processor can run.
template <typename T>
const PointwiseRows<T>& pointwise_rows();

}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_ROWS_H_
