// Where the tensor-core kernels of the fused patchwise attention have their
// pixels. For .cu files only.
//
// A block works on a tile of 8 x 8 pixels; each of its warps has two rows of
// them, a lane the pixels at x = group of both rows. What a tile and its
// footprints show lies in shared memory in channels-last, reflection resolved,
// a pixel `pitch` elements from the next: such that what the lanes of a warp
// read at once is in different banks.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_TILE_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_TILE_H_

#include "cuda_kernels/cuda/copy.h"
#include "cuda_kernels/cuda/divisor.h"
#include "cuda_kernels/patchwise/tensor_operands.h"
#include "cuda_kernels/patchwise/tile.h"

namespace san::patchwise {
namespace {

// Warps that have all pixels of a tile; a block has up to four times as many,
// which share other work.
constexpr int kTileWarps = kTilePixels / kHigh;
constexpr int kTileThreads = kTileWarps * 32;
constexpr int kMostParts = 4;
constexpr int kBoundary = 16;  // bytes that are copied at once

template <typename T>
struct Image {
  T* data;
  int64_t pitch;

  template <typename V>
  explicit Image(const PixelsOf<V>& pixels)
      : data(static_cast<T*>(pixels.data)), pitch(pixels.pitch) {}

  __device__ T* at(int64_t pixel) const { return data + pixel * pitch; }
};

// A tile with the whole footprint as one slab; the halo's rows have no gaps.
struct TensorLayout : Layout {
  Divisor<uint32_t> side, around;  // pixels of a row of the halo; and one more

  explicit TensorLayout(const Window& window)
      : Layout{window, static_cast<int>(window.rows.taps),
               kSide + static_cast<int>(window.rows.taps) - 1},
        side(stride),
        around(stride + 1) {}
};

// Channels of a pixel that are copied to lie side by side: `count` runs of
// `width` elements, `step` apart in the image, in pieces of `bytes`.
template <typename T>
struct Runs {
  int count, step, width, bytes;
  Divisor<uint32_t> across, each;  // pieces of a pixel and of a run

  // In pieces as large as divide where runs of this image begin and end, which
  // are multiples of `channels`.
  Runs(const Image<const T>& image, int channels, int count, int step,
       int width)
      : count(count), step(step), width(width), bytes(kBoundary) {
    const auto divides = [&](int64_t value) { return value % bytes == 0; };
    constexpr int64_t kBytes = sizeof(T);
    while (!divides(reinterpret_cast<uintptr_t>(image.data)) ||
           !divides(image.pitch * kBytes) || !divides(channels * kBytes))
      bytes = bytes > 8 ? bytes / 2 : sizeof(T);
    each = Divisor<uint32_t>(width * kBytes / bytes);
    across = Divisor<uint32_t>(count * each.number());
  }
};

// See stage_pixels.
template <int kBytes, typename T, typename From>
__device__ void stage_pieces(int count, const Runs<T>& runs, int valid,
                             const T* image, T* to, int pitch, From from) {
  constexpr int kPiece = kBytes / sizeof(T);
  const uint32_t pieces = count * runs.across.number();
  for (uint32_t at = threadIdx.x; at < pieces; at += blockDim.x) {
    const auto pixel = runs.across.divide(at);
    const auto run = runs.each.divide(pixel.remainder);
    const int i = static_cast<int>(run.remainder) * kPiece;
    const int first = static_cast<int>(run.quotient);
    const T* const source = from(static_cast<int>(pixel.quotient));
    T* const target =
        to + static_cast<int>(pixel.quotient) * pitch + first * runs.width + i;
    const bool exists = source != nullptr && i < valid;
    const int64_t offset = int64_t{first} * runs.step + i;
    if constexpr (kPiece > 1)
      copy_async<kBytes>(target, exists ? source + offset : image,
                         exists ? kBytes : 0);
    else
      *target = exists ? source[offset] : T{};
  }
}

// Copies runs of `count` pixels of an image to to[pixel * pitch + run * width +
// i], zeros for i from `valid` on and where the pixel does not exist:
// from(pixel) is its first element or null. wait_copies and a barrier have to
// follow.
template <typename T, typename From>
__device__ void stage_pixels(int count, const Runs<T>& runs, int valid,
                             const Image<const T>& image, T* to, int pitch,
                             From from) {
  if (runs.bytes == 16)
    stage_pieces<16>(count, runs, valid, image.data, to, pitch, from);
  else if (runs.bytes == 8)
    stage_pieces<8>(count, runs, valid, image.data, to, pitch, from);
  else
    stage_pieces<sizeof(T)>(count, runs, valid, image.data, to, pitch, from);
  commit_copies();
}

// The halo of a tile; the sources have been found.
template <typename T>
__device__ void stage_halo(const TensorLayout& layout, const Sources& sources,
                           const Tile& tile, const Image<const T>& image,
                           int channel, const Runs<T>& runs, int valid, T* to,
                           int pitch) {
  const int side = layout.stride;
  const T* const first =
      image.at(tile.image * layout.window.pixels()) + channel;
  stage_pixels<T>(side * side, runs, valid, image, to, pitch, [&](int pixel) {
    const auto at = layout.side.divide(pixel);
    return first +
           (int64_t{sources.rows[at.quotient]} * layout.window.columns.size +
            sources.columns[at.remainder]) *
               image.pitch;
  });
}

// The lane's pixels: where they are in the halo, at the first tap, in elements
// from the pixel, and in the batch.
struct LanePixels {
  int y, x;

  __device__ explicit LanePixels(int warp) : y(warp * 2), x(lane() / 4) {}

  __device__ bool exists(const Tile& tile, int i) const {
    return y + i < tile.height && x < tile.width;
  }
  __device__ int64_t in_batch(const Layout& layout, const Tile& tile,
                              int i) const {
    return tile.image * layout.window.pixels() +
           (tile.y + y + i) * layout.window.columns.size + tile.x + x;
  }
};

// Adds the sums of warps that have the same pixels: those of warp
// part * kTileWarps + w are part `part` of the w-th two rows. The first part
// has them then, added in order. `scratch` has a float for each of the sums of
// kTileThreads threads, if there is more than one part.
template <typename Sums>
__device__ void add_warps(int parts, float* scratch, Sums& sums) {
  constexpr int kCount = sizeof(Sums) / sizeof(float);
  auto& own = reinterpret_cast<float (&)[kCount]>(sums);
  const int part = static_cast<int>(threadIdx.x) / kTileThreads;
  scratch += static_cast<int>(threadIdx.x) % kTileThreads;
  for (int other = 1; other < parts; ++other) {
    __syncthreads();
    if (part == other)
#pragma unroll
      for (int i = 0; i < kCount; ++i) scratch[i * kTileThreads] = own[i];
    __syncthreads();
    if (part == 0)
#pragma unroll
      for (int i = 0; i < kCount; ++i) own[i] += scratch[i * kTileThreads];
  }
}

inline size_t warp_sums_bytes(int count, int parts) {
  return parts > 1 ? count * kTileThreads * sizeof(float) : 0;
}

// Into how many parts work of `most` pieces is dealt out among warps that have
// the same pixels: enough to fill a large GPU. By sizes alone.
inline int parts_for(int64_t jobs, int most) {
  int parts = 1;
  while (parts < kMostParts && parts * 2 <= most && jobs * parts < 1024)
    parts *= 2;
  return parts;
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_TILE_H_
