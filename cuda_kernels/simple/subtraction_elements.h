// subtraction2's three formulas, one output element at a time, for host and
// device. They are the oracle of every faster kernel: keep them obvious.
#ifndef CUDA_KERNELS_SIMPLE_SUBTRACTION_ELEMENTS_H_
#define CUDA_KERNELS_SIMPLE_SUBTRACTION_ELEMENTS_H_

#include "cuda_kernels/subtraction.h"

namespace san::simple {

template <typename T>
struct SubtractionOutput {
  int64_t planes;
  Window window;
  const T* a;
  const T* b;
  T* output;

  int64_t count() const { return planes * window.taps() * window.outputs(); }

  // index = (plane, tap, p)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
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
    const int64_t pixel =
        window.source(window.rows.position(p / window.columns.outputs, kh),
                      window.columns.position(p % window.columns.outputs, kw));
    return pixel < 0 ? 0 : wide(x[plane * window.pixels() + pixel]);
  }
};

template <typename T>
struct SubtractionGradA {
  int64_t planes;
  Window window;
  const T* grad_output;
  T* grad_a;

  int64_t count() const { return planes * window.pixels(); }

  // index = (plane, pixel)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const int64_t outputs = window.outputs(), taps = window.taps();
    const T* g = grad_output + index / window.pixels() * taps * outputs;
    Accumulator<T> sum = 0;
    window.for_each_reader(index % window.pixels(), window.rows.centre_tap(),
                           window.columns.centre_tap(), [&](int64_t p) {
                             for (int64_t tap = 0; tap < taps; ++tap)
                               sum += wide(g[tap * outputs + p]);
                           });
    grad_a[index] = rounded<T>(sum);
  }
};

template <typename T>
struct SubtractionGradB {
  int64_t planes;
  Window window;
  const T* grad_output;
  T* grad_b;

  int64_t count() const { return planes * window.pixels(); }

  // index = (plane, pixel)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const int64_t outputs = window.outputs();
    const T* g =
        grad_output + index / window.pixels() * window.taps() * outputs;
    Accumulator<T> sum = 0;
    window.for_each_reader(
        index % window.pixels(),
        [&](int64_t tap, int64_t p) { sum -= wide(g[tap * outputs + p]); });
    grad_b[index] = rounded<T>(sum);
  }
};

}  // namespace san::simple

#endif  // CUDA_KERNELS_SIMPLE_SUBTRACTION_ELEMENTS_H_
