// Fast subtraction2 on CUDA: both gradients.
//
// Idea. Almost all traffic is the gradient of the output, K elements a pixel.
// Where windows of 3 x 3 or 7 x 7 keep the image's size, each is read once, for
// both gradients, in accesses as wide as the rows' alignment allows, by the
// owner of its output, and nobody asks which outputs read a position.
//
// N batch, C channels, a unit is a plane, one (n, c); k * k = K taps.
//
// Memory plan.
//   same size  A thread owns kWidth adjacent columns of outputs in a band of
//              rows and goes down. In registers it has, of one row, the
//              gradient of a, and what its windows have sent to k rows of
//              kWidth + k - 1 columns of the padded image. The uppermost of
//              these rows is complete but for what other columns send there:
//              lanes hand that on to the right, then it goes to shared memory.
//              The last k - 1 rows of a band are added to the next band's
//              behind a barrier. Then mirror images are added, along columns,
//              then along rows.
//   any other  A thread owns a position of the padded image and gathers both
//              gradients there (cuda_tiles.h).
// One writer per element, sums in a fixed order: no atomics.
//
// Elements moved per output: K + 2.
#include "cuda_kernels/cuda/warp.h"
#include "cuda_kernels/window_ops/cuda_steps.h"
#include "cuda_kernels/window_ops/subtraction.h"

namespace san::fast {
namespace {

constexpr int kLanes = 32;
constexpr int kUsualRows = 7;  // of a band

// How blocks of whole warps share out planes. A line is what adjacent lanes do:
// a band of a chunk of columns, which is the whole plane where 32 lanes do.
struct Lines {
  int groups, chunks, bands, rows;  // groups of kWidth columns, rows of a band
  int lanes, per_warp;              // lanes of a line, lines of a warp
  int units, units_per_block;
  int pitch, elements;  // of a unit's sums in shared memory
  Divisor<uint32_t> by_lanes, by_lines, by_chunks;

  // Of a unit.
  int count() const { return bands * chunks; }
  int threads() const {
    return (units_per_block * count() + per_warp - 1) / per_warp * kLanes;
  }
};

// The sums of one row and where they are in shared memory, kWidth columns of
// outputs a thread.
template <int kTaps, int kWidth>
struct Row {
  static constexpr int kReach = kTaps - 1, kCentre = kReach / 2;
  static constexpr int kColumns = kWidth + kReach;
  static constexpr int kChunk = kLanes * kWidth;
  // Columns behind a chunk for what it sends to the next one.
  static constexpr int kCarry = (kReach + kWidth - 1) / kWidth * kWidth;

  // Of a column of the padded image.
  static SAN_HOST_DEVICE int place(int column, int chunks) {
    const int chunk = column / kChunk;
    return column + (chunk < chunks ? chunk : chunks - 1) * kCarry;
  }
};

template <typename T>
struct SameSizeTask {
  Window window;
  Lines lines;
  const T* grad_output;
  T *grad_a, *grad_b;
};

template <typename T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kMostThreads, 1)
    backward_same_size(SameSizeTask<T> task) {
  using A = Accumulator<T>;
  using R = Row<kTaps, kWidth>;
  const Lines& lines = task.lines;
  const int height = static_cast<int>(task.window.rows.size);
  const int width = static_cast<int>(task.window.columns.size);
  const auto in_warp = lines.by_lanes.divide(lane());
  const auto in_block = lines.by_lines.divide(
      threadIdx.x / kLanes * lines.per_warp + in_warp.quotient);
  const auto in_unit = lines.by_chunks.divide(in_block.remainder);
  const int member = in_warp.remainder, slot = in_block.quotient;
  const int band = in_unit.quotient, chunk = in_unit.remainder;
  const int unit = blockIdx.x * lines.units_per_block + slot;
  const int group = chunk * kLanes + member;
  const bool active = lane() < lines.per_warp * lines.lanes &&
                      slot < lines.units_per_block && unit < lines.units &&
                      group < lines.groups;
  const bool is_last = member == kLanes - 1 || group == lines.groups - 1;
  const int top = band * lines.rows, x = group * kWidth;
  A* const sums = reinterpret_cast<A*>(shared_memory()) + slot * lines.elements;
  A* own_sums = sums + top * lines.pitch + R::place(x, lines.chunks);

  // Adds what the lanes to the left send to this one's columns; the line's last
  // lane keeps what lies behind it.
  const int left = max(lane() - 1, 0);
  const auto join = [&](A(&row)[R::kColumns]) {
#pragma unroll
    for (int i = R::kReach - 1; i >= 0; --i) {
      const A sent = shuffle(row[kWidth + i], left);
      if (member > 0) row[i] += sent;
    }
  };
  A rows[kTaps][R::kColumns] = {};
  const int64_t outputs = task.window.outputs();
  const int64_t first = unit * outputs + top * width + x;
  const T* from =
      task.grad_output + unit * (kTaps * kTaps - 1) * outputs + first;
#pragma unroll 1
  for (int r = 0; r < lines.rows; ++r) {
    const bool exists = active && top + r < height;
    A a[kWidth] = {};
    const T* tap = from;
    const auto add = [&](int kh) {
      Adjacent<T, kWidth> loaded[kTaps];
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw, tap += outputs)
        loaded[kw] = Adjacent<T, kWidth>::at(tap);
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw)
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const A value = loaded[kw][j];
          a[j] += value;
          rows[kh][j + kw] -= value;
        }
    };
    if (exists) add(0);
    join(rows[0]);
    if (active) {
      A own[kWidth];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) own[j] = rows[0][j];
      store_adjacent(own_sums, own);
      if (is_last)
#pragma unroll
        for (int i = kWidth; i < R::kColumns; ++i) own_sums[i] = rows[0][i];
    }
    if (exists) {
#pragma unroll
      for (int kh = 1; kh < kTaps; ++kh) add(kh);
      if (task.grad_a) store_adjacent(task.grad_a + first + r * width, a);
    }
#pragma unroll
    for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
      for (int j = 0; j < R::kColumns; ++j)
        rows[kh][j] = kh < kTaps - 1 ? rows[kh + 1][j] : A(0);
    from += width;
    own_sums += lines.pitch;
  }
#pragma unroll
  for (int r = 0; r < R::kReach; ++r) join(rows[r]);
  __syncthreads();
  const bool below = band < lines.bands - 1;
  if (active)
#pragma unroll
    for (int r = 0; r < R::kReach; ++r, own_sums += lines.pitch)
#pragma unroll
      for (int i = 0; i < R::kColumns; ++i)
        if (i < kWidth || is_last)
          own_sums[i] = rows[r][i] + (below ? own_sums[i] : A(0));
  __syncthreads();
  if (!task.grad_b) return;

  // Threads of the unit, one after the other, take lines of its sums.
  const int step = lines.bands * lines.groups;
  const int number = band * lines.groups + group;
  constexpr int kPadding = R::kCentre;
  if (active)
    for (int y = number; y < height + R::kReach; y += step) {
      A* const row = sums + y * lines.pitch;
#pragma unroll 1
      for (int c = 1; c < lines.chunks; ++c)
#pragma unroll 1
        for (int i = 0; i < R::kReach; ++i) {
          A* const to = row + c * (R::kChunk + R::kCarry) + i;
          *to += to[-R::kCarry];
        }
      for_each_mirrored(task.window.columns, -kPadding, width + kPadding,
                        [&](int x, int u) {
                          row[R::place(x + kPadding, lines.chunks)] +=
                              row[R::place(u + kPadding, lines.chunks)];
                        });
    }
  __syncthreads();
  if (active)
    for (int column = number; column < width; column += step) {
      A* const at = sums + R::place(column + kPadding, lines.chunks);
      for_each_mirrored(task.window.rows, -kPadding, height + kPadding,
                        [&](int y, int v) {
                          at[(y + kPadding) * lines.pitch] +=
                              at[(v + kPadding) * lines.pitch];
                        });
    }
  __syncthreads();
  if (!active) return;
  const A* pixels[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    pixels[j] = sums + (top + kPadding) * lines.pitch +
                R::place(x + kPadding + j, lines.chunks);
  T* to_b = task.grad_b + first;
#pragma unroll 1
  for (int r = 0; r < lines.rows && top + r < height; ++r, to_b += width) {
    A sums[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] = pixels[j][r * lines.pitch];
    store_adjacent(to_b, sums);
  }
}

// Lines for planes of this window, in at most half of a multiprocessor's shared
// memory if that is enough; nothing if no plane fits a block.
template <int kTaps, int kWidth>
std::optional<Lines> lines_for(const Window& window, int64_t planes) {
  using R = Row<kTaps, kWidth>;
  const int64_t height = window.rows.size, width = window.columns.size;
  const int64_t most_bytes = most_shared_bytes();
  if (planes > 0x7fffffff || height * width > most_bytes) return std::nullopt;
  Lines lines = {};
  lines.units = static_cast<int>(planes);
  lines.groups = static_cast<int>(width / kWidth);
  lines.chunks = (lines.groups + kLanes - 1) / kLanes;
  lines.lanes = std::min(lines.groups, kLanes);
  lines.per_warp = kLanes / lines.lanes;
  const int most_lines = kMostThreads / kLanes * lines.per_warp;
  if (lines.chunks > most_lines) return std::nullopt;
  const int most_bands = most_lines / lines.chunks;
  const auto parts = [&](int rows) {
    return static_cast<int>((height + rows - 1) / rows);
  };
  lines.rows = std::max(kUsualRows, parts(most_bands));
  lines.bands = parts(lines.rows);
  const int64_t carries = (lines.chunks - 1) * R::kCarry;
  const int64_t pitch = width + R::kReach + carries;
  lines.pitch = static_cast<int>((pitch + kWidth - 1) / kWidth * kWidth);
  const int64_t elements =
      (int64_t{lines.bands} * lines.rows + R::kReach) * lines.pitch;
  lines.elements = static_cast<int>((elements + 3) / 4 * 4);
  const int64_t bytes = lines.elements * int64_t{sizeof(float)};
  if (bytes > most_bytes) return std::nullopt;
  // Whole warps, if several planes share one.
  const int step = std::max(1, lines.per_warp / lines.count());
  const int usual_lines = kUsualThreads / kLanes * lines.per_warp;
  const int64_t most =
      std::min<int64_t>(usual_lines / lines.count(), most_bytes / 2 / bytes);
  lines.units_per_block = step * even_units((planes + step - 1) / step, 1,
                                            std::max<int64_t>(1, most / step));
  lines.by_lanes = Divisor<uint32_t>(lines.lanes);
  lines.by_lines = Divisor<uint32_t>(lines.count());
  lines.by_chunks = Divisor<uint32_t>(lines.chunks);
  return lines;
}

// Whether windows of kTaps x kTaps keep the image's size.
template <int kTaps>
bool keeps_size(const Window& window) {
  for (const Axis& axis : {window.rows, window.columns})
    if (axis.taps != kTaps || axis.stride != 1 || axis.dilation != 1 ||
        axis.padding != kTaps / 2)
      return false;
  return true;
}

template <typename T, int kTaps, int kWidth>
bool run_same_size(const SubtractionBackward& task, void* stream) {
  const Window& window = task.shape.window;
  if (!keeps_size<kTaps>(window) ||
      !allows_width<T>(kWidth, window.columns.size,
                       {task.grad_output, task.grad_a, task.grad_b}))
    return false;
  const auto lines = lines_for<kTaps, kWidth>(window, task.shape.planes());
  if (!lines) return false;
  const int per_block = lines->units_per_block;
  launch(&backward_same_size<T, kTaps, kWidth>,
         {static_cast<unsigned>((lines->units + per_block - 1) / per_block),
          static_cast<unsigned>(lines->threads()),
          static_cast<size_t>(per_block) * lines->elements * sizeof(float)},
         stream,
         SameSizeTask<T>{
             window, *lines, static_cast<const T*>(task.grad_output),
             static_cast<T*>(task.grad_a), static_cast<T*>(task.grad_b)});
  return true;
}

template <typename T, int kTaps>
bool run_same_size(const SubtractionBackward& task, void* stream) {
  return run_same_size<T, kTaps, 4>(task, stream) ||
         run_same_size<T, kTaps, 2>(task, stream) ||
         run_same_size<T, kTaps, 1>(task, stream);
}

// Any window, stride and dilation.
template <typename T>
struct BackwardTask {
  Window window;
  Tiling tiling;
  const T* grad_output;
  T *grad_a, *grad_b;
};

// Both gradients at the position `y` rows and `x` columns after the beginning
// of the padding. `tap` has the gradients of the plane.
template <typename T, typename A = Accumulator<T>>
__device__ void gather(const Window& window, const T* tap, bool needs_a,
                       bool needs_b, int y, int x, A (&sums)[2]) {
  const Axis &rows = window.rows, &columns = window.columns;
  const int dilation = static_cast<int>(rows.dilation);
  const int width = static_cast<int>(columns.outputs);
  const int ha =
      output_at(y - static_cast<int>(rows.centre_tap()) * dilation, rows);
  const int wa =
      output_at(x - static_cast<int>(columns.centre_tap()) * dilation, columns);
  for (int kh = 0; kh < rows.taps; ++kh) {
    const int hb = output_at(y - kh * dilation, rows);
    for (int kw = 0; kw < columns.taps; ++kw, tap += window.outputs()) {
      const int wb = output_at(x - kw * dilation, columns);
      if (needs_a && ha >= 0 && wa >= 0) sums[0] += wide(tap[ha * width + wa]);
      if (needs_b && hb >= 0 && wb >= 0) sums[1] -= wide(tap[hb * width + wb]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads, 1)
    backward(BackwardTask<T> task) {
  using A = Accumulator<T>;
  const Window& window = task.window;
  const Place place(task.tiling);
  const UnitMemory<A, 2> sums(task.tiling, place, task.tiling.positions());
  if (place.active) {
    const int padding = static_cast<int>(window.rows.padding);
    A own[2] = {};
    gather(window,
           task.grad_output + place.unit * window.taps() * window.outputs(),
           task.grad_a != nullptr, task.grad_b != nullptr,
           place.top + place.row + padding, place.left + place.column + padding,
           own);
    sums.store(place.row * task.tiling.thread_columns + place.column, own);
  }
  __syncthreads();
  const int64_t first = place.unit * window.pixels();
  const auto slot = [&](int row, int column) {
    return row * task.tiling.thread_columns + column;
  };
  fold<1>(task.tiling, place, window, sums, slot,
          [&](int pixel, const A(&sums)[1][2]) {
            if (task.grad_a)
              task.grad_a[first + pixel] = rounded<T>(sums[0][0]);
            if (task.grad_b)
              task.grad_b[first + pixel] = rounded<T>(sums[0][1]);
          });
}

template <typename T>
bool run_any_window(const SubtractionBackward& task, void* stream) {
  const Window& window = task.shape.window;
  const auto tiling =
      fast::tiling(task.shape.planes(), padded_positions(window.rows, 1),
                   padded_positions(window.columns, 1), fold_part(window.rows),
                   sizeof(Accumulator<T>), [](int64_t height, int64_t width) {
                     return SharedTile{0, 0, 0, 2 * height * width};
                   });
  if (!tiling) return false;
  launch(&backward<T>, tiling->launch_shape(sizeof(Accumulator<T>)), stream,
         BackwardTask<T>{
             window, *tiling, static_cast<const T*>(task.grad_output),
             static_cast<T*>(task.grad_a), static_cast<T*>(task.grad_b)});
  return true;
}

template <typename T>
bool run(const SubtractionBackward& task, void* stream) {
  if (task.shape.planes() == 0) return true;
  if constexpr (!std::is_same_v<T, double>)
    if (run_same_size<T, 3>(task, stream) || run_same_size<T, 7>(task, stream))
      return true;
  return run_any_window<T>(task, stream);
}

}  // namespace

void run_on_cuda(const SubtractionBackward& task, void* stream) {
  bool done = false;
  if (is_small(task.shape.window) && task.shape.layout == Layout::kRowMajor)
    with_scalar_type(task.type, [&](auto zero) {
      done = run<decltype(zero)>(task, stream);
    });
  if (!done) simple::run_on_cuda(task, stream);
}

}  // namespace san::fast
