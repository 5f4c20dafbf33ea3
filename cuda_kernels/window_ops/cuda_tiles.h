// How the fast CUDA kernels divide their work, and their tiles in shared
// memory. For .cu files only.
//
// A grid of positions (the outputs, or the padded image) is cut into tiles. A
// unit is what has such a grid to itself: a plane, or planes that share their
// weights. A block does one tile of one unit or, where images are small, of
// several; a thread does adjacent columns of some rows, as many as the
// alignment of rows allows it to access at once, so that a warp's accesses to
// global and shared memory are runs of adjacent elements.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_TILES_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_TILES_H_

#include <algorithm>
#include <optional>

#include "cuda_kernels/cuda/divisor.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/scalar_types.h"
#include "cuda_kernels/window.h"

namespace san::fast {

// Threads of a block: as a rule, and where the padding allows no smaller tile.
// The second bounds a thread to 128 registers.
constexpr int kUsualThreads = 256, kMostThreads = 512;
constexpr int kUsualColumns = 64;

// [begin, begin + extent) in `parts` nearly equal parts, whose lengths are
// multiples of `step`, but for the last.
struct Split {
  int begin, extent, step, parts;
  int each = 0, more = 0;  // steps of a part, and parts that have one more

  int steps() const { return (extent + step - 1) / step; }
  // What first() and last() are told.
  void settle() {
    each = steps() / parts;
    more = steps() % parts;
  }
  SAN_HOST_DEVICE int first(int part) const {
    return begin + step * (each * part + (part < more ? part : more));
  }
  SAN_HOST_DEVICE int last(int part) const {  // one past it
    const int end = begin + extent, next = first(part + 1);
    return next < end ? next : end;
  }
  int longest() const { return (steps() + parts - 1) / parts * step; }
  // The most parts of at least `length` positions.
  int most_parts(int length) const {
    return std::max(1, steps() / ((length + step - 1 + step - 1) / step));
  }
};

// What a unit keeps in shared memory for one tile: the rows and columns of
// source elements, if any, and all elements. Where threads own kWidth columns,
// every kWidth-th column lies side by side in a row, `run` of them.
struct SharedTile {
  int rows, columns, run;
  int64_t elements;
};

struct Tiling {
  Split rows, columns;
  int thread_rows, thread_columns;
  SharedTile shared;
  int units_per_block, units;
  // What Place and fill() divide by, once it is settle()d.
  Divisor<uint32_t> by_tiles = {}, by_column_parts = {}, by_threads = {};
  Divisor<uint32_t> by_thread_columns = {}, by_shared_columns = {};

  void settle() {
    rows.settle();
    columns.settle();
    by_tiles = Divisor<uint32_t>(tiles());
    by_column_parts = Divisor<uint32_t>(columns.parts);
    by_threads = Divisor<uint32_t>(threads());
    by_thread_columns = Divisor<uint32_t>(thread_columns);
    by_shared_columns = Divisor<uint32_t>(shared.columns);
  }
  SAN_HOST_DEVICE int threads() const { return thread_rows * thread_columns; }
  // From one row of sources to the next.
  SAN_HOST_DEVICE int pitch() const { return columns.step * shared.run; }
  SAN_HOST_DEVICE int source_positions() const { return shared.rows * pitch(); }
  SAN_HOST_DEVICE int tiles() const { return rows.parts * columns.parts; }
  // Positions of a tile, those of idle threads included.
  SAN_HOST_DEVICE int positions() const {
    return threads() * rows.step * columns.step;
  }
  // For each row and column of a tile the one of the source; 16-byte units.
  SAN_HOST_DEVICE int table_size() const {
    return (shared.rows + shared.columns + 3) / 4 * 4;
  }
  int64_t blocks() const {
    const int64_t rounded_up = int64_t{units} + units_per_block - 1;
    return rounded_up / units_per_block * tiles();
  }
  int64_t shared_bytes(int64_t element_bytes) const {
    return table_size() * sizeof(int) +
           units_per_block * shared.elements * element_bytes;
  }
  LaunchShape launch_shape(int64_t element_bytes) const {
    return {static_cast<unsigned>(blocks()),
            static_cast<unsigned>(units_per_block * threads()),
            static_cast<size_t>(shared_bytes(element_bytes))};
  }
};

inline int multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "ask for the current CUDA device");
  check_cuda(
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
      "ask for the multiprocessors of a CUDA device");
  return count;
}

// Whether the indices inside a plane, its padding included, fit into int.
inline bool is_small(const Window& window) {
  constexpr int64_t kMost = 1 << 28;
  int64_t area = 1;
  for (const Axis& axis : {window.rows, window.columns}) {
    for (const int64_t value : {axis.size, axis.outputs, axis.padding,
                                axis.taps, axis.stride, axis.dilation})
      if (value > kMost) return false;
    const int64_t reach = axis.taps * axis.dilation + axis.stride;
    const int64_t extent = axis.size + 2 * axis.padding + reach;
    if (extent > kMost || area > kMost / extent) return false;
    area *= extent;
  }
  return true;
}

// How many of `units` a block does, from half of `most` to `most`, so that the
// multiprocessor with the most of them has the fewest.
inline int even_units(int64_t units, int64_t tiles, int64_t most) {
  const int64_t processors = multiprocessors();
  int64_t best = most, least = units * tiles;
  for (int64_t count = most; 2 * count > most; --count) {
    const int64_t blocks = (units + count - 1) / count * tiles;
    const int64_t rounds = (blocks + processors - 1) / processors;
    if (rounds * count < least) {
      best = count;
      least = rounds * count;
    }
  }
  return static_cast<int>(best);
}

// The tiling of `units` grids whose `rows` and `columns` come with parts = 1,
// in parts of at least `least` positions each way. shared_tile(rows, columns)
// is what a tile of this size takes; half of a multiprocessor's shared memory
// is the most, so that two blocks run side by side. Nothing if that is too
// little.
template <typename F>
std::optional<Tiling> tiling(int64_t units, Split rows, Split columns,
                             int least, int64_t element_bytes, F shared_tile) {
  if (units > 0x7fffffff) return std::nullopt;
  const int most_rows = rows.most_parts(least);
  const int most_columns = columns.most_parts(least);
  const auto parts = [](int64_t steps, int length, int most) {
    return static_cast<int>(
        std::min<int64_t>((steps + length - 1) / length, most));
  };
  columns.parts = parts(columns.steps(), kUsualColumns, most_columns);
  const int usual_rows =
      std::max(1, kUsualThreads / (columns.longest() / columns.step));
  rows.parts = parts(rows.steps(), usual_rows, most_rows);
  const int64_t most_bytes = most_shared_bytes() / 2;
  for (;;) {
    const SharedTile shared = shared_tile(rows.longest(), columns.longest());
    const int count = static_cast<int>(units);
    Tiling result = {rows,
                     columns,
                     rows.longest() / rows.step,
                     columns.longest() / columns.step,
                     shared,
                     1,
                     count};
    const int64_t bytes = result.shared_bytes(element_bytes);
    if (result.threads() <= kMostThreads && bytes <= most_bytes) {
      const int64_t spread = units / (2 * multiprocessors());
      const int64_t most = std::max<int64_t>(
          1, std::min({int64_t{kUsualThreads / result.threads()}, spread,
                       most_bytes / bytes}));
      result.units_per_block = even_units(units, result.tiles(), most);
      if (result.blocks() > 0x7fffffff) return std::nullopt;
      result.settle();
      return result;
    }
    Split& split = rows.parts < most_rows ? rows : columns;
    const int most = rows.parts < most_rows ? most_rows : most_columns;
    if (split.parts == most) return std::nullopt;
    split.parts = std::min(2 * split.parts, most);
  }
}

// The grid of outputs of one axis.
inline Split outputs_of(const Axis& axis, int step) {
  return {0, static_cast<int>(axis.outputs), step, 1};
}

// The grid of padded positions of one axis whose sums fold() adds up. Parts of
// at least fold_part() positions have the pixels that their padding mirrors.
inline Split padded_positions(const Axis& axis, int step) {
  const int padding = static_cast<int>(axis.padding);
  const int size = static_cast<int>(axis.size);
  // Nothing mirrors zeros, but steps count from where the padding begins.
  const int before = padding % step;
  if (axis.mode == PaddingMode::kZeros)
    return {-before, size + before, step, 1};
  return {-padding, size + 2 * padding, step, 1};
}
inline int fold_part(const Axis& axis) {
  return axis.mode == PaddingMode::kZeros ? 1 : 2 * axis.padding + 1;
}

// The work of the running thread.
struct Place {
  __device__ explicit Place(const Tiling& tiling) {
    const auto [block, tile] = tiling.by_tiles.divide(blockIdx.x);
    const auto [row_part, column_part] = tiling.by_column_parts.divide(tile);
    top = tiling.rows.first(row_part);
    bottom = tiling.rows.last(row_part);
    left = tiling.columns.first(column_part);
    right = tiling.columns.last(column_part);
    const auto [own_slot, own_thread] = tiling.by_threads.divide(threadIdx.x);
    slot = own_slot;
    thread = own_thread;
    const int first = block * tiling.units_per_block;
    exists = slot < tiling.units - first;
    unit = first + slot;
    const auto [y, x] = tiling.by_thread_columns.divide(own_thread);
    row = y * tiling.rows.step;
    column = x * tiling.columns.step;
    end = min(top + row + tiling.rows.step, bottom);
    active = exists && top + row < bottom && left + column < right;
  }

  int top, bottom, left, right;  // the tile; bottom and right are outside
  int unit;
  int slot, thread;  // of the unit in the block, of the thread in the unit
  bool exists;       // whether there is such a unit
  bool active;       // whether the thread has positions, too
  int row, column;   // the thread's first position, from (top, left)
  int end;           // behind its last row
};

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

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_TILES_H_
