// Fast aggregation on CUDA: the gradient of the input where windows of 7 x 7
// have few outputs.
//
// Idea. Of the padded image that mirroring asks for, most positions of a small
// one are read by few outputs: 13 x 13 positions by 7 x 7 outputs. So threads
// own outputs here, and each product is computed once. A thread has a band of
// seven rows of outputs and, for each column of taps, the column of outputs
// that sends to one position: for position x, tap kw of output x - kw. Where
// that comes out negative, it is output x - kw + kSide, which sends to position
// x + kSide instead, and nobody else has that position. So the thread's column
// of sums, 13 positions high, is kept for x until the taps have come that far,
// then for x + kSide.
//
// The lower six rows of a band's sums are those of the next band's upper ones
// too: they lie apart in shared memory and are added when all is there.
// Memory plan. A unit is (image, weight channel, eight of the channels that
// share it). The gradients of its outputs are in shared memory, and so are the
// sums in the end; both are moved kWidth at a time. A thread has its 13 sums of
// eight channels in registers and the weights of a column of taps in use, those
// of the next one under way.
#include "cuda_kernels/window_ops/cuda_aggregation.h"

namespace san::fast {
namespace {

constexpr int kThreadsOfSmall = 112;  // of a block, at most

// kSide x kSide outputs.
template <int kSide>
struct SmallImage {
  static constexpr int kTaps = 7, kReach = kTaps - 1;
  static_assert(kSide % kTaps == 0);
  static constexpr int kOutputs = kSide * kSide, kAllTaps = kTaps * kTaps;
  static constexpr int kBands = kSide / kTaps, kPadded = kSide + kReach;
  static constexpr int kBandRows = kTaps + kReach;  // of sums
  static constexpr int kPositions = kBands * kBandRows * kPadded;
  static constexpr int kUnitThreads = kSide * kBands;
  static constexpr int kUnits = kThreadsOfSmall / kUnitThreads;
  static constexpr int kThreads = kUnits * kUnitThreads;

  static bool suits(const Window& window) {
    for (const Axis& axis : {window.rows, window.columns})
      if (axis.taps != kTaps || axis.stride != 1 || axis.dilation != 1 ||
          axis.outputs != kSide)
        return false;
    return true;
  }
  static LaunchShape launch_shape(int64_t units, int64_t bytes_of_unit) {
    return {static_cast<unsigned>((units + kUnits - 1) / kUnits), kThreads,
            static_cast<size_t>(kUnits * bytes_of_unit)};
  }
  static bool fits(int64_t units, int64_t bytes_of_unit) {
    const int64_t most = static_cast<int64_t>(most_shared_bytes());
    return units <= 0x7fffffff && kUnits * bytes_of_unit <= most;
  }

  // The running thread's unit in its block, band, and column.
  struct Place {
    int slot = threadIdx.x / kUnitThreads;
    int thread = threadIdx.x % kUnitThreads;
    int band = thread / kSide, x = thread % kSide;
    int unit = blockIdx.x * kUnits + slot;

    // Of the outputs whose tap kw sends to this thread's sums.
    __device__ int column(int kw) const {
      return x >= kw ? x - kw : x - kw + kSide;
    }
    // Row `j` of a band's sums.
    __device__ int row(int j) const {
      return j < kTaps ? band * kTaps + j : kSide + band * kReach + j - kTaps;
    }
  };

  // What one column of taps does: loads `values` of the outputs in `column`,
  // kTaps taps of kTaps rows.
  template <typename T>
  static __device__ void load(const T* plane, const Place& place, int kw,
                              int column,
                              Adjacent<T, 1> (&values)[kTaps][kTaps]) {
    const T* from = plane + kw * kOutputs + place.band * kTaps * kSide + column;
#pragma unroll
    for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
      for (int r = 0; r < kTaps; ++r)
        values[kh][r] =
            Adjacent<T, 1>::at(from + kh * kTaps * kOutputs + r * kSide);
  }
};

// Calls f(kSide), an integral constant, if there are kernels for this image.
template <typename F>
bool with_small_image(const Window& window, F f) {
  if (SmallImage<7>::suits(window)) return f(std::integral_constant<int, 7>());
  if (SmallImage<14>::suits(window))
    return f(std::integral_constant<int, 14>());
  if (SmallImage<28>::suits(window))
    return f(std::integral_constant<int, 28>());
  return false;
}

// kMembers values for each of kPositions, in pieces of 16 bytes: the first
// pieces of all positions, then the second ones.
template <int kPositions>
struct Values {
  static constexpr int kPieces = kMembers / 4;
  static constexpr int kBytes = kPositions * kMembers * sizeof(float);
  float4* pieces;

  __device__ void load(int position, float (&values)[kMembers]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const float4 piece = pieces[i * kPositions + position];
      values[4 * i] = piece.x, values[4 * i + 1] = piece.y;
      values[4 * i + 2] = piece.z, values[4 * i + 3] = piece.w;
    }
  }
  __device__ void store(int position, const float (&values)[kMembers]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      pieces[i * kPositions + position] = {values[4 * i], values[4 * i + 1],
                                           values[4 * i + 2],
                                           values[4 * i + 3]};
  }
};

template <int kSide>
constexpr int kUnitBytes = Values<SmallImage<kSide>::kPositions>::kBytes +
                           Values<SmallImage<kSide>::kOutputs>::kBytes;

template <typename T, int kSide, int kWidth>
__global__ void __launch_bounds__(128, 2)
    grad_input_small(AggregationShape shape, UnitSizes sizes, int units,
                     Divisor<uint32_t> by_width, const T* grad_output,
                     const T* weight, T* result) {
  using I = SmallImage<kSide>;
  constexpr int kTaps = I::kTaps;
  const typename I::Place place;
  const bool active = place.unit < units;
  const Unit unit(shape, sizes, active ? place.unit : 0);
  unsigned char* memory = shared_memory() + place.slot * kUnitBytes<kSide>;
  const Values<I::kOutputs> grads = {reinterpret_cast<float4*>(memory)};
  const Values<I::kPositions> sums = {
      reinterpret_cast<float4*>(memory + Values<I::kOutputs>::kBytes)};
  if (active) {
    const T* from = grad_output + unit.plane * I::kOutputs;
    const int64_t stride = shape.weight_channels * I::kOutputs;
#pragma unroll 1
    for (int i = place.thread * kWidth; i < I::kOutputs;
         i += I::kUnitThreads * kWidth) {
      Adjacent<T, kWidth> loaded[kMembers] = {};
      const T* at = from + i;
#pragma unroll
      for (int m = 0; m < kMembers; ++m, at += stride) {
        if (m >= unit.members) break;
        loaded[m] = Adjacent<T, kWidth>::at(at);
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float values[kMembers];
#pragma unroll
        for (int m = 0; m < kMembers; ++m) values[m] = loaded[m][j];
        grads.store(i + j, values);
      }
    }
  }
  __syncthreads();
  if (active) {
    const T* plane = weight + unit.weight_plane * I::kAllTaps * I::kOutputs;
    float column[I::kBandRows][kMembers] = {};
    const auto flush = [&](int x) {
#pragma unroll
      for (int j = 0; j < I::kBandRows; ++j) {
        sums.store(place.row(j) * I::kPadded + x, column[j]);
#pragma unroll
        for (int m = 0; m < kMembers; ++m) column[j][m] = 0;
      }
    };
    Adjacent<T, 1> next[kTaps][kTaps];
    I::load(plane, place, 0, place.column(0), next);
#pragma unroll
    for (int kw = 0; kw < kTaps; ++kw) {
      float weights[kTaps][kTaps];
#pragma unroll
      for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
        for (int r = 0; r < kTaps; ++r) weights[kh][r] = next[kh][r][0];
      if (kw < kTaps - 1)
        I::load(plane, place, kw + 1, place.column(kw + 1), next);
      if (kw == place.x + 1) flush(place.x);
      const int first = place.band * kTaps * kSide + place.column(kw);
#pragma unroll
      for (int r = 0; r < kTaps; ++r) {
        float g[kMembers];
        grads.load(first + r * kSide, g);
#pragma unroll
        for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
          for (int m = 0; m < kMembers; ++m)
            column[r + kh][m] += weights[kh][r] * g[m];
      }
    }
    flush(place.x < I::kReach ? place.x + kSide : place.x);
  }
  const Axis &rows = shape.window.rows, &columns = shape.window.columns;
  const int height = static_cast<int>(rows.size), top = rows.padding;
  const int width = static_cast<int>(columns.size), left = columns.padding;
  // Of a row of the padded image.
  const auto row_of = [](int v) {
    return v < kSide ? v : v + (I::kBands - 1) * I::kReach;
  };
  const auto add = [&](int to_row, int to_column, int row, int column) {
    float sum[kMembers], more[kMembers];
    sums.load(to_row * I::kPadded + to_column, sum);
    sums.load(row * I::kPadded + column, more);
#pragma unroll
    for (int m = 0; m < kMembers; ++m) sum[m] += more[m];
    sums.store(to_row * I::kPadded + to_column, sum);
  };
  constexpr int kShared = (I::kBands - 1) * I::kReach * I::kPadded;
  if constexpr (kShared > 0) {
    __syncthreads();
    if (active)
#pragma unroll 1
      for (int i = place.thread; i < kShared; i += I::kUnitThreads) {
        const int row = i / I::kPadded, column = i % I::kPadded;
        const int band = row / I::kReach, j = row % I::kReach;
        add((band + 1) * kTaps + j, column, kSide + row, column);
      }
  }
  __syncthreads();
  if (active)
#pragma unroll 1
    for (int u = place.thread; u < I::kPadded; u += I::kUnitThreads)
      for_each_mirrored(rows, -top, height + top, [&](int y, int v) {
        add(row_of(y + top), u, row_of(v + top), u);
      });
  __syncthreads();
  if (active)
#pragma unroll 1
    for (int y = place.thread; y < height; y += I::kUnitThreads)
      for_each_mirrored(columns, -left, width + left, [&](int x, int u) {
        add(row_of(y + top), x + left, row_of(y + top), u + left);
      });
  __syncthreads();
  if (!active) return;
  const int64_t pixels = shape.window.pixels();
  const int64_t stride = shape.weight_channels * pixels;
#pragma unroll 1
  for (int i = place.thread * kWidth; i < pixels;
       i += I::kUnitThreads * kWidth) {
    const auto [y, x] = by_width.divide(i);
    float sum[kMembers][kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      float own[kMembers];
      sums.load(row_of(y + top) * I::kPadded + x + left + j, own);
#pragma unroll
      for (int m = 0; m < kMembers; ++m) sum[m][j] = own[m];
    }
    T* at = result + unit.plane * pixels + i;
#pragma unroll
    for (int m = 0; m < kMembers; ++m, at += stride) {
      if (m >= unit.members) break;
      store_adjacent(at, sum[m]);
    }
  }
}

}  // namespace

bool run_small_images(const AggregationBackward& task, void* stream) {
  const AggregationShape& shape = task.shape;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  if (units == 0) return true;
  return with_small_image(shape.window, [&](auto side) {
    if (!SmallImage<side>::fits(units, kUnitBytes<side>)) return false;
    bool done = false;
    with_scalar_type(task.type, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, double>) {
        constexpr int kWidest = side % 4 == 0 ? 4 : side % 2 == 0 ? 2 : 1;
        const bool wide = allows_width<T>(kWidest, shape.window.columns.size,
                                          {task.grad_output, task.grad_input});
        launch(
            wide ? &grad_input_small<T, side, kWidest>
                 : &grad_input_small<T, side, 1>,
            SmallImage<side>::launch_shape(units, kUnitBytes<side>), stream,
            shape, UnitSizes(shape, chunks(shape)), static_cast<int>(units),
            Divisor<uint32_t>(static_cast<uint32_t>(shape.window.columns.size)),
            static_cast<const T*>(task.grad_output),
            static_cast<const T*>(task.weight),
            static_cast<T*>(task.grad_input));
        done = true;
      }
    });
    return done;
  });
}

}  // namespace san::fast
