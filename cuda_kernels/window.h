// The geometry of a sliding window, on the host and on the device: which source
// pixel each tap of each output reads, and which outputs read a source pixel.
// Every kernel takes its index arithmetic from here; nothing here touches data.
#ifndef CUDA_KERNELS_WINDOW_H_
#define CUDA_KERNELS_WINDOW_H_

#include <cstdint>

#ifdef __CUDACC__
#define SAN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SAN_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace san {

enum class PaddingMode { kReflect, kZeros };

// One spatial axis. Positions count from the first source pixel, so positions
// in the padding are negative or at least `size`. size and outputs are >= 1.
struct Axis {
  int64_t size;     // source pixels
  int64_t outputs;  // window placements
  int64_t taps;     // window extent before dilation
  int64_t stride;
  int64_t padding;
  int64_t dilation;
  PaddingMode mode;

  SAN_HOST_DEVICE int64_t position(int64_t output, int64_t tap) const {
    return output * stride - padding + tap * dilation;
  }

  // The tap at the window's centre (the left one of an even window's two).
  SAN_HOST_DEVICE int64_t centre_tap() const { return (taps - 1) / 2; }

  // Distance after which the mirrored axis repeats itself.
  SAN_HOST_DEVICE int64_t period() const {
    return size > 1 ? 2 * (size - 1) : 1;
  }

  // The pixel that a position shows: itself inside, its mirror image for
  // kReflect (as numpy.pad mode="reflect", for any size), -1 for kZeros.
  SAN_HOST_DEVICE int64_t source(int64_t position) const {
    if (position >= 0 && position < size) return position;
    if (mode == PaddingMode::kZeros) return -1;
    int64_t phase = position % period();
    if (phase < 0) phase += period();
    return phase < size ? phase : period() - phase;
  }

  // Calls f(output) for each output whose `tap` shows `pixel`, always in the
  // same order. This turns every gradient into a gather: no atomics.
  //
  // The tap shows position first + d of output d / stride. Mirroring shows the
  // pixel at +pixel and -pixel, plus any number of periods; the walk over d
  // goes in steps of a period, or of a stride if that is longer.
  template <typename F>
  SAN_HOST_DEVICE void for_each_reader(int64_t pixel, int64_t tap, F f) const {
    const int64_t first = position(0, tap), reach = (outputs - 1) * stride;
    const bool mirrors = mode == PaddingMode::kReflect;
    const bool by_stride = mirrors && stride >= period();
    const bool own_image = pixel == 0 || pixel == size - 1;
    const int64_t step = by_stride ? stride : mirrors ? period() : reach + 1;
    const int images = !mirrors || by_stride || own_image ? 1 : 2;
    for (int image = 0; image < images; ++image) {
      int64_t d = by_stride ? 0 : (image == 0 ? pixel : -pixel) - first;
      if (mirrors && (d < 0 || d >= step)) d = (d % step + step) % step;
      for (; d >= 0 && d <= reach; d += step) {
        const int64_t output = stride == 1 ? d : d / stride;
        if (output * stride != d) continue;
        if (!by_stride || source(first + d) == pixel) f(output);
      }
    }
  }
};

// A two-dimensional window. Taps and outputs are numbered row by row.
struct Window {
  Axis rows;
  Axis columns;

  SAN_HOST_DEVICE int64_t pixels() const { return rows.size * columns.size; }
  SAN_HOST_DEVICE int64_t outputs() const {
    return rows.outputs * columns.outputs;
  }
  SAN_HOST_DEVICE int64_t taps() const { return rows.taps * columns.taps; }

  // The pixel shown at (row position, column position), or -1 for a zero.
  SAN_HOST_DEVICE int64_t source(int64_t row, int64_t column) const {
    const int64_t y = rows.source(row), x = columns.source(column);
    return y < 0 || x < 0 ? -1 : y * columns.size + x;
  }

  // Calls f(tap, output) for each tap of each output that shows `pixel`.
  template <typename F>
  SAN_HOST_DEVICE void for_each_reader(int64_t pixel, F f) const {
    for (int64_t kh = 0; kh < rows.taps; ++kh)
      for (int64_t kw = 0; kw < columns.taps; ++kw)
        for_each_reader(pixel, kh, kw, [&](int64_t output) {
          f(kh * columns.taps + kw, output);
        });
  }

  // Calls f(output) for each output whose tap (kh, kw) shows `pixel`.
  template <typename F>
  SAN_HOST_DEVICE void for_each_reader(int64_t pixel, int64_t kh, int64_t kw,
                                       F f) const {
    rows.for_each_reader(pixel / columns.size, kh, [&](int64_t ho) {
      columns.for_each_reader(pixel % columns.size, kw, [&](int64_t wo) {
        f(ho * columns.outputs + wo);
      });
    });
  }
};

}  // namespace san

#endif  // CUDA_KERNELS_WINDOW_H_
