// What the CUDA kernels of the patchwise attention's gradients have in common.
// For .cu files only.
//
// Gradients of images. A tap hands a pixel's gradient to the pixel that it
// shows, which several taps, tiles and reflections may show. A block first
// gathers what the taps of its tile hand to each place of the halo, then, pixel
// by pixel, what the places that show it hold, and adds that to the image. It
// alone writes to its band of tile rows of a plane, and half a footprint around
// it, while it runs: even bands come before odd ones. So there are no atomics
// and no copies of the image, and every sum has one order.
//
// Gradients of parameters. Blocks sum over some tiles each and leave partial
// sums, which a second kernel adds in a fixed order.
#ifndef CUDA_KERNELS_PATCHWISE_GRADIENTS_H_
#define CUDA_KERNELS_PATCHWISE_GRADIENTS_H_

#include "cuda_kernels/cuda/ordered_sum.h"
#include "cuda_kernels/patchwise/mix.h"

namespace san::patchwise {
namespace {

// Blocks that keep a large GPU busy; more only where there is enough work.
constexpr int64_t kWantedBlocks = 1024;
// Columns of a parameter's gradient that a block computes.
constexpr int kColumns = 32;

// Tile rows are dealt out in bands, higher than a footprint less one pixel: no
// two even bands reach the same pixel, nor two odd ones.
struct Bands {
  int64_t height, count;

  // With so many planes of gradients.
  Bands(const Window& window, int64_t planes) {
    const int64_t down = pieces(window.rows.size, kSide);
    const int64_t least =
        std::max<int64_t>(1, pieces(window.rows.taps - 1, kSide));
    const int64_t wanted =
        std::clamp<int64_t>(kWantedBlocks / std::max<int64_t>(planes, 1), 1,
                            std::max<int64_t>(down / least, 1));
    height = pieces(down, wanted);
    count = pieces(down, height);
  }
};

// All tiles of all images are dealt out in chunks of equal size.
struct Chunks {
  int64_t tiles, size, count;

  // With so many blocks per chunk.
  Chunks(const Window& window, int64_t batch, int64_t blocks)
      : tiles(batch * pieces(window.rows.size, kSide) *
              pieces(window.columns.size, kSide)) {
    const int64_t wanted = std::clamp<int64_t>(kWantedBlocks / blocks, 1,
                                               std::max<int64_t>(tiles, 1));
    size = pieces(tiles, wanted);
    count = size == 0 ? 0 : pieces(tiles, size);
  }
};

// Halo places of a slab at most, and of a tile's slab.
SAN_HOST_DEVICE int places(const Layout& layout) {
  return layout.halo_rows() * layout.halo_columns();
}
SAN_HOST_DEVICE int places(const Layout& layout, const Tile& tile,
                           const Slab& slab) {
  return (tile.height + slab.lines - 1) * (tile.width + layout.k() - 1);
}

// Into how many parts the rows of a tile are dealt out among eight warps of
// which so many have all other work.
inline int row_parts_of(int owners) {
  return owners <= 2 ? 4 : owners <= 4 ? 2 : 1;
}

struct Range {
  int low, high;
};

__device__ inline Range range_of(const int* values, int count) {
  Range range = {values[0], values[0]};
  for (int i = 1; i < count; ++i) {
    range.low = min(range.low, values[i]);
    range.high = max(range.high, values[i]);
  }
  return range;
}

// sums[m, place] = sum over the taps and pixels of the tile that show the place
// of matrix[tap, pixel] * factors[pixel, m]; without factors these are 1. The
// sums of m begin at m * pitch.
template <bool kFactors, typename T>
__device__ void gather_places(const Layout& layout, const Tile& tile,
                              const Slab& slab, const T* matrix,
                              const T* factors, int members, T* sums,
                              int pitch) {
  const int k = layout.k(), across = tile.width + k - 1;
  const int size = places(layout, tile, slab);
  for (int place = threadIdx.x; place < size; place += blockDim.x) {
    const int j = place / across, i = place % across;
    T total[kOwned] = {};
    for (int kh = max(0, j - tile.height + 1); kh <= min(slab.lines - 1, j);
         ++kh)
      for (int kw = max(0, i - tile.width + 1); kw <= min(k - 1, i); ++kw) {
        const int pixel = (j - kh) * kSide + i - kw;
        const T given = matrix[(kh * k + kw) * kTapStride + pixel];
        if (kFactors) {
          const Quad<T> low = quad_at(factors + pixel * kOwned);
          const Quad<T> high = quad_at(factors + pixel * kOwned + 4);
#pragma unroll
          for (int m = 0; m < 4; ++m) {
            total[m] += given * low.at[m];
            total[m + 4] += given * high.at[m];
          }
        } else {
          total[0] += given;
        }
      }
#pragma unroll
    for (int m = 0; m < kOwned; ++m)
      if (m < members) sums[m * pitch + place] = total[m];
  }
}

// Adds to some channels of an image what gather_places left in sums[channel,
// place] for the pixels that the places show.
template <typename T>
__device__ void spread(const Layout& layout, const Tile& tile, const Slab& slab,
                       const Sources& sources, const T* sums, int channels,
                       const Channels<T>& image) {
  __syncthreads();
  const int across = tile.width + layout.k() - 1;
  const int down = tile.height + slab.lines - 1;
  const Range y = range_of(sources.rows, down);
  const Range x = range_of(sources.columns, across);
  const int wide = x.high - x.low + 1, count = (y.high - y.low + 1) * wide;
  // Neighbours stay neighbours under reflection: this far apart, all ascend.
  const bool direct =
      sources.rows[down - 1] - sources.rows[0] == down - 1 &&
      sources.columns[across - 1] - sources.columns[0] == across - 1;
  const Lanes lanes(channels);
  const int rounds = (channels + lanes.channels - 1) / lanes.channels;
  for (int at = lanes.item; at < count * rounds; at += lanes.items) {
    const int c = at / count * lanes.channels + lanes.channel;
    if (c >= channels) continue;
    const int row = at % count / wide, column = at % count % wide;
    const T* from = sums + c * down * across;
    T total = direct ? from[row * across + column] : T(0);
    for (int j = 0; j < down && !direct; ++j)
      if (sources.rows[j] == y.low + row)
        for (int i = 0; i < across; ++i)
          if (sources.columns[i] == x.low + column)
            total += from[j * across + i];
    image.at((y.low + row) * layout.window.columns.size + x.low + column, c) +=
        total;
  }
}

// A product of [taps, 64] and [columns, 64] over the pixels, both with rows
// kTapStride apart. A thread owns 4 x 4 elements, far apart so that neighbours
// read neighbouring rows, and some of the pixels.
struct Product {
  int taps, columns;
  int tap_step, column_step, units, parts;

  __device__ Product(int taps, int columns)
      : taps(taps),
        columns(columns),
        tap_step((taps + 3) / 4),
        column_step((columns + 3) / 4),
        units(tap_step * column_step),
        parts(min(static_cast<int>(blockDim.x) / units, kQuads)) {}

  template <typename T>
  __device__ void add(const T* left, const T* right, T (&sums)[4][4]) const {
    const int unit = threadIdx.x % units, part = threadIdx.x / units;
    left += unit % tap_step * kTapStride;
    right += unit / tap_step * kTapStride;
    if (part >= parts) return;
    for (int quad = part; quad < kQuads; quad += parts) {
      Quad<T> a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = quad_at(left + i * tap_step * kTapStride + quad * 4);
        b[i] = quad_at(right + i * column_step * kTapStride + quad * 4);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int p = 0; p < 4; ++p) sums[i][j] += a[i].at[p] * b[j].at[p];
    }
  }

  // Calls f(tap, column, sum). `scratch` has 16 elements per thread and is free
  // again afterwards.
  template <typename T, typename F>
  __device__ void finish(const T (&sums)[4][4], T* scratch, F f) const {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < units * parts)
      for (int i = 0; i < 16; ++i)
        scratch[threadIdx.x * 16 + i] = sums[i / 4][i % 4];
    __syncthreads();
    for (int at = threadIdx.x; at < units * 16; at += blockDim.x) {
      const int unit = at / 16;
      const int tap = unit % tap_step + at % 16 / 4 * tap_step;
      const int column = unit / tap_step + at % 4 * column_step;
      if (tap >= taps || column >= columns) continue;
      T total = 0;
      for (int part = 0; part < parts; ++part)
        total += scratch[part * units * 16 + at];
      f(tap, column, total);
    }
    __syncthreads();
  }
};

// The matrix of taps and pixels of a kernel that calls Product or add_parts.
SAN_HOST_DEVICE int64_t scratch_elements(const Layout& layout, int threads) {
  const int64_t matrix = layout.rows() * kTapStride;
  const int64_t sums = threads / kQuads * kSumElements;
  return matrix > sums ? matrix : sums;
}

// x where the tile holds the pixels of the thread's quad, else 0: gradients are
// 0 there, but times a NaN that a tap shows they would be NaN.
template <typename T>
__device__ Quad<T> held(const Tile& tile, const Place& place, Quad<T> x) {
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (!tile.holds(place.quad * 4 + j)) x.at[j] = 0;
  return x;
}

// What the parameters that scale and shift a thread's 8 taps have received.
template <typename T>
struct AffineSums {
  T scale[kOwned] = {}, shift[kOwned] = {};
};

// Turns the gradient of relu(x * scale + shift) into that of x, and adds to
// the sums of tap i.
template <typename T>
__device__ T rectified_gradient(T x, T scale, T shift, T grad, int i,
                                AffineSums<T>& sums) {
  grad = relu_gradient(x * scale + shift, grad);
  sums.scale[i] += grad * x;
  sums.shift[i] += grad;
  return grad * scale;
}

// Writes the sums over all quads of `taps` taps to scales and shifts. `scratch`
// has 32 elements per tap of the slab, completed to a multiple of 8.
template <typename T>
__device__ void store_affine(const AffineSums<T>& sums, int taps, T* scratch,
                             T* scales, T* shifts) {
  const Place place;
  const int rows = (taps + kOwned - 1) / kOwned * kOwned;
  __syncthreads();
  for (int i = 0; i < kOwned; ++i) {
    const int tap = place.slot * kOwned + i;
    if (tap >= rows) break;
    scratch[tap * kQuads + place.quad] = sums.scale[i];
    scratch[(rows + tap) * kQuads + place.quad] = sums.shift[i];
  }
  __syncthreads();
  for (int at = threadIdx.x; at < 2 * rows; at += blockDim.x) {
    T total = 0;
    for (int quad = 0; quad < kQuads; ++quad)
      total += scratch[at * kQuads + quad];
    if (at % rows < taps) (at < rows ? scales : shifts)[at % rows] = total;
  }
}

// [rows, columns], whose rows are `pitch` apart.
template <typename T>
struct Matrix {
  T* first;
  int64_t rows, columns, pitch;
};

// As many matrices, `step` apart, of which `first` is the first's first
// element.
template <typename T>
struct Partials {
  const T* first;
  int64_t count, step, pitch;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    add_partials(Partials<T> partials, Matrix<T> sums) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < sums.rows * sums.columns; i += stride) {
    const int64_t row = i / sums.columns, column = i % sums.columns;
    const T* from = partials.first + row * partials.pitch + column;
    sum_in_order<kMostThreads, 1, T, 1>(
        threadIdx.x, 0, true, partials.count,
        [&](int64_t part, T(&sum)[1]) { sum[0] += from[part * partials.step]; },
        [&](const T(&sum)[1]) {
          sums.first[row * sums.pitch + column] = sum[0];
        });
  }
}

// Adds the partials in order; zeros if there are none.
template <typename T>
void launch_sum(const Partials<T>& partials, const Matrix<T>& sums,
                void* stream) {
  const int64_t count = sums.rows * sums.columns;
  if (count == 0) return;
  launch(&add_partials<T>,
         {blocks_for(pieces(count, kMostThreads)), kMostThreads}, stream,
         partials, sums);
}

template <typename T>
void launch_zeros(const Matrix<T>& matrix, void* stream) {
  launch_sum(Partials<T>{}, matrix, stream);
}

}  // namespace

// What phi, one tap per relation channel, adds to the gradients of the hidden
// layer: grad_phi, and the first R entries of the parameters' gradients.
// `workspace` has centre_workspace elements.
void launch_centre_gradients(const PatchwiseHiddenBackward& task,
                             void* workspace, void* stream);
int64_t centre_workspace(const PatchwiseHiddenForward& task);

// grad_value of the core.
void launch_value_gradients(const PatchwiseCoreBackward& task, void* stream);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_GRADIENTS_H_
