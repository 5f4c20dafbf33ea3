// The tiles of the fast CUDA kernels in shared memory: how they are filled from
// planes, and how sums of the padded image go back. For .cu files only.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_UNIT_MEMORY_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_UNIT_MEMORY_H_

#include "cuda_kernels/window_ops/cuda_tiles.h"

namespace san::fast {

// The running unit's shared memory behind the tables: kPlanes values for each
// position of a tile, in pieces of 16 bytes that are read at once. The first
// pieces of adjacent positions lie side by side, then the second ones do, and
// so on, so that no two threads of a warp want the same bank.
template <typename A, int kPlanes>
struct UnitMemory {
  static constexpr int kBytes = kPlanes * static_cast<int>(sizeof(A));
  static constexpr int kPieces = kBytes > 16 ? kBytes / 16 : 1;
  static constexpr int kValues = kPlanes / kPieces;
  struct alignas(kValues * sizeof(A)) Piece {
    A values[kValues];
  };

  __device__ UnitMemory(const Tiling& tiling, const Place& place, int positions)
      : positions(positions) {
    A* units = reinterpret_cast<A*>(shared_memory() +
                                    tiling.table_size() * sizeof(int));
    pieces =
        reinterpret_cast<Piece*>(units + place.slot * tiling.shared.elements);
  }
  // That of the next kPlanes planes, behind this one.
  __device__ void advance() { pieces += kPieces * positions; }

  __device__ void load(int position, A (&values)[kPlanes]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const Piece piece = pieces[i * positions + position];
#pragma unroll
      for (int j = 0; j < kValues; ++j)
        values[i * kValues + j] = piece.values[j];
    }
  }
  __device__ void store(int position, const A (&values)[kPlanes]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Piece piece;
#pragma unroll
      for (int j = 0; j < kValues; ++j)
        piece.values[j] = values[i * kValues + j];
      pieces[i * positions + position] = piece;
    }
  }

  Piece* pieces;
  int positions;
};

// axis.position() and axis.source() where is_small(): in 32 bits.
__device__ inline int position(const Axis& axis, int output, int tap) {
  return output * static_cast<int>(axis.stride) -
         static_cast<int>(axis.padding) + tap * static_cast<int>(axis.dilation);
}
__device__ inline int source(const Axis& axis, int position) {
  const int size = static_cast<int>(axis.size);
  if (position >= 0 && position < size) return position;
  if (axis.mode == PaddingMode::kZeros) return -1;
  const int period = size > 1 ? 2 * (size - 1) : 1;
  int phase = position % period;
  if (phase < 0) phase += period;
  return phase < size ? phase : period - phase;
}

// Writes the tables that fill() reads: the tile's first row and column show
// these positions of the two axes. All threads call it, then wait.
__device__ inline void find_sources(const Tiling& tiling, const Axis& rows,
                                    int top, const Axis& columns, int left) {
  int* table = reinterpret_cast<int*>(shared_memory());
  const int count = tiling.shared.rows;
#pragma unroll 1
  for (int i = threadIdx.x; i < count + tiling.shared.columns;
       i += blockDim.x) {
    const bool is_row = i < count;
    Axis axis = {};  // the two have one mode
    axis.size = is_row ? rows.size : columns.size;
    axis.mode = rows.mode;
    table[i] = source(axis, is_row ? top + i : left + i - count);
  }
}

// Planes of one tensor, `stride` elements apart.
template <typename T>
struct Planes {
  const T* data;
  int64_t stride;
  int count, columns;
};

// The value if all bits of `mask` are set, 0 if none is. No choice, for which
// compilers would load in a branch.
__device__ inline float masked(float value, int mask) {
  return bits_float(float_bits(value) & static_cast<uint32_t>(mask));
}
__device__ inline double masked(double value, int mask) {
  return mask ? value : 0;
}

// Copies a tile of kPlanes planes to shared memory, with zeros for planes that
// there are not if some may be missing, and where the tables say so if they do.
// The threads of the unit call it.
template <bool kMissing, bool kZeros, int kWidth, typename T, int kPlanes>
__device__ void fill(const Tiling& tiling, const Place& place,
                     const Planes<T>& from,
                     UnitMemory<Accumulator<T>, kPlanes> to) {
  const int rows = tiling.shared.rows, columns = tiling.shared.columns;
  const int pitch = tiling.pitch();
  const int* row_sources = reinterpret_cast<const int*>(shared_memory());
  const int* column_sources = row_sources + rows;
  const auto [down, right] = tiling.by_shared_columns.divide(tiling.threads());
  const auto [first_row, first_column] =
      tiling.by_shared_columns.divide(place.thread);
  int row = first_row, column = first_column;
#pragma unroll 1
  while (row < rows) {
    const int y = row_sources[row], x = column_sources[column];
    const int pixel =
        kZeros ? max(y, 0) * from.columns + max(x, 0) : y * from.columns + x;
    const T* at = from.data + pixel;
    const int exists = kZeros ? ~((y | x) >> 31) : -1;
    Accumulator<T> values[kPlanes];
#pragma unroll
    for (int m = 0; m < kPlanes; ++m, at += from.stride) {
      const T value = kMissing && m >= from.count ? T() : *at;
      values[m] = kZeros ? masked(wide(value), exists) : wide(value);
    }
    to.store(
        row * pitch + column % kWidth * tiling.shared.run + column / kWidth,
        values);
    row += down;
    column += right;
    if (column >= columns) {
      column -= columns;
      ++row;
    }
  }
}

// The same, where the number of planes has to be asked.
template <bool kZeros, int kWidth, typename T, int kPlanes>
__device__ void fill(const Tiling& tiling, const Place& place,
                     const Planes<T>& from,
                     UnitMemory<Accumulator<T>, kPlanes> to) {
  if (from.count >= kPlanes)
    fill<false, kZeros, kWidth>(tiling, place, from, to);
  else
    fill<true, kZeros, kWidth>(tiling, place, from, to);
}

// Calls f(pixel, position) for each position of a tile in the padding that
// shows a pixel: [first, last) is what the tile has of the axis.
template <typename F>
__device__ void for_each_mirrored(const Axis& axis, int first, int last, F f) {
  const int size = static_cast<int>(axis.size);
  if (axis.mode == PaddingMode::kZeros) return;
#pragma unroll 1
  for (int position = first; position < last; ++position) {
    if (position >= 0 && position < size) position = size;
    if (position >= last) return;
    int pixel = position < 0 ? -position : 2 * (size - 1) - position;
    if (pixel < 0 || pixel >= size) pixel = source(axis, position);
    f(pixel, position);
  }
}

// Given the sums of a tile of padded_positions(), where slot(v, u) is the one
// of row v and column u of the tile, adds to each pixel those of its mirror
// images and calls store(pixel, sums) for each kWidth adjacent ones, into which
// the tile can be cut. All threads call it.
template <int kWidth, typename A, int kPlanes, typename Slot, typename F>
__device__ void fold(const Tiling& tiling, const Place& place,
                     const Window& window, const UnitMemory<A, kPlanes>& sums,
                     Slot slot, F store) {
  const auto add = [&](int to, int from) {
    A sum[kPlanes], more[kPlanes];
    sums.load(to, sum);
    sums.load(from, more);
#pragma unroll
    for (int m = 0; m < kPlanes; ++m) sum[m] += more[m];
    sums.store(to, sum);
  };
  const int height = static_cast<int>(window.rows.size);
  const int width = static_cast<int>(window.columns.size);
  if (place.exists)
#pragma unroll 1
    for (int v = place.thread; v < place.bottom - place.top;
         v += tiling.threads())
      for_each_mirrored(window.columns, place.left, place.right,
                        [&](int x, int u) {
                          add(slot(v, x - place.left), slot(v, u - place.left));
                        });
  __syncthreads();
  if (place.exists)
#pragma unroll 1
    for (int u = place.thread; u < place.right - place.left;
         u += tiling.threads())
      for_each_mirrored(window.rows, place.top, place.bottom,
                        [&](int y, int v) {
                          add(slot(y - place.top, u), slot(v - place.top, u));
                        });
  __syncthreads();
  if (!place.exists) return;
  const int top = max(place.top, 0), bottom = min(place.bottom, height);
  const auto [thread_row, thread_column] =
      tiling.by_thread_columns.divide(place.thread);
  const int x = max(place.left, 0) + static_cast<int>(thread_column) * kWidth;
  if (x >= min(place.right, width)) return;
#pragma unroll 1
  for (int y = top + thread_row; y < bottom; y += tiling.thread_rows) {
    A sum[kWidth][kPlanes];
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      sums.load(slot(y - place.top, x + j - place.left), sum[j]);
    store(y * width + x, sum);
  }
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_UNIT_MEMORY_H_
