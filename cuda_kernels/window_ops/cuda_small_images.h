// How CUDA kernels gather what windows of 7 x 7 send to small images. For .cu
// files only.
//
// Idea. Of the padded image that mirroring asks for, most positions of a small
// one are read by few outputs: 13 x 13 positions by 7 x 7 outputs. So threads
// own outputs here, and each product is computed once. A thread has a band of
// seven rows of outputs and, for each column of taps, the column of outputs
// that sends to one position: for position x, tap kw of output x - kw. Where
// that comes out negative, it is output x - kw + kSide, which sends to position
// x + kSide instead, and nobody else has that position. So the thread's column
// of sums, 13 positions high, is kept for x until the taps have come that far,
// then for x + kSide.
//
// The lower six rows of a band's sums are those of the next band's upper ones
// too: they lie apart in shared memory and are added when all is there.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_SMALL_IMAGES_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_SMALL_IMAGES_H_

#include "cuda_kernels/window_ops/aggregation.h"
#include "cuda_kernels/window_ops/cuda_tiles.h"

namespace san::fast {

// Computes the gradient of the input of row-major images for which there is such
// a kernel; false if there is none.
bool run_small_images(const AggregationBackward& task, void* stream);

// kSide x kSide outputs; a block has up to kThreadsWanted threads.
template <int kSide, int kThreadsWanted>
struct SmallImage {
  static constexpr int kTaps = 7, kReach = kTaps - 1;
  static_assert(kSide % kTaps == 0);
  static constexpr int kOutputs = kSide * kSide, kAllTaps = kTaps * kTaps;
  static constexpr int kBands = kSide / kTaps, kPadded = kSide + kReach;
  static constexpr int kBandRows = kTaps + kReach;  // of sums
  static constexpr int kPositions = kBands * kBandRows * kPadded;
  static constexpr int kUnitThreads = kSide * kBands;
  static constexpr int kUnits = kThreadsWanted / kUnitThreads;
  static constexpr int kThreads = kUnits * kUnitThreads;

  static bool suits(const Window& window) {
    for (const Axis& axis : {window.rows, window.columns})
      if (axis.taps != kTaps || axis.stride != 1 || axis.dilation != 1 ||
          axis.outputs != kSide)
        return false;
    return true;
  }
  static LaunchShape launch_shape(int64_t units, int64_t bytes_of_unit) {
    return {static_cast<unsigned>((units + kUnits - 1) / kUnits), kThreads,
            static_cast<size_t>(kUnits * bytes_of_unit)};
  }
  static bool fits(int64_t units, int64_t bytes_of_unit) {
    const int64_t most = static_cast<int64_t>(most_shared_bytes());
    return units <= 0x7fffffff && kUnits * bytes_of_unit <= most;
  }

  // The running thread's unit in its block, band, and column.
  struct Place {
    int slot = threadIdx.x / kUnitThreads;
    int thread = threadIdx.x % kUnitThreads;
    int band = thread / kSide, x = thread % kSide;
    int unit = blockIdx.x * kUnits + slot;

    // Of the outputs whose tap kw sends to this thread's sums.
    __device__ int column(int kw) const {
      return x >= kw ? x - kw : x - kw + kSide;
    }
    // Row `j` of a band's sums.
    __device__ int row(int j) const {
      return j < kTaps ? band * kTaps + j : kSide + band * kReach + j - kTaps;
    }
  };

  // What one column of taps does: loads `values` of the outputs in `column`,
  // kTaps taps of kTaps rows.
  template <typename T>
  static __device__ void load(const T* plane, const Place& place, int kw,
                              int column, T (&values)[kTaps][kTaps]) {
    const T* from = plane + kw * kOutputs + place.band * kTaps * kSide + column;
#pragma unroll
    for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
      for (int r = 0; r < kTaps; ++r)
        values[kh][r] = from[kh * kTaps * kOutputs + r * kSide];
  }

  // Calls f(number of the sum) for those of position (v, u), counted from where
  // the padding begins.
  template <typename F>
  static __device__ void for_each_sum(int v, int u, F f) {
    const int band = v / kTaps, row = v % kTaps;
    if (band < kBands) f(v * kPadded + u);
    if (band > 0 && row < kReach)
      f((kSide + (band - 1) * kReach + row) * kPadded + u);
  }

  // Calls f(pixel, v, u) for each pixel of the unit and each position that
  // shows it, and done(pixel) after its last one. The threads of a unit call
  // it.
  template <typename F, typename G>
  static __device__ void for_each_pixel(const Place& place,
                                        const Window& window,
                                        const Divisor<uint32_t>& by_width, F f,
                                        G done) {
    const int height = static_cast<int>(window.rows.size);
    const int width = static_cast<int>(window.columns.size);
    const int top = static_cast<int>(window.rows.padding);
    const int left = static_cast<int>(window.columns.padding);
    const bool mirrors = window.rows.mode != PaddingMode::kZeros;
    const int above = mirrors ? top : 0, beside = mirrors ? left : 0;
#pragma unroll 1
    for (int i = place.thread; i < height * width; i += kUnitThreads) {
      const auto [y, x] = by_width.divide(i);
      const int column = x;
      for_each_image(y, height, -above, height + above, [&](int v) {
        for_each_image(column, width, -beside, width + beside,
                       [&](int u) { f(v + top, u + left); });
      });
      done(i);
    }
  }
};

// Calls f(kSide), an integral constant, if there are kernels for this image.
template <typename F>
bool with_small_image(const Window& window, F f) {
  if (SmallImage<7, 224>::suits(window))
    return f(std::integral_constant<int, 7>());
  if (SmallImage<14, 224>::suits(window))
    return f(std::integral_constant<int, 14>());
  if (SmallImage<28, 224>::suits(window))
    return f(std::integral_constant<int, 28>());
  return false;
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_SMALL_IMAGES_H_
