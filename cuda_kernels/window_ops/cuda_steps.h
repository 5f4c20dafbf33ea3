// How the fast CUDA kernels go through a footprint, and which footprints have
// kernels of their own. For .cu files only.
//
// A thread goes row by row of taps: along one, the kTaps values that its kWidth
// adjacent outputs need overlap, so that kTaps * kWidth terms take
// kTaps + kWidth - 1 reads.
#ifndef CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_
#define CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_

#include <initializer_list>
#include <type_traits>

#include "cuda_kernels/cuda/pairs.h"
#include "cuda_kernels/window_ops/cuda_unit_memory.h"

namespace san::fast {

// Footprints of kTaps rows and columns, stride 1 and dilation 1: a step is a
// row of taps. Or kTaps = kWidth = 1, any footprint, stride and dilation: a
// step is a tap.
template <int kTaps, int kWidth>
struct Steps {
  static constexpr int kColumns = kTaps + kWidth - 1;  // of pixels

  __device__ Steps(const Window& window, const Tiling& tiling)
      : count(kTaps > 1 ? kTaps : static_cast<int>(window.taps())),
        stride(kTaps > 1 ? 1 : static_cast<int>(window.rows.stride)),
        dilation(kTaps > 1 ? 1 : static_cast<int>(window.rows.dilation)),
        columns(kTaps > 1 ? kTaps : static_cast<int>(window.columns.taps)),
        pitch(tiling.pitch()),
        run(tiling.shared.run) {}

  // Where the thread's outputs in row `y` find the step's first pixel in a
  // tile, and each next one from there.
  __device__ int source(const Place& place, int y, int step) const {
    const int kh = kTaps > 1 ? step : step / columns;
    const int kw = kTaps > 1 ? 0 : step % columns;
    return ((y - place.top) * stride + kh * dilation) * pitch +
           place.column / kWidth * stride + kw * dilation;
  }
  __device__ int next(int column) const {
    return column % kWidth * run + column / kWidth;
  }

  const int count, stride, dilation, columns, pitch, run;
};

// Elements that are read at once, in whole registers: compilers move those that
// have half of one to and fro.
template <typename T, int kWidth>
struct Adjacent {
  static constexpr bool kPairs = sizeof(T) == 2;
  using Register = std::conditional_t<kPairs, uint32_t, T>;
  struct alignas(kWidth * sizeof(T)) Memory {
    T elements[kWidth];
  };
  Register registers[kPairs ? (kWidth + 1) / 2 : kWidth];

  static __device__ Adjacent at(const T* from) {
    Adjacent result;
    if constexpr (kPairs && kWidth == 1) {
      result.registers[0] = from->bits;
    } else {
      const Memory memory = *reinterpret_cast<const Memory*>(from);
      memcpy(result.registers, &memory, sizeof memory);
    }
    return result;
  }
  __device__ Accumulator<T> operator[](int j) const {
    if constexpr (kPairs)
      return j % 2 ? second_of<T>(registers[j / 2])
                   : first_of<T>(registers[j / 2]);
    else
      return registers[j];
  }
};
template <typename T, int kWidth>
__device__ void store_adjacent(T* to, const Accumulator<T> (&values)[kWidth]) {
  typename Adjacent<T, kWidth>::Memory memory;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) memory.elements[j] = rounded<T>(values[j]);
  *reinterpret_cast<typename Adjacent<T, kWidth>::Memory*>(to) = memory;
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

// A tile of sources in `planes` planes of shared memory, for threads of `width`
// columns.
inline SharedTile tile_of(int64_t rows, int64_t columns, int64_t planes,
                          int width) {
  int64_t run = (columns + width - 1) / width;
  // So that adjacent columns lie in different banks.
  while (width > 1 && run % 8 != 8 / width) ++run;
  return {static_cast<int>(rows), static_cast<int>(columns),
          static_cast<int>(run), planes * rows * width * run};
}

// Padded pixels of a tile of outputs.
inline SharedTile padded_tile(const Window& window, int rows, int columns,
                              int64_t planes, int width) {
  return tile_of(reach(window.rows, rows), reach(window.columns, columns),
                 planes, width);
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Whether elements of T in rows of `columns`, in tensors at these addresses,
// can be accessed `width` at a time.
template <typename T>
bool allows_width(int width, int64_t columns,
                  std::initializer_list<const void*> addresses) {
  bool allows = columns % width == 0;
  for (const void* address : addresses)
    allows = allows &&
             reinterpret_cast<uintptr_t>(address) % (width * sizeof(T)) == 0;
  return allows;
}

// Calls f(kTaps, kWidth, rows): integral constants, and rows of a thread, which
// has several outputs where that leaves enough threads and where rows of
// `columns` at these addresses allow it. double and the rare shapes make do
// with the general kernel.
template <typename T, typename F>
bool with_steps(const Window& window, int64_t units, int64_t columns,
                std::initializer_list<const void*> addresses, F f) {
  const Axis& rows = window.rows;
  const bool many = units * window.outputs() >=
                    int64_t{4} * kUsualThreads * multiprocessors();
  const auto with_width = [&](auto taps) {
    const auto allows = [&](int width) {
      return many && allows_width<T>(width, columns, addresses);
    };
    if (allows(4)) return f(taps, Constant<4>(), 2);
    if (allows(2)) return f(taps, Constant<2>(), 2);
    return f(taps, Constant<1>(), many ? 7 : 1);
  };
  if constexpr (!std::is_same_v<T, double>)
    if (rows.stride == 1 && rows.dilation == 1) {
      if (rows.taps == 7) return with_width(Constant<7>());
      if (rows.taps == 3) return with_width(Constant<3>());
    }
  return f(Constant<1>(), Constant<1>(), 1);
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CUDA_STEPS_H_
