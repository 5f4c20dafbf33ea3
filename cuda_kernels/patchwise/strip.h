// Strips: some channels of the pixels of a band, brought from channels-last
// into rows of scratch memory and back. A tensor is never transposed as a
// whole.
#ifndef CUDA_KERNELS_PATCHWISE_STRIP_H_
#define CUDA_KERNELS_PATCHWISE_STRIP_H_

#include "cuda_kernels/patchwise/band.h"

namespace san::patchwise {

// Channels that are loaded at once: a cache line of float.
constexpr int64_t kStripChannels = 16;

// `channels` channels of an image from `first` on, of the pixels of a range.
template <typename T>
void load_strip(const Pixels& image, int64_t first, int64_t channels,
                const Range& range, int64_t stride, Accumulator<T>* rows) {
  patchwise_kernels<T>().load(
      {static_cast<const T*>(image.data) + range.first * image.pitch + first,
       rows, range.count, channels, image.pitch, stride});
}

template <typename T>
void store_strip(const Accumulator<T>* rows, int64_t stride, const Range& range,
                 const WritablePixels& image, int64_t first, int64_t channels) {
  patchwise_kernels<T>().store(
      {static_cast<T*>(image.data) + range.first * image.pitch + first, rows,
       range.count, channels, image.pitch, stride});
}

// Runs of `channels` channels. `strip` has kStripChannels rows of the band's
// own pixels.
template <typename T, typename A>
void load_runs(const Band<A>& band, const Pixels& image, int64_t first,
               int64_t channels, A* strip, A* runs) {
  const Range own = band.own();
  for (int64_t begin = 0; begin < channels; begin += kStripChannels) {
    const int64_t count = std::min(kStripChannels, channels - begin);
    load_strip<T>(image, first + begin, count, own, own.count, strip);
    for (int64_t c = 0; c < count; ++c)
      band.fill_run(strip + c * own.count, runs + (begin + c) * band.run());
  }
}

template <typename T, typename A>
void store_runs(const Band<A>& band, const A* runs, A* strip,
                const WritablePixels& image, int64_t first, int64_t channels) {
  const Range own = band.own();
  for (int64_t begin = 0; begin < channels; begin += kStripChannels) {
    const int64_t count = std::min(kStripChannels, channels - begin);
    for (int64_t c = 0; c < count; ++c)
      band.store_run(runs + (begin + c) * band.run(), strip + c * own.count);
    store_strip<T>(strip, own.count, own, image, first + begin, count);
  }
}

// Rows to which the bands of an image add one after another: a window that
// moves on with what they see. A pixel is stored once, when no later band sees
// it.
template <typename A>
class MovingRows {
 public:
  MovingRows(A* rows, int64_t channels, int64_t stride)
      : rows_(rows), channels_(channels), stride_(stride) {}

  A* row(int64_t channel) { return rows_ + channel * stride_; }

  // To what the next band sees. What is new there is zero; what no longer is,
  // lost.
  void move_to(const Range& seen) {
    const int64_t kept =
        std::clamp<int64_t>(range_.end() - seen.first, 0, seen.count);
    for (int64_t c = 0; c < channels_; ++c) {
      memmove(row(c), row(c) + (seen.first - range_.first) * (kept > 0),
              kept * sizeof(A));
      std::fill_n(row(c) + kept, seen.count - kept, A(0));
    }
    range_ = seen;
  }

 private:
  A* rows_;
  int64_t channels_, stride_;
  Range range_ = {0, 0};
};

// Calls f(band, the pixels that no later one sees) for the bands of some images
// one after another.
template <typename A, typename F>
void for_each_band(const Window& window, const Bands& bands, int64_t batch,
                   int64_t first, int64_t last, F f) {
  for (int64_t image = first; image < last; ++image)
    for (int64_t row = 0; row < bands.row_bands; ++row) {
      const Band<A> band(window, bands, batch, image, row);
      const Range seen = band.seen();
      const int64_t end =
          row + 1 == bands.row_bands
              ? seen.end()
              : Band<A>(window, bands, batch, image, row + 1).seen().first;
      f(band, Range{seen.first, end - seen.first});
    }
}

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_STRIP_H_
