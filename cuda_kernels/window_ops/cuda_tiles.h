// How the fast CUDA kernels divide their work. For .cu files only.
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
constexpr int kUsualColumns = 64;  // of threads

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

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_TILES_H_
