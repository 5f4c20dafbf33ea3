// The steps of one block of the fused pairwise attention on CUDA, between
// barriers. For .cu files only; tile.h has the plan.
//
// Products of a buffer's rows with w1 or w2 are made in registers: a thread
// sums 4 rows x 4 columns, and for four steps of depth reads eight vectors for
// 64 multiply-adds. The eight columns side by side and four rows of a warp hit
// different banks.
#ifndef CUDA_KERNELS_PAIRWISE_BLOCK_H_
#define CUDA_KERNELS_PAIRWISE_BLOCK_H_

#include "cuda_kernels/pairwise/cells.h"
#include "cuda_kernels/pairwise/tile.h"
#include "cuda_kernels/relu.h"

namespace san::pairwise {
namespace {

template <typename T, Own own, typename Needs, typename TileOf>
struct Block {
  using A = Accumulator<T>;
  using Tile = TileOf;
  static constexpr Own kOwn = own;

  __device__ Block(const Tile& tile, const T* features)
      : t(tile), features(features), b(tile, shared_memory()) {}

  // ---- Once, or once per tile.

  __device__ Matrix<A> load(const A* global, A* shared, int rows) const {
    if (shared)
      for_each_cell(padded(rows), padded(t.R), [&](int row, int column) {
        const bool inside = row < rows && column < t.R;
        shared[row * pitch_of(t.R) + column] =
            inside ? global[row * t.R + column] : A(0);
      });
    return {global, shared, rows, t.R};
  }

  __device__ void begin(int64_t tile) {
    first = tile << t.pixel_bits;
    limit_taps();
    for_each_cell(t.pixels(), t.kernel_size, [&](int p, int tap) {
      const bool inside = first + p < t.count;
      const int64_t at = (first + p) % (t.height * t.width);
      const int distance = tap - t.kernel_size / 2;
      b.row_counts[p * t.kernel_size + tap] =
          inside ? shows(t.height, at / t.width, distance) : 0;
      b.column_counts[p * t.kernel_size + tap] =
          inside ? shows(t.width, at % t.width, distance) : 0;
    });
  }

  // Leaves out lines of taps that lie outside the image for the whole tile.
  __device__ void limit_taps() {
    using Index = typename Tile::Index;
    const Index first = this->first, end = first + t.pixels();
    const Index last = (end < t.count ? end : t.count) - 1;
    const Index image = t.height * t.width;
    const int k = t.kernel_size, reach = k / 2;
    Index above = reach, below = reach;  // lines that the offsets reach
    if (first / image == last / image) {
      const Index highest = first % image / t.width;
      const Index lowest = last % image / t.width;
      const Index up = lowest, down = t.height - 1 - highest;
      above = own == Own::kP ? up : down;
      below = own == Own::kP ? down : up;
    }
    begin_tap = above < reach ? static_cast<int>(reach - above) * k : 0;
    end_tap = below < reach ? static_cast<int>(reach + below + 1) * k : k * k;
  }

  // How many taps show the other pixel of a pair at this distance.
  __device__ int shows(int64_t size, int64_t pixel, int distance) const {
    const int64_t p = own == Own::kP ? pixel : pixel - distance;
    return times_shown(size, p, p + distance, t.kernel_size);
  }

  // What the relation needs of the block's own pixels.
  __device__ void relate_own(const A* scale, const A* shift) const {
    for_each_cell(t.pixels(), padded(t.R), [&](int p, int i) {
      A value = 0, slope = 0;
      if (i < t.R && first + p < t.count) {
        slope = own == Own::kP ? -scale[i] : scale[i];
        value = shift[i] - slope * own_relation(p, i);
      }
      b.own[p * padded(t.R) + i] = value;
      if (p == 0) b.factor[i] = slope;
    });
  }

  // ---- Once per chunk of T taps; its row t * P + p is tap `tap` + t of p.

  // Which pairs the rows are.
  __device__ void place(int tap) {
    this->tap = tap;
    const int k = t.kernel_size, reach = k / 2;
    for (int row = threadIdx.x; row < t.rows(); row += kThreads) {
      const int p = pixel(row), y = offset(row) / k, x = offset(row) % k;
      int times = 0;
      if (row < t.chunk << t.pixel_bits && offset(row) < t.taps)
        times = b.row_counts[p * k + y] * b.column_counts[p * k + x];
      const int64_t away = (y - reach) * t.width + x - reach;
      b.times[row] = times;
      b.other[row] =
          times == 0 ? -1 : first + p + (own == Own::kP ? away : -away);
    }
  }

  __device__ int pixel(int row) const { return row & (t.pixels() - 1); }
  __device__ int offset(int row) const { return tap + (row >> t.pixel_bits); }
  // Keeps what the chunk needs of a table [K, R], if the tile has room for it.
  __device__ void take_table(const A* table) const {
    if constexpr (Tile::kFixed)
      for (int i = threadIdx.x; i < t.chunk * t.R; i += kThreads)
        b.table[i] = tap + i / t.R < t.taps ? table[tap * t.R + i] : A(0);
  }
  // Element i of a table at the row's offset; 0 where there is none.
  __device__ A from_table(const A* table, int row, int i) const {
    if constexpr (Tile::kFixed) return b.table[(row >> t.pixel_bits) * t.R + i];
    return i < t.R && offset(row) < t.taps ? table[in_table(row, i)] : A(0);
  }
  // Of channel i at the row's offset, in a table [K, R].
  __device__ int64_t in_table(int row, int i) const {
    return int64_t(offset(row)) * t.R + i;
  }
  // Calls f(row, other pixel) for the pairs of the chunk that own pixel p.
  template <typename F>
  __device__ void for_each_pair(int p, F f) const {
    for (int i = 0; i < t.chunk; ++i) {
      const int row = i << t.pixel_bits | p;
      if (b.other[row] >= 0) f(row, b.other[row]);
    }
  }

  __device__ A own_relation(int p, int i) const {
    return relation(first + p, own == Own::kP, i);
  }
  __device__ A other_relation(int64_t pixel, int i) const {
    return relation(pixel, own == Own::kQ, i);
  }
  // Of images [N H W, channels], the pixel that `other` is counted from.
  template <typename E>
  __device__ const E* from_tile(const E* images, int64_t) const {
    return images;
  }
  // phi, or else psi, of a pixel.
  __device__ A relation(int64_t pixel, bool phi, int i) const {
    return wide(features[pixel * t.features + (phi ? 0 : t.R) + i]);
  }
  __device__ const T* value(int64_t pixel) const {
    return features + pixel * t.features + 2 * t.R;
  }

  // Calls store(row, i, a) for the whole padded chunk; a is 0 where no pair is.
  template <typename Store>
  __device__ void relate(Store store) const {
    for_each_cell(t.rows(), padded(t.R), [&](int row, int i) {
      const int64_t other = b.other[row];
      A a = 0;
      if (other >= 0 && i < t.R)
        a = relu(b.own[pixel(row) * padded(t.R) + i] +
                 b.factor[i] * other_relation(other, i));
      store(row, i, a);
    });
  }

  // Calls store(row, column, sum) with init(row, column) plus the product of
  // the rows of x and w, or its transpose, for all padded columns. What init
  // returns depends on the row's offset and the column.
  template <bool kTransposed, typename Init, typename Store>
  __device__ void multiply(const A* x, const Matrix<A>& w, Init init,
                           Store store) const {
    if (Tile::kFixed || w.shared)
      multiply_tiles<kTransposed>(x, w, init, store);
    else
      multiply_cells<kTransposed>(x, w, init, store);
  }
  template <bool kTransposed, typename Store>
  __device__ void multiply(const A* x, const Matrix<A>& w, Store store) const {
    multiply<kTransposed>(x, w, [](int, int) { return A(0); }, store);
  }

  // The four rows of an item. In a FixedTile all are at one offset.
  __device__ int item_row(int row, int i) const {
    if constexpr (Tile::kFixed) {
      const int quarter = t.pixels() / 4;
      return row / quarter * t.pixels() + row % quarter + i * quarter;
    }
    return row + i * (t.rows() / 4);
  }

  template <bool kTransposed, typename Init, typename Store>
  __device__ void multiply_tiles(const A* x, const Matrix<A>& w, Init init,
                                 Store store) const {
    const int depth = padded(kTransposed ? w.columns : w.rows);
    const int groups = padded(kTransposed ? w.rows : w.columns) / 4;
    const int pitch = t.pitch(), w_pitch = pitch_of(t.R);
    const int rows = t.rows() / 4, lanes = lane_bits(groups);
    const int bits = lanes < 3 ? lanes : 3, mask = (1 << bits) - 1;
    const int items = rows * ((groups + mask) >> bits) << bits;
    for (int item = threadIdx.x; item < items; item += kThreads) {
      const int row = (item >> bits) % rows;
      const int group = (item >> bits) / rows << bits | (item & mask);
      if (group >= groups) continue;
      A sum[4][4];
      const auto column = [&](int j) {
        return kTransposed ? group + j * groups : 4 * group + j;
      };
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sum[i][j] = !Tile::kFixed ? A(0)
                      : i > 0       ? sum[0][j]
                                    : init(item_row(row, 0), column(j));
#pragma unroll 1
      for (int d = 0; d < depth; d += 4) {
        Four<A> left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          left[i] = four(x + item_row(row, i) * pitch + d);
          right[i] =
              four(w.shared + (kTransposed ? (group + i * groups) * w_pitch + d
                                           : (d + i) * w_pitch + 4 * group));
        }
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              sum[i][j] +=
                  left[i].v[e] * (kTransposed ? right[j].v[e] : right[e].v[j]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          store(item_row(row, i), column(j),
                Tile::kFixed ? sum[i][j]
                             : sum[i][j] + init(item_row(row, i), column(j)));
    }
  }

  // Of a factor that does not fit shared memory, element by element.
  template <bool kTransposed, typename Init, typename Store>
  __device__ void multiply_cells(const A* x, const Matrix<A>& w, Init init,
                                 Store store) const {
    const int depth = kTransposed ? w.columns : w.rows;
    const int columns = kTransposed ? w.rows : w.columns;
    for_each_cell(t.rows(), padded(columns), [&](int row, int column) {
      A sum = 0;
      for (int d = 0; column < columns && d < depth; ++d)
        sum += x[row * t.pitch() + d] *
               w.global[kTransposed ? column * w.columns + d
                                    : d * w.columns + column];
      store(row, column, sum + init(row, column));
    });
  }

  // z = relu(w1 a + table), and w2 z.
  __device__ void hidden(const A* a, const Matrix<A>& w1, const A* table,
                         A* z) const {
    multiply<true>(
        a, w1, [&](int row, int i) { return from_table(table, row, i); },
        [&](int row, int i, A sum) { z[row * t.pitch() + i] = relu(sum); });
  }
  __device__ void logits(const A* z, const Matrix<A>& w2, A* to) const {
    multiply<true>(
        z, w2, [&](int row, int g, A sum) { to[row * t.pitch() + g] = sum; });
  }

  // Calls f(p, g, c, n) for channels c, c + G, ... of the value, n <= 4 of
  // them, which share the weights of group g.
  template <typename F>
  __device__ void for_each_channels(F f) const {
    const int quarter = (t.M + 4 * t.G - 1) / (4 * t.G);
    for_each_cell(t.pixels(), quarter * t.G, [&](int p, int i) {
      const int g = i % t.G, c = i / t.G * 4 * t.G + g;
      const int left = (t.M - c + t.G - 1) / t.G;
      f(p, g, c, left < 4 ? left : 4);
    });
  }

  // b.value[p, c] += sum over the pairs of weights[row, g] * images[other, c].
  __device__ void aggregate(const A* weights, const T* images,
                            int64_t image_pitch, const A* rescale) const {
    for_each_channels([&](int p, int g, int c, int n) {
      A sum[4] = {};
      for_each_pair(p, [&](int row, int64_t other) {
        const A weight = weights[row * t.pitch() + g];
        const T* from = images + other * image_pitch + c;
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (j < n) sum[j] += weight * wide(from[j * t.G]);
      });
      const A keep = rescale ? rescale[p * t.G + g] : A(1);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (j < n) {
          A& to = b.value[p * t.M + c + j * t.G];
          to = to * keep + sum[j];
        }
    });
  }

  // sums += transpose(u) v over the rows, in the form of OuterSums.
  __device__ void add_outer(const A* u, int height, const A* v, int width,
                            double* sums) const {
    const OuterSums o(height, width);
    for (int work = threadIdx.x; work < o.items * o.segments;
         work += kThreads) {
      const int item = work % o.items, segment = work / o.items;
      const A* left = u + item / o.across * 4;
      const A* right = v + item % o.across * 4;
      A sum[4][4] = {};
      for (int row = segment; row < t.rows(); row += o.segments) {
        const Four<A> x = four(left + row * t.pitch());
        const Four<A> y = four(right + row * t.pitch());
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += x.v[i] * y.v[j];
      }
      double* to = sums + int64_t(segment) * 16 * o.items + item;
#pragma unroll
      for (int i = 0; i < 16; ++i) to[i * o.items] += sum[i / 4][i % 4];
    }
  }

  // sums[offset, i] += sum over the pixels of x, [K, R].
  __device__ void add_to_table(const A* x, double* sums) const {
    const int taps = t.taps - tap < t.chunk ? t.taps - tap : t.chunk;
    for_each_cell(taps, t.R, [&](int step, int i) {
      A sum = 0;
      for (int p = 0; p < t.pixels(); ++p)
        sum += x[((step << t.pixel_bits) + p) * t.pitch() + i];
      sums[in_table(step << t.pixel_bits, i)] += sum;
    });
  }

  // sums[i] += sum over the pixels of x [P, R].
  __device__ void add_pixels(const A* x, double* sums) const {
    for (int i = threadIdx.x; i < t.R; i += kThreads) {
      A sum = 0;
      for (int p = 0; p < t.pixels(); ++p) sum += x[p * t.R + i];
      sums[i] += sum;
    }
  }

  // ---- Results: phi or psi, and beta, of the block's own pixels.

  template <typename F>
  __device__ void write_relation(T* to, F f) const {
    for_each_cell(t.pixels(), t.R, [&](int p, int i) {
      if (first + p < t.count)
        to[(first + p) * t.features + (own == Own::kP ? 0 : t.R) + i] =
            rounded<T>(f(p, i));
    });
  }
  template <typename F>
  __device__ void write_value(T* to, F f) const {
    for_each_cell(t.pixels(), t.M, [&](int p, int c) {
      if (first + p < t.count)
        to[(first + p) * t.features + 2 * t.R + c] = rounded<T>(f(p, c));
    });
  }

  const Tile& t;
  const T* features;
  Buffers<A, Needs, Tile> b;
  int64_t first = 0;  // pixel of the tile
  int begin_tap = 0, end_tap = 0;
  int tap = 0;  // of the chunk
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_BLOCK_H_
