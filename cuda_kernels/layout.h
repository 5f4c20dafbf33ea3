// How an image [N, C, H, W] lies in memory, always without gaps.
#ifndef CUDA_KERNELS_LAYOUT_H_
#define CUDA_KERNELS_LAYOUT_H_

#include "cuda_kernels/window.h"

namespace san {

enum class Layout {
  kRowMajor,     // a channel's pixels are adjacent
  kChannelsLast  // a pixel's channels are adjacent
};

// Where the elements of such an image are. `pixels` is H * W.
struct ImageIndex {
  int64_t channels, pixels;
  Layout layout;

  SAN_HOST_DEVICE int64_t at(int64_t n, int64_t c, int64_t pixel) const {
    return layout == Layout::kRowMajor ? (n * channels + c) * pixels + pixel
                                       : (n * pixels + pixel) * channels + c;
  }
};

}  // namespace san

#endif  // CUDA_KERNELS_LAYOUT_H_
