// subtraction2's three formulas, one output element at a time, for host and
// device. They are the oracle of every faster kernel: keep them obvious.
#ifndef CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_ELEMENTS_H_
#define CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_ELEMENTS_H_

#include "cuda_kernels/window_ops/subtraction.h"

namespace san::simple {

// Where a pixel of a plane = (n, c) of an image is.
SAN_HOST_DEVICE int64_t element(const SubtractionShape& shape, int64_t plane,
                                int64_t pixel) {
  return shape.image().at(plane / shape.channels, plane % shape.channels,
                          pixel);
}

template <typename T>
struct SubtractionOutput {
  SubtractionShape shape;
  const T* a;
  const T* b;
  T* output;

  int64_t count() const {
    return shape.planes() * shape.window.taps() * shape.window.outputs();
  }

  // index = (plane, tap, p)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs(), p = index % outputs;
    const int64_t tap = index / outputs % window.taps();
    const int64_t plane = index / outputs / window.taps();
    const Accumulator<T> centre = shown(a, plane, p, window.rows.centre_tap(),
                                        window.columns.centre_tap());
    const Accumulator<T> neighbour = shown(
        b, plane, p, tap / window.columns.taps, tap % window.columns.taps);
    output[index] = rounded<T>(centre - neighbour);
  }

 private:
  SAN_HOST_DEVICE Accumulator<T> shown(const T* x, int64_t plane, int64_t p,
                                       int64_t kh, int64_t kw) const {
    const Window& window = shape.window;
    const int64_t pixel =
        window.source(window.rows.position(p / window.columns.outputs, kh),
                      window.columns.position(p % window.columns.outputs, kw));
    return pixel < 0 ? 0 : wide(x[element(shape, plane, pixel)]);
  }
};

template <typename T>
struct SubtractionGradA {
  SubtractionShape shape;
  const T* grad_output;
  T* grad_a;

  int64_t count() const { return shape.planes() * shape.window.pixels(); }

  // index = (plane, pixel)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs(), taps = window.taps();
    const int64_t plane = index / window.pixels();
    const int64_t pixel = index % window.pixels();
    const T* g = grad_output + plane * taps * outputs;
    Accumulator<T> sum = 0;
    window.for_each_reader(pixel, window.rows.centre_tap(),
                           window.columns.centre_tap(), [&](int64_t p) {
                             for (int64_t tap = 0; tap < taps; ++tap)
                               sum += wide(g[tap * outputs + p]);
                           });
    grad_a[element(shape, plane, pixel)] = rounded<T>(sum);
  }
};

template <typename T>
struct SubtractionGradB {
  SubtractionShape shape;
  const T* grad_output;
  T* grad_b;

  int64_t count() const { return shape.planes() * shape.window.pixels(); }

  // index = (plane, pixel)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs();
    const int64_t plane = index / window.pixels();
    const int64_t pixel = index % window.pixels();
    const T* g = grad_output + plane * window.taps() * outputs;
    Accumulator<T> sum = 0;
    window.for_each_reader(pixel, [&](int64_t tap, int64_t p) {
      sum -= wide(g[tap * outputs + p]);
    });
    grad_b[element(shape, plane, pixel)] = rounded<T>(sum);
  }
};

}  // namespace san::simple

#endif  // CUDA_KERNELS_WINDOW_OPS_SUBTRACTION_ELEMENTS_H_
