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

// Channels of a pixel that are copied together: `count` runs, `step` apart, of
// which `valid` elements exist and `width` are wanted, side by side.
struct Runs {
  int count, step, valid, width;
};

// A tile with the whole footprint as one slab; the halo's rows have no gaps.
inline Layout tensor_layout(const Window& window) {
  const int k = static_cast<int>(window.rows.taps);
  return {window, k, kSide + k - 1};
}

// Whether each run of `channels`, or of a multiple, begins and ends on a
// boundary for copies.
template <typename T>
bool can_copy(const Image<const T>& image, int channels) {
  constexpr int kPiece = kBoundary / sizeof(T);
  return reinterpret_cast<uintptr_t>(image.data) % kBoundary == 0 &&
         image.pitch % kPiece == 0 && channels % kPiece == 0;
}

// Copies runs of `count` pixels to to[pixel * pitch + run * width + i], zeros
// where a channel, or the pixel, does not exist: from(pixel) is its first
// element or null. wait_copies and a barrier have to follow.
template <typename T, typename From>
__device__ void stage_pixels(int count, const Runs& runs, bool whole_pieces,
                             T* to, int pitch, From from) {
  constexpr int kPiece = kBoundary / sizeof(T);
  const int each = runs.width / (whole_pieces ? kPiece : 1);
  const int across = runs.count * each;
  for (int at = threadIdx.x; at < count * across; at += blockDim.x) {
    const int pixel = at / across, run = at % across / each;
    const int i = at % each * (whole_pieces ? kPiece : 1);
    const T* const first = from(pixel);
    const bool exists = first != nullptr && i < runs.valid;
    T* const target = to + pixel * pitch + run * runs.width + i;
    const T* const source =
        exists ? first + int64_t{run} * runs.step + i : nullptr;
    if (whole_pieces && exists)
      copy_async<kBoundary>(target, source);
    else
      for (int j = 0; j < (whole_pieces ? kPiece : 1); ++j)
        target[j] = exists ? source[j] : T{};
  }
  commit_copies();
}

// The halo of a tile; the sources have been found.
template <typename T>
__device__ void stage_halo(const Layout& layout, const Sources& sources,
                           const Tile& tile, const Image<const T>& image,
                           int channel, const Runs& runs, bool whole_pieces,
                           T* to, int pitch) {
  const int side = layout.stride;
  const T* const first =
      image.at(tile.image * layout.window.pixels()) + channel;
  stage_pixels<T>(side * side, runs, whole_pieces, to, pitch, [&](int pixel) {
    return first +
           (int64_t{sources.rows[pixel / side]} * layout.window.columns.size +
            sources.columns[pixel % side]) *
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
