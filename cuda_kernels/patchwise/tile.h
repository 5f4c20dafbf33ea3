// What the CUDA kernels of the fused patchwise attention have in common: tiles
// of pixels, the halo that their footprints show, and the loops over them. For
// .cu files only.
//
// A block works on a tile of 8 x 8 pixels of one image and on a slab of the
// footprint: as many of its rows as make at most 128 taps. The halo of the tile
// lies in shared memory with reflection resolved, so that no loop knows of
// edges. A quad is four neighbouring pixels, of which a thread computes some
// channels or taps: it loads them at once, and each weight for all four.
#ifndef CUDA_KERNELS_PATCHWISE_TILE_H_
#define CUDA_KERNELS_PATCHWISE_TILE_H_

#include <algorithm>

#include "cuda_kernels/cuda/arena.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/patchwise/tasks.h"
#include "cuda_kernels/relu.h"

namespace san::patchwise {
namespace {

constexpr int kSide = 8;
constexpr int kTilePixels = kSide * kSide;
constexpr int kQuads = kTilePixels / 4;
constexpr int kMostTaps = 128;
constexpr int kMostGroup = 2;  // see Layout
// Channels, or taps, of which a thread holds the sums for its quad.
constexpr int kOwned = 8;
// From one tap to the next in a matrix of taps and pixels: off a multiple of
// 32, so that threads at different taps use different banks.
constexpr int kTapStride = kTilePixels + 4;
constexpr int kSumElements = kOwned * kTapStride;
constexpr int kMostThreads = 256;
constexpr int64_t kMostBlocks = 0x7fffffff;

template <typename T>
struct alignas(16) Quad {
  T at[4];
};

template <typename T>
__device__ const Quad<T>& quad_at(const T* from) {
  return *reinterpret_cast<const Quad<T>*>(from);
}

template <typename T>
__device__ Quad<T>& quad_at(T* to) {
  return *reinterpret_cast<Quad<T>*>(to);
}

// Of `size`, the last perhaps smaller, that make `count`.
SAN_HOST_DEVICE int64_t pieces(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

// Some rows of the footprint.
struct Slab {
  int first, lines, taps;
};

// A part of a tile that lies in the image, from pixel (y, x) on.
struct Tile {
  int64_t image;
  int y, x, height, width;

  SAN_HOST_DEVICE bool holds(int pixel) const {
    return pixel / kSide < height && pixel % kSide < width;
  }
};

// How images are cut into tiles and the footprint into slabs.
struct Layout {
  Window window;
  int lines;   // rows of the footprint in a slab
  int stride;  // from one row of the halo to the next
  int group =
      0;  // a block takes 2^group neighbouring weight channels at a time

  SAN_HOST_DEVICE int k() const { return static_cast<int>(window.rows.taps); }
  SAN_HOST_DEVICE int slabs() const { return (k() + lines - 1) / lines; }
  SAN_HOST_DEVICE int taps() const { return lines * k(); }
  // Taps of a slab, completed to what threads own.
  SAN_HOST_DEVICE int rows() const {
    return (taps() + kOwned - 1) / kOwned * kOwned;
  }
  SAN_HOST_DEVICE int64_t down() const {
    return pieces(window.rows.size, kSide);
  }
  SAN_HOST_DEVICE int64_t across() const {
    return pieces(window.columns.size, kSide);
  }
  SAN_HOST_DEVICE int halo_rows() const { return kSide + lines - 1; }
  SAN_HOST_DEVICE int halo_columns() const { return kSide + k() - 1; }
  // Elements of a halo: off a multiple of 32, so that threads at neighbouring
  // channels use different banks.
  SAN_HOST_DEVICE int halo() const {
    return (halo_rows() * stride + 27) / 32 * 32 + 4;
  }

  SAN_HOST_DEVICE Slab slab(int index) const {
    const int first = index * lines;
    const int count = first + lines <= k() ? lines : k() - first;
    return {first, count, count * k()};
  }
  // Tiles are numbered along rows, then columns, then images.
  SAN_HOST_DEVICE Tile tile(int64_t index) const {
    const int64_t at = index / across();
    const int y = static_cast<int>(at % down()) * kSide;
    const int x = static_cast<int>(index % across()) * kSide;
    const int below = static_cast<int>(window.rows.size) - y;
    const int right = static_cast<int>(window.columns.size) - x;
    return {at / down(), y, x, below < kSide ? below : kSide,
            right < kSide ? right : kSide};
  }
  // Where a pixel of a tile is in a plane of its image.
  SAN_HOST_DEVICE int64_t at(const Tile& tile, int pixel) const {
    return (tile.y + pixel / kSide) * window.columns.size + tile.x +
           pixel % kSide;
  }
};

inline Layout layout_of(const Window& window) {
  const int k = static_cast<int>(window.rows.taps);
  Layout layout = {window, std::max(1, std::min(k, kMostTaps / k)), 0};
  layout.stride = layout.halo_columns();
  // Sixteen threads read two quads of each of eight rows: no two of them use
  // one bank if a row is 3 or 5 elements longer than a multiple of 8.
  while (layout.stride % 8 != 3 && layout.stride % 8 != 5) ++layout.stride;
  return layout;
}

// Some channels of an image whose pixels are `pitch` apart: groups of 2^group
// that lie side by side, from one to the next `step`.
template <typename T>
struct Channels {
  T* data;
  int64_t pitch, step = 1;
  int group = 0;

  __device__ T& at(int64_t pixel, int channel = 0) const {
    return data[pixel * pitch + (channel >> group) * step +
                (channel & ((1 << group) - 1))];
  }
  // From this pixel and channel on.
  __device__ Channels from(int64_t pixel, int64_t channel, int64_t step = 1,
                           int group = 0) const {
    return {data + pixel * pitch + channel, pitch, step, group};
  }
};

template <typename T>
Channels<const T> channels_of(const Pixels& image) {
  return {static_cast<const T*>(image.data), image.pitch};
}

template <typename T>
Channels<T> channels_of(const WritablePixels& image) {
  return {static_cast<T*>(image.data), image.pitch};
}

// What each tap of a slab shows of a tile: the image row of each row of the
// halo, the image column of each column, and the way in the halo from a pixel
// to what its tap shows.
struct Sources {
  int *rows, *columns, *taps;

  SAN_HOST_DEVICE Sources(const Layout& layout, Arena& arena)
      : rows(arena.take<int>(layout.halo_rows())),
        columns(arena.take<int>(layout.halo_columns())),
        taps(arena.take<int>(layout.rows())) {}

  // A barrier has to follow.
  __device__ void find(const Layout& layout, const Tile& tile,
                       const Slab& slab) const {
    const Window& window = layout.window;
    const int half = layout.k() / 2, stride = layout.stride;
    for (int i = threadIdx.x; i < layout.halo_rows(); i += blockDim.x)
      rows[i] = static_cast<int>(window.rows.source(
          static_cast<int64_t>(tile.y) + slab.first + i - half));
    for (int i = threadIdx.x; i < layout.halo_columns(); i += blockDim.x)
      columns[i] = static_cast<int>(
          window.columns.source(static_cast<int64_t>(tile.x) + i - half));
    for (int i = threadIdx.x; i < layout.rows(); i += blockDim.x)
      taps[i] = i / layout.k() * stride + i % layout.k();
  }
};

template <typename T>
__device__ void clear(T (&sums)[kOwned][4]) {
#pragma unroll
  for (int i = 0; i < kOwned; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = 0;
}

// The thread's quad, and which of those who share it the thread is.
struct Place {
  int quad, slot, slots;
  int y, x;  // of the quad's first pixel in the tile

  __device__ Place()
      : quad(threadIdx.x % kQuads),
        slot(threadIdx.x / kQuads),
        slots(blockDim.x / kQuads),
        y(quad / 2),
        x(quad % 2 * 4) {}
};

// Calls store(i, load(i)) for i = first, first + step, ... below count, with 8
// loads under way at a time: a block that copies one by one waits for memory.
template <typename T, typename Load, typename Store>
__device__ void copy(int first, int count, int step, Load load, Store store) {
  constexpr int kAtOnce = 8;
  for (int base = first; base < count; base += kAtOnce * step) {
    T held[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (base + i * step < count) held[i] = load(base + i * step);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (base + i * step < count) store(base + i * step, held[i]);
  }
}

// How a block shares out some channels of pixels: neighbouring threads take
// neighbouring channels, which lie side by side in memory.
struct Lanes {
  int channels, channel, item, items;

  __device__ explicit Lanes(int count)
      : channels(count < 8 ? count < 4 ? count < 2 ? 1 : 2 : 4 : 8),
        channel(threadIdx.x % channels),
        item(threadIdx.x / channels),
        items(blockDim.x / channels) {}
};

// Copies the halos of `count` channels.
template <typename T>
__device__ void stage_halos(const Layout& layout, const Sources& sources,
                            const Channels<const T>& image, int count,
                            T* halos) {
  const int64_t W = layout.window.columns.size;
  const Lanes lanes(count);
  for (int c = lanes.channel; c < count; c += lanes.channels)
    for (int i = lanes.item % 8; i < layout.halo_columns(); i += 8)
      copy<T>(
          lanes.item / 8, layout.halo_rows(), lanes.items / 8,
          [&](int j) {
            return image.at(sources.rows[j] * W + sources.columns[i], c);
          },
          [&](int j, T value) {
            halos[c * layout.halo() + j * layout.stride + i] = value;
          });
}

// Copies a tile of some channels, with zeros where the image ends, to
// place(channel, pixel).
template <typename T, typename F>
__device__ void stage_tile(const Layout& layout, const Tile& tile,
                           const Channels<const T>& image, int channels,
                           F place) {
  const Lanes lanes(channels);
  for (int c = lanes.channel; c < channels; c += lanes.channels)
    copy<T>(
        lanes.item, kTilePixels, lanes.items,
        [&](int pixel) {
          return tile.holds(pixel) ? image.at(layout.at(tile, pixel), c) : T(0);
        },
        [&](int pixel, T value) { place(c, pixel) = value; });
}

// Likewise to rows[channel * kTapStride + pixel].
template <typename T>
__device__ void stage_rows(const Layout& layout, const Tile& tile,
                           const Channels<const T>& image, int channels,
                           T* rows) {
  stage_tile(layout, tile, image, channels, [&](int c, int pixel) -> T& {
    return rows[c * kTapStride + pixel];
  });
}

// Writes a tile of some channels from rows[channel * stride + pixel].
template <typename T>
__device__ void store_tile(const Layout& layout, const Tile& tile,
                           const T* rows, int stride, int channels,
                           const Channels<T>& image) {
  const Lanes lanes(channels);
  for (int c = lanes.channel; c < channels; c += lanes.channels)
    for (int pixel = lanes.item; pixel < kTilePixels; pixel += lanes.items)
      if (tile.holds(pixel))
        image.at(layout.at(tile, pixel), c) = rows[c * stride + pixel];
}

// Goes along a footprint row of a quad in up to kPlanes planes of a halo. Calls
// f(tap of the row, pixels of each plane that it shows of the quad).
template <int kPlanes, typename T, typename F>
__device__ void slide(const T* from, int plane, int planes, int taps, F f) {
  T seen[kPlanes][4];
#pragma unroll
  for (int m = 0; m < kPlanes; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      seen[m][i] = m < planes && i > 0 ? from[m * plane + i - 1] : T(0);
#pragma unroll 4  // after four steps every register is back in its place
  for (int t = 0; t < taps; ++t) {
#pragma unroll
    for (int m = 0; m < kPlanes; ++m) {
#pragma unroll
      for (int i = 0; i < 3; ++i) seen[m][i] = seen[m][i + 1];
      if (m < planes) seen[m][3] = from[m * plane + t + 3];
    }
    f(t, seen);
  }
}

// Calls f(channel, pixel, sum) for each of groups * 8 channels and each pixel
// of the tile: what the threads that share them hold, added in a fixed order.
// Slot part * groups + group holds part of the group's sums. Neighbouring
// threads call it for neighbouring channels. `scratch` has kSumElements per
// slot and is free again afterwards.
template <typename T, typename F>
__device__ void add_parts(const T (&sums)[kOwned][4], int parts, int groups,
                          T* scratch, F f) {
  const Place place;
  const int channels = groups * kOwned;
  __syncthreads();
  if (place.slot < parts * groups)
    for (int i = 0; i < kOwned; ++i)
      for (int j = 0; j < 4; ++j)
        scratch[(place.slot * kOwned + i) * kTapStride + place.quad * 4 + j] =
            sums[i][j];
  __syncthreads();
  for (int at = threadIdx.x; at < channels * kTilePixels; at += blockDim.x) {
    const int channel = at % channels, pixel = at / channels;
    T total = 0;
    for (int part = 0; part < parts; ++part)
      total += scratch[(part * channels + channel) * kTapStride + pixel];
    f(channel, pixel, total);
  }
  __syncthreads();
}

// Blocks for that many jobs; each block takes every gridDim.x-th of them.
inline unsigned blocks_for(int64_t jobs) {
  return static_cast<unsigned>(std::min(jobs, kMostBlocks));
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TILE_H_
