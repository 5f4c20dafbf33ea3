// Aggregation's three formulas, one output element at a time, for host and
// device. They are the oracle of every faster kernel: keep them obvious.
#ifndef CUDA_KERNELS_WINDOW_OPS_AGGREGATION_ELEMENTS_H_
#define CUDA_KERNELS_WINDOW_OPS_AGGREGATION_ELEMENTS_H_

#include "cuda_kernels/window_ops/aggregation.h"

namespace san::simple {

template <typename T>
struct AggregationOutput {
  AggregationShape shape;
  const T* input;
  const T* weight;
  T* output;

  int64_t count() const {
    return shape.batch * shape.channels * shape.window.outputs();
  }

  // index = (n, c, p)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs(), p = index % outputs;
    const int64_t plane = index / outputs, groups = shape.weight_channels;
    const int64_t n = plane / shape.channels, c = plane % shape.channels;
    const int64_t ho = p / window.columns.outputs;
    const int64_t wo = p % window.columns.outputs;
    const ImageIndex image = shape.input();
    const T* w =
        weight + (n * groups + c % groups) * window.taps() * outputs + p;
    Accumulator<T> sum = 0;
    for (int64_t kh = 0; kh < window.rows.taps; ++kh) {
      const int64_t row = window.rows.position(ho, kh);
      for (int64_t kw = 0; kw < window.columns.taps; ++kw, w += outputs) {
        const int64_t pixel =
            window.source(row, window.columns.position(wo, kw));
        const Accumulator<T> value =
            pixel < 0 ? 0 : wide(input[image.at(n, c, pixel)]);
        sum += wide(*w) * value;
      }
    }
    output[shape.output().at(n, c, p)] = rounded<T>(sum);
  }
};

template <typename T>
struct AggregationGradInput {
  AggregationShape shape;
  const T* grad_output;
  const T* weight;
  T* grad_input;

  int64_t count() const {
    return shape.batch * shape.channels * shape.window.pixels();
  }

  // index = (n, c, pixel)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs(), groups = shape.weight_channels;
    const int64_t plane = index / window.pixels();
    const int64_t pixel = index % window.pixels();
    const int64_t n = plane / shape.channels, c = plane % shape.channels;
    const ImageIndex grads = shape.output();
    const T* w = weight + (n * groups + c % groups) * window.taps() * outputs;
    Accumulator<T> sum = 0;
    window.for_each_reader(pixel, [&](int64_t tap, int64_t p) {
      sum += wide(w[tap * outputs + p]) * wide(grad_output[grads.at(n, c, p)]);
    });
    grad_input[shape.input().at(n, c, pixel)] = rounded<T>(sum);
  }
};

template <typename T>
struct AggregationGradWeight {
  AggregationShape shape;
  const T* grad_output;
  const T* input;
  T* grad_weight;

  int64_t count() const {
    return shape.batch * shape.weight_channels * shape.window.taps() *
           shape.window.outputs();
  }

  // index = (n, weight channel, tap, p)
  SAN_HOST_DEVICE void operator()(int64_t index) const {
    const Window& window = shape.window;
    const int64_t outputs = window.outputs(), p = index % outputs;
    const int64_t tap = index / outputs % window.taps();
    const int64_t plane = index / outputs / window.taps();
    const int64_t n = plane / shape.weight_channels;
    const int64_t row = window.rows.position(p / window.columns.outputs,
                                             tap / window.columns.taps);
    const int64_t column = window.columns.position(p % window.columns.outputs,
                                                   tap % window.columns.taps);
    const int64_t pixel = window.source(row, column);
    Accumulator<T> sum = 0;
    for (int64_t c = plane % shape.weight_channels; c < shape.channels;
         c += shape.weight_channels) {
      const Accumulator<T> value =
          pixel < 0 ? 0 : wide(input[shape.input().at(n, c, pixel)]);
      sum += wide(grad_output[shape.output().at(n, c, p)]) * value;
    }
    grad_weight[index] = rounded<T>(sum);
  }
};

}  // namespace san::simple

#endif  // CUDA_KERNELS_WINDOW_OPS_AGGREGATION_ELEMENTS_H_
