// Which pixels a tile's pixels are shown to, for the tensor-core kernels that
// gather gradients. For .cu files only.
//
// A pixel and its mirror images are positions of the mirrored plane; tap t
// shows position v to the pixel v - (offset of t). So a kernel goes through the
// taps, and for each through the images that a tile's rows and columns have,
// most often the pixels themselves alone, and finds the pixel that is shown
// them in a halo of what it gathers. That halo has a row and a column of zeros
// more, for the many that are shown nowhere.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_IMAGES_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_IMAGES_H_

#include "cuda_kernels/patchwise/tensor_tile.h"

namespace san::patchwise {
namespace {

// Calls f(v) for each position that shows pixel `at` of an axis within the
// reach of its pixels, the pixel itself first.
template <typename F>
SAN_HOST_DEVICE void for_each_image(const Axis& axis, int64_t at, F f) {
  f(at);
  const int64_t half = axis.taps / 2, end = axis.size + half;
  if (at > half && at < axis.size - 1 - half) return;
  const int64_t period = axis.period();
  for (int sign = 1; sign >= -1; sign -= 2) {
    int64_t v = sign * at;
    while (v - period >= -half) v -= period;
    for (; v < end; v += period)
      if (v != at && v >= -half) f(v);
    if (at == 0 || at == axis.size - 1) return;  // its own mirror image
  }
}

// The most images that a pixel of an axis has.
struct ImageCount {
  int* count;
  SAN_HOST_DEVICE void operator()(int64_t) const { ++*count; }
};
inline int most_images(const Axis& axis) {
  int most = 1;
  for (int64_t at = 0; at < std::min(axis.size, axis.taps); ++at) {
    int count = 0;
    for_each_image(axis, at, ImageCount{&count});
    most = std::max(most, count);
  }
  return most;
}

// Whether an int has a bit for each image.
inline bool can_tell_images(const Window& window) {
  return most_images(window.rows) < 32 && most_images(window.columns) < 32;
}

// Of one axis of a tile: at[(image * k + tap) * kSide + i] is the row, or the
// column, of the halo that image `image` of the tile's i-th is shown to by a
// tap; that of zeros where there is none. used[tap] has a bit for each image
// that any is shown.
struct ImageAxis {
  int *at, *used;
  int k, images;

  SAN_HOST_DEVICE ImageAxis(const Axis& axis, int images, Arena& arena)
      : at(arena.take<int>(images * static_cast<int>(axis.taps) * kSide)),
        used(arena.take<int>(axis.taps)),
        k(static_cast<int>(axis.taps)),
        images(images) {}

  // `step` is between rows, or columns, of the halo; warp by warp from `warp`
  // on, eight lanes for each tap. A barrier has to follow.
  __device__ void find(const Axis& axis, int first, int count, int step,
                       int warp) const {
    const int none = kSide + k - 1;
    for (int item = warp * 32 + lane(); item / 32 * 32 < k * kSide;
         item += static_cast<int>(blockDim.x)) {
      const int tap = item / kSide, i = item % kSide;
      int image = 0, bits = 0;
      const auto add = [&](int shown_to) {
        const bool any = shown_to >= 0 && shown_to < none;
        at[(image * k + tap) * kSide + i] = (any ? shown_to : none) * step;
        if (any) bits |= 1 << image;
        ++image;
      };
      // Position v is that of the tap for pixel v + half - tap, and the halo
      // begins `half` before the tile.
      if (tap < k && i < count)
        for_each_image(axis, first + i, [&](int64_t v) {
          const int64_t pixel = v + k / 2 - tap;
          add(pixel < 0 || pixel >= axis.size
                  ? none
                  : static_cast<int>(pixel - first + k / 2));
        });
      while (tap < k && image < images) add(none);
      for (int other = 1; other < kSide; other *= 2)
        bits |= shuffle_xor(bits, other);
      if (tap < k && i == 0) used[tap] = bits;
    }
  }
};

struct Images {
  ImageAxis rows, columns;

  SAN_HOST_DEVICE Images(const Window& window, int row_images,
                         int column_images, Arena& arena)
      : rows(window.rows, row_images, arena),
        columns(window.columns, column_images, arena) {}

  // Offsets in a halo whose pixels are `pitch` elements apart.
  __device__ void find(const TensorLayout& layout, const Tile& tile,
                       int pitch) const {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int last = static_cast<int>(blockDim.x) / 32 - 1;
    const int side = layout.stride + 1;
    rows.find(layout.window.rows, tile.y, tile.height, side * pitch, warp);
    columns.find(layout.window.columns, tile.x, tile.width, pitch, last - warp);
  }

  // Calls f(rows, columns) with the offsets of the tile's rows and columns, for
  // each combination of images that a tap may show; of the pixels `alone`.
  template <typename F>
  __device__ void for_each(int kh, int kw, bool alone, F f) const {
    const int of_rows = alone ? 1 : rows.used[kh];
    const int of_columns = alone ? 1 : columns.used[kw];
    const int* row = rows.at + kh * kSide;
#pragma unroll 1
    for (int y = of_rows; y != 0; y >>= 1, row += rows.k * kSide) {
      if (!(y & 1)) continue;
      const int* column = columns.at + kw * kSide;
#pragma unroll 1
      for (int x = of_columns; x != 0; x >>= 1, column += columns.k * kSide)
        if (x & 1) f(row, column);
    }
  }
};

// The pixel of the batch that is (row, column) from the tile's first; -1 where
// there is none.
__device__ inline int64_t reader_at(const Layout& layout, const Tile& tile,
                                    int row, int column) {
  const int64_t y = int64_t{tile.y} + row, x = int64_t{tile.x} + column;
  const Window& window = layout.window;
  if (y < 0 || x < 0 || y >= window.rows.size || x >= window.columns.size)
    return -1;
  return tile.image * window.pixels() + y * window.columns.size + x;
}

// Four elements as products take them.
template <typename T>
struct alignas(4 * sizeof(T)) FourOf {
  T at[4];
};

// Copies `valid` channels of an image, whose pixels have `all`, around a tile,
// as products have them; zeros up to 4 * `fours` channels, outside of the
// image, and in one row and one column more.
template <typename T>
__device__ void stage_around(const TensorLayout& layout, const Tile& tile,
                             const float* image, int all, int valid,
                             const Divisor<uint32_t>& fours, T* to, int pitch) {
  const int side = layout.stride + 1, half = layout.k() / 2;
  const uint32_t count = side * side * fours.number();
  const bool whole =
      reinterpret_cast<uintptr_t>(image) % kBoundary == 0 && all % 4 == 0;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    const auto pixel = fours.divide(i);
    const auto at = layout.around.divide(pixel.quotient);
    const int row = at.quotient, column = at.remainder;
    const int first = static_cast<int>(pixel.remainder) * 4;
    const int64_t shown = reader_at(layout, tile, row - half, column - half);
    const bool inside =
        row < side - 1 && column < side - 1 && shown >= 0 && first < valid;
    const float* const from = image + (inside ? shown * all + first : 0);
    float values[4] = {};
    if (inside && whole)
      load(from, values);
    else if (inside)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (first + j < valid) values[j] = from[j];
    FourOf<T> four;
#pragma unroll
    for (int j = 0; j < 4; ++j) four.at[j] = as_factor<T>(values[j]);
    *reinterpret_cast<FourOf<T>*>(to + pixel.quotient * pitch + first) = four;
  }
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_IMAGES_H_
