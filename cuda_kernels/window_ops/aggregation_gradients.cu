// Fast aggregation on CUDA: the gradients of its weight and of its input.
//
// Idea and letters as in aggregation.cu: each weight, or its gradient, is moved
// once for all channels that share it.
//
// Memory plan (cuda_tiles.h, cuda_steps.h).
//   weight gradient  A unit is (image, weight channel). The padded pixels of
//                    all M channels are in shared memory; a thread owns all
//                    taps of kWidth adjacent outputs, in one row after the
//                    other, and has their gradients in registers.
//   input gradient   A unit is (image, weight channel, eight of the M
//                    channels). Shared memory has the gradients of the outputs
//                    that read a tile of the padded image, zeros around; a
//                    thread owns kWidth adjacent positions of that tile, in
//                    one row after the other, and gathers what all taps send
//                    there. These sums go to shared memory, too, where each
//                    pixel gets those of its mirror images, which are in the
//                    same tile.
// One writer per element, sums in a fixed order: no atomics.
//
// Elements moved per output pixel of eight channels: K + 16 by either, and the
// tiles' rims. They are two kernels: all they could share is grad_output, 8
// elements beside 2 K.
#include "cuda_kernels/window_ops/cuda_aggregation.h"

namespace san::fast {
namespace {

// The gradients of a thread's outputs in kMembers channels from `first` on.
template <int kWidth, typename T>
__device__ void load_grads(const T* grad_output, int64_t stride, int first,
                           int members,
                           Accumulator<T> (&grads)[kMembers][kWidth]) {
  const T* at = grad_output + first * stride;
  Adjacent<T, kWidth> loaded[kMembers] = {};
#pragma unroll
  for (int m = 0; m < kMembers; ++m, at += stride) {
    if (first + m >= members) break;
    loaded[m] = Adjacent<T, kWidth>::at(at);
  }
#pragma unroll
  for (int m = 0; m < kMembers; ++m)
#pragma unroll
    for (int j = 0; j < kWidth; ++j) grads[m][j] = loaded[m][j];
}

// kIsOneChunk: a weight channel has kMembers channels at most.
template <typename T, int kTaps, int kWidth, bool kIsOneChunk>
__global__ void __launch_bounds__(kMostThreads, 1) grad_weight(Task<T> task) {
  using A = Accumulator<T>;
  using S = Steps<kTaps, kWidth>;
  const Window& window = task.shape.window;
  const S steps(window, task.tiling);
  const Place place(task.tiling);
  const Unit unit(task.shape, task.sizes, place.unit);
  const UnitMemory<A, kMembers> tile(task.tiling, place,
                                     task.tiling.source_positions());
  load_pixels<kWidth>(task, place, unit, tile);
  const int x = place.left + place.column;
  if (!place.active) return;

  const int64_t outputs = window.outputs();
  const int width = static_cast<int>(window.columns.outputs);
  const int64_t stride = task.shape.weight_channels * outputs;
  const T* grad_output = task.grad_output + unit.plane * outputs + x;
  T* result = task.result + unit.weight_plane * window.taps() * outputs + x;
#pragma unroll 1
  for (int y = place.top + place.row; y < place.end; ++y) {
    A grads[kMembers][kWidth];
    load_grads(grad_output + y * width, stride, 0, unit.members, grads);
    T* tap = result + y * width;
#pragma unroll 1
    for (int step = 0; step < steps.count; ++step) {
      A sums[kTaps][kWidth] = {};
      const int source = steps.source(place, y, step);
      auto from = tile;
#pragma unroll 1
      for (int first = 0; first < unit.members;) {
#pragma unroll
        for (int c = 0; c < S::kColumns; ++c) {
          A pixels[kMembers];
          from.load(source + steps.next(c), pixels);
#pragma unroll
          for (int j = 0; j < kWidth; ++j)
            if (c >= j && c - j < kTaps)
#pragma unroll
              for (int m = 0; m < kMembers; ++m)
                sums[c - j][j] += grads[m][j] * pixels[m];
        }
        if (kIsOneChunk) break;
        // Those of the next chunk or, for the next step, of the first.
        first += kMembers;
        load_grads(grad_output + y * width, stride,
                   first < unit.members ? first : 0, unit.members, grads);
        from.advance();
      }
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw, tap += outputs)
        store_adjacent(tap, sums[kw]);
    }
  }
}

// What all outputs send to the kWidth positions of a thread that begin at row y
// and column x of the padded image. `weight` is its weight channel; `tile` has
// the output gradients from output (top, left) on.
template <typename T, int kTaps, int kWidth>
struct Gather {
  using A = Accumulator<T>;
  using S = Steps<kTaps, kWidth>;
  const Window& window;
  const S& steps;
  const T* weight;
  UnitMemory<A, kMembers> tile;
  int top, left;

  // kTaps > 1. Outputs are read kWidth at a time: those that a tap needs lie in
  // a group of them or in two, of which either exist all or none do.
  __device__ void run(int y, int x, A (&sums)[kMembers][kWidth]) const {
    constexpr int kGroups = (kTaps - 1 + kWidth - 1) / kWidth + 1;
    const int height = static_cast<int>(window.rows.outputs);
    const int width = static_cast<int>(window.columns.outputs);
    const int64_t outputs = window.outputs();
    bool exist[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      exist[g] = x >= g * kWidth && x - g * kWidth < width;
#pragma unroll 1
    for (int kh = max(0, y - height + 1); kh < min(kTaps, y + 1); ++kh) {
      const T* tap = weight + kh * kTaps * outputs + (y - kh) * width + x;
      A weights[kTaps][kWidth];
#pragma unroll
      for (int kw = 0; kw < kTaps; ++kw, tap += outputs) {
        constexpr auto kNone = Adjacent<T, kWidth>();
        const int g = (kw + kWidth - 1) / kWidth;
        const int skipped = g * kWidth - kw;
        const auto first =
            exist[g] ? Adjacent<T, kWidth>::at(tap - g * kWidth) : kNone;
        const auto second =
            skipped && exist[g - 1]
                ? Adjacent<T, kWidth>::at(tap - (g - 1) * kWidth)
                : kNone;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const int at = skipped + j;
          weights[kw][j] =
              at < kWidth ? first[at % kWidth] : second[at % kWidth];
        }
      }
      const int from =
          (y - kh - top) * steps.pitch + (x - left - (kTaps - 1)) / kWidth;
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) {
        A grads[kMembers];
        tile.load(from + steps.next(c), grads);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const int kw = kTaps - 1 + j - c;
          if (kw >= 0 && kw < kTaps)
#pragma unroll
            for (int m = 0; m < kMembers; ++m)
              sums[m][j] += weights[kw][j] * grads[m];
        }
      }
    }
  }

  // kTaps = kWidth = 1: any stride and dilation.
  __device__ void run_generic(int y, int x, A (&sums)[kMembers][kWidth]) const {
    const Axis &rows = window.rows, &columns = window.columns;
    const int64_t outputs = window.outputs();
    const T* tap = weight;
    const int dilation = static_cast<int>(rows.dilation);
    for (int kh = 0; kh < rows.taps; ++kh) {
      const int ho = output_at(y - kh * dilation, rows);
      for (int kw = 0; kw < columns.taps; ++kw, tap += outputs) {
        const int wo = output_at(x - kw * dilation, columns);
        if (ho < 0 || wo < 0) continue;
        const A w = wide(tap[ho * static_cast<int>(columns.outputs) + wo]);
        A grads[kMembers];
        tile.load((ho - top) * steps.pitch + wo - left, grads);
#pragma unroll
        for (int m = 0; m < kMembers; ++m) sums[m][0] += w * grads[m];
      }
    }
  }
};

// The first output that reads a position `distance` after the padding begins,
// whether it exists or not.
template <int kTaps>
__device__ int first_reader(int distance, const Axis& axis) {
  if constexpr (kTaps > 1) return distance - (kTaps - 1);
  const int stride = static_cast<int>(axis.stride);
  const int least =
      distance - static_cast<int>((axis.taps - 1) * axis.dilation);
  return (least > 0 ? least + stride - 1 : least) / stride;
}

__device__ inline Axis output_axis(const Axis& axis) {
  return {axis.outputs, 1, 1, 1, 0, 1, PaddingMode::kZeros};
}

template <typename T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kMostThreads, 1) grad_input(Task<T> task) {
  using A = Accumulator<T>;
  const Window& window = task.shape.window;
  const Tiling& tiling = task.tiling;
  const Steps<kTaps, kWidth> steps(window, tiling);
  const Place place(tiling);
  const Unit unit(task.shape, task.sizes, place.unit);
  const UnitMemory<A, kMembers> tile(tiling, place, tiling.source_positions());
  UnitMemory<A, kMembers> positions(tiling, place, tiling.positions());
  positions.pieces += UnitMemory<A, kMembers>::kPieces * tile.positions;
  const int padding = static_cast<int>(window.rows.padding);
  const int top = first_reader<kTaps>(place.top + padding, window.rows);
  const int left = first_reader<kTaps>(place.left + padding, window.columns);
  const Axis rows = output_axis(window.rows);
  const Axis columns = output_axis(window.columns);
  find_sources(tiling, rows, top, columns, left);
  __syncthreads();
  if (place.exists)
    fill<true, kWidth>(
        tiling, place,
        unit.planes(task.grad_output, task.shape, window.outputs(), columns),
        tile);
  __syncthreads();
  const auto slot = [&](int row, int column) {
    return (row * kWidth + column % kWidth) * tiling.thread_columns +
           column / kWidth;
  };
  const int x = place.left + place.column;
  if (place.active) {
    const Gather<T, kTaps, kWidth> gather = {
        window,
        steps,
        task.weight + unit.weight_plane * window.taps() * window.outputs(),
        tile,
        top,
        left};
#pragma unroll 1
    for (int y = place.top + place.row; y < place.end; ++y) {
      A sums[kMembers][kWidth] = {};
      if constexpr (kTaps > 1)
        gather.run(y + padding, x + padding, sums);
      else
        gather.run_generic(y + padding, x + padding, sums);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        A own[kMembers];
#pragma unroll
        for (int m = 0; m < kMembers; ++m) own[m] = sums[m][j];
        positions.store(slot(y - place.top, place.column + j), own);
      }
    }
  }
  __syncthreads();
  const int64_t pixels = window.pixels();
  T* result = task.result + unit.plane * pixels;
  const int64_t stride = task.shape.weight_channels * pixels;
  fold<kWidth>(tiling, place, window, positions, slot,
               [&](int pixel, const A(&sums)[kWidth][kMembers]) {
                 T* at = result + pixel;
#pragma unroll
                 for (int m = 0; m < kMembers; ++m, at += stride) {
                   if (m >= unit.members) break;
                   A adjacent[kWidth];
#pragma unroll
                   for (int j = 0; j < kWidth; ++j) adjacent[j] = sums[j][m];
                   store_adjacent(at, adjacent);
                 }
               });
}

// Gradients of the outputs that can read a tile of positions, and its sums, in
// kMembers planes of shared memory.
SharedTile reader_tile(const Window& window, int rows, int columns, int width) {
  const auto readers = [](const Axis& axis, int64_t positions) {
    return (positions - 1 + (axis.taps - 1) * axis.dilation) / axis.stride + 1;
  };
  SharedTile tile = tile_of(readers(window.rows, rows),
                            readers(window.columns, columns), kMembers, width);
  tile.elements += kMembers * static_cast<int64_t>(rows) * columns;
  return tile;
}

// Launches, if there are tiles that fit.
template <typename T>
bool run_grad_weight(const AggregationShape& shape, Task<T> task,
                     void* stream) {
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels;
  const auto run = [&](auto kernel, int width, int rows) {
    const auto tiling = fast::tiling(
        units, outputs_of(window.rows, rows), outputs_of(window.columns, width),
        1, sizeof(Accumulator<T>), [&](int height, int columns) {
          return padded_tile(window, height, columns, kMembers * chunks(shape),
                             width);
        });
    if (!tiling) return false;
    task.tiling = *tiling;
    task.sizes = UnitSizes(shape, 1);
    launch(kernel, tiling->launch_shape(sizeof(Accumulator<T>)), stream, task);
    return true;
  };
  return with_steps<T>(
      window, units, window.columns.outputs, {task.grad_output, task.result},
      [&](auto taps, auto width, int rows) {
        if (chunks(shape) == 1)
          return run(&grad_weight<T, taps, width, true>, width, rows);
        // With the gradients of several chunks, those of more would spill.
        constexpr int kWidth = width < 2 ? width : 2;
        return run(&grad_weight<T, taps, kWidth, false>, kWidth, rows);
      });
}

template <typename T>
bool run_grad_input(const AggregationShape& shape, Task<T> task, void* stream) {
  const Window& window = shape.window;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  if (units == 0) return true;
  const auto run = [&](auto taps, auto width, int rows) {
    const auto tiling = fast::tiling(
        units, padded_positions(window.rows, rows),
        padded_positions(window.columns, width), fold_part(window.rows),
        sizeof(Accumulator<T>), [&](int height, int columns) {
          return reader_tile(window, height, columns, width);
        });
    if (!tiling || (width > 1 && tiling->columns.parts > 1)) return false;
    task.tiling = *tiling;
    launch(&grad_input<T, taps, width>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream, task);
    return true;
  };
  // Pixels are stored kWidth at a time where a tile has whole rows of them.
  const int64_t columns = window.columns.outputs | window.columns.size;
  return with_steps<T>(window, units, columns, {task.weight, task.result},
                       [&](auto taps, auto width, int rows) {
                         return run(taps, width, rows) ||
                                run(taps, Constant<1>(), rows);
                       });
}

// Runs what it can and returns the rest of the task.
template <typename T>
AggregationBackward run(AggregationBackward task, void* stream) {
  const AggregationShape& shape = task.shape;
  const Task<T> operands = {shape,
                            UnitSizes(shape, chunks(shape)),
                            {},
                            static_cast<const T*>(task.grad_output),
                            static_cast<const T*>(task.input),
                            static_cast<const T*>(task.weight),
                            nullptr};
  const auto with_result = [&](void* result) {
    Task<T> copy = operands;
    copy.result = static_cast<T*>(result);
    return copy;
  };
  if (task.grad_weight &&
      run_grad_weight(shape, with_result(task.grad_weight), stream))
    task.grad_weight = nullptr;
  if (task.grad_input &&
      (run_small_images(task, stream) ||
       run_grad_input(shape, with_result(task.grad_input), stream)))
    task.grad_input = nullptr;
  return task;
}

}  // namespace

void run_on_cuda(const AggregationBackward& task, void* stream) {
  AggregationBackward rest = task;
  if (suits_tiles(task.shape))
    with_scalar_type(task.type, [&](auto zero) {
      rest = run<decltype(zero)>(task, stream);
    });
  simple::run_on_cuda(rest, stream);
}

}  // namespace san::fast
