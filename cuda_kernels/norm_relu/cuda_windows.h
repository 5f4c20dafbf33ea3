// Where the windows of k x k pixels of images [N, H, W, C] are, on CUDA.
#ifndef CUDA_KERNELS_NORM_RELU_CUDA_WINDOWS_H_
#define CUDA_KERNELS_NORM_RELU_CUDA_WINDOWS_H_

#include "cuda_kernels/cuda/divisor.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace san::norm_relu {

// Full windows, or also those that the image's border cuts off, whose pixels
// are in no window but have gradients. All pixels have numbers of `Index`;
// offsets are those of channel 0.
// kChannels is how many there are, or 0 if that is not known.
template <int k, typename Index, int kChannels = 0>
class WindowPlaces {
 public:
  struct Place {
    Index n, i, j;  // image, row, column
  };
  static constexpr unsigned kFull = (1u << (k * k)) - 1;

  WindowPlaces(const ImageShape& shape, bool cut_off_too)
      : batch_(static_cast<Index>(shape.batch)),
        height_(static_cast<Index>(shape.height)),
        width_(static_cast<Index>(shape.width)),
        channels_(static_cast<Index>(shape.channels)),
        rows_((height_ + (cut_off_too ? k - 1 : 0)) / k),
        columns_((width_ + (cut_off_too ? k - 1 : 0)) / k) {}

  SAN_HOST_DEVICE Index count() const {
    return batch_ * rows_.number() * columns_.number();
  }
  SAN_HOST_DEVICE Place place(Index window) const {
    const Index row = columns_.quotient(window), n = rows_.quotient(row);
    return {n, row - n * rows_.number(), window - row * columns_.number()};
  }
  // Of a window's first pixel.
  SAN_HOST_DEVICE int64_t first(const Place& at) const {
    return offset((at.n * height_ + at.i * k) * width_ + at.j * k);
  }
  SAN_HOST_DEVICE int64_t first(Index window) const {
    return k == 1 ? offset(window) : first(place(window));
  }
  // From there to pixel q.
  SAN_HOST_DEVICE int64_t step(int q) const {
    return offset(q / k * width_) + offset(q % k);
  }
  // Bit q is whether the image has pixel q.
  SAN_HOST_DEVICE unsigned pixels(const Place& at) const {
    const bool right = at.j * k + k <= width_, below = at.i * k + k <= height_;
    return k == 1 ? 1 : 1 | right * 2 | below * 4 | (right && below) * 8;
  }
  // The number of a full window among the full ones.
  SAN_HOST_DEVICE Index number(const Place& at) const {
    return (at.n * (height_ / k) + at.i) * (width_ / k) + at.j;
  }
  SAN_HOST_DEVICE Index channels() const {
    return kChannels > 0 ? kChannels : channels_;
  }

 private:
  SAN_HOST_DEVICE int64_t offset(Index pixel) const {
    return static_cast<int64_t>(uint64_t{pixel} * channels());
  }

  Index batch_, height_, width_, channels_;
  Divisor<Index> rows_, columns_;
};

}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_CUDA_WINDOWS_H_
