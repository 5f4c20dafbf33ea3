// How the fast CUDA kernels go through a footprint, and which footprints have
// kernels of their own. For .cu files only.
//
// A thread goes column by column: going down one, the kTaps values that its
// kRows adjacent outputs need overlap, so that kTaps * kRows terms take
// kTaps + kRows - 1 reads.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_

#include <type_traits>

#include "cuda_kernels/window_ops/cuda_tiles.h"

namespace san::fast {

// Footprints of kTaps rows and columns, stride 1 and dilation 1: a step is a
// column of taps. Or kTaps = 1, any footprint, stride and dilation: a step is a
// tap.
template <int kTaps>
struct Steps {
  __device__ explicit Steps(const Window& window)
      : count(kTaps > 1 ? kTaps : static_cast<int>(window.taps())),
        stride(kTaps > 1 ? 1 : static_cast<int>(window.rows.stride)),
        dilation(kTaps > 1 ? 1 : static_cast<int>(window.rows.dilation)),
        columns(kTaps > 1 ? kTaps : static_cast<int>(window.columns.taps)) {}

  // Where the thread's first output finds the step's first tap in a tile.
  __device__ int source(const Place& place, int step, int pitch) const {
    const int kh = kTaps > 1 ? 0 : step / columns;
    const int kw = kTaps > 1 ? step : step % columns;
    return (place.row * stride + kh * dilation) * pitch +
           place.column * stride + kw * dilation;
  }
  // The number of the step's tap in row `kh`.
  static __device__ int tap(int step, int kh) { return step + kh * kTaps; }

  const int count, stride, dilation, columns;
};

// Writes the values of a column of taps to the outputs of a thread that exist,
// each row down its taps: an addition leads from one to the next.
template <typename T, int kTaps, int kRows, typename F>
__device__ void store_column(T* output, int64_t outputs, int step,
                             const int (&offsets)[kRows], const Place& place,
                             F value) {
  T* column = output + Steps<kTaps>::tap(step, 0) * outputs;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (!place.owns(r)) continue;
    T* at = column + offsets[r];
#pragma unroll
    for (int kh = 0; kh < kTaps; ++kh, at += kTaps * outputs)
      *at = rounded<T>(value(kh, r));
  }
}

// The outputs that read the thread's column, whose first row is `y` after the
// padding begins, by one column of taps: bit j is whether output row
// y - (kTaps - 1) + j exists. Tap kh of it reads row j + kh - (kTaps - 1).
template <int kTaps, int kRows>
__device__ unsigned reading_rows(int y, int outputs) {
  unsigned exist = 0;
#pragma unroll
  for (int j = 0; j < kTaps + kRows - 1; ++j) {
    const int output = y - (kTaps - 1) + j;
    if (output >= 0 && output < outputs) exist |= 1u << j;
  }
  return exist;
}

// Of the outputs in reading_rows(), what each has for the tap by which it reads
// a position: values[kh][r] of tap kh and row r, zeros where there is no
// output. `first` is where the one of tap 0 and row 0 is, or would be. Those of
// an output row are read together, so that one question answers for all.
template <int kTaps, int kRows, typename T>
__device__ void load_readers(const T* first, int64_t outputs, int width,
                             unsigned exist, T (&values)[kTaps][kRows]) {
  constexpr int64_t kSize = sizeof(T);
  const int64_t tap_row = kTaps * outputs * kSize, down = width * kSize;
  // In bytes: else compilers scale 2-byte elements' offsets one by one.
  const char* row =
      reinterpret_cast<const char*>(first) + (kTaps - 1) * (tap_row - down);
#pragma unroll
  for (int j = 0; j < kTaps + kRows - 1; ++j) {
    const bool exists = exist >> j & 1;
    const char* at = row;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int kh = r + kTaps - 1 - j;
      if (kh < 0 || kh >= kTaps) continue;
      values[kh][r] = exists ? *reinterpret_cast<const T*>(at) : T();
      at += tap_row;
    }
    row += j < kTaps - 1 ? down - tap_row : down;
  }
}

// The output whose window begins `distance` after the padding does, or -1.
__device__ inline int output_at(int distance, const Axis& axis) {
  const int stride = static_cast<int>(axis.stride), output = distance / stride;
  return distance >= 0 && output * stride == distance && output < axis.outputs
             ? output
             : -1;
}

// Of padded pixels, for `outputs` adjacent outputs of an axis.
inline int64_t reach(const Axis& axis, int64_t outputs) {
  return (outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
}

// Padded pixels of a tile of outputs, in `planes` planes of shared memory.
inline SharedTile padded_tile(const Window& window, int rows, int columns,
                              int64_t planes) {
  const int64_t height = reach(window.rows, rows);
  const int64_t width = reach(window.columns, columns);
  return {static_cast<int>(height), static_cast<int>(width),
          planes * height * width};
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Calls f(kTaps, kRows), integral constants. Threads have several rows where
// that leaves enough of them, and one, with all loads under way at once, where
// images are small. double and the rare shapes make do with the general kernel.
template <typename T, typename F>
bool with_steps(const Window& window, int64_t units, F f) {
  const Axis &rows = window.rows, &columns = window.columns;
  const int64_t bands = (rows.outputs + 3) / 4 * columns.outputs;
  const bool many = units * bands >= int64_t{kUsualThreads} * multiprocessors();
  if constexpr (!std::is_same_v<T, double>)
    if (rows.stride == 1 && rows.dilation == 1) {
      if (rows.taps == 7 && many) return f(Constant<7>(), Constant<4>());
      if (rows.taps == 7) return f(Constant<7>(), Constant<1>());
      if (rows.taps == 3 && many) return f(Constant<3>(), Constant<4>());
    }
  return f(Constant<1>(), Constant<1>());
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_
