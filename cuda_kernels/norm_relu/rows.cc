// Compiled once per instruction set. Only the tables at the end are visible
// outside.
#include "cuda_kernels/norm_relu/rows.h"

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/vectors.h"

namespace san::norm_relu {
namespace {

using cpu::for_each_vector;

// The pixel of a window with the largest value so far, and that value: in each
// lane another. As torch's max_pool2d: the first of equals, NaN before all.
template <typename V>
struct Largest {
  V value, x, number;

  void offer(V other, V other_x, V other_number) {
    const auto better = (other > value) | (other != other);
    value = better ? other : value;
    x = better ? other_x : x;
    number = better ? other_number : number;
  }
  V relu() const { return value < 0 ? V{} : value; }
  // The gradient that passes the ReLU.
  V gate(V grad) const { return value <= 0 ? V{} : grad; }
};

// Pixel `number` of the window that begins at x.
template <int k, typename T>
T* pixel(T* x, int number, int64_t row, int64_t channels) {
  return x + number / k * row + number % k * channels;
}

template <int k, typename T, typename Lanes>
inline auto largest(const WindowRow<T>& row, Lanes lanes, int64_t c,
                    const T* x) {
  using V = typename Lanes::V;
  const V scale = lanes.load(row.scale + c), shift = lanes.load(row.shift + c);
  const V first = lanes.load(x + c);
  Largest<V> result = {scale * first + shift, first, V{}};
  for (int i = 1; i < k * k; ++i) {
    const V v = lanes.load(pixel<k>(x, i, row.x_row, row.channels) + c);
    result.offer(scale * v + shift, v, V{} + Accumulator<T>(i));
  }
  return result;
}

// to += by, in the lanes.
template <typename Lanes, typename A>
inline void add(Lanes lanes, A* to, typename Lanes::V by) {
  lanes.store(to, lanes.load(to) + by);
}

template <typename T>
void add_moments(const T* x, const Accumulator<T>* centre, int64_t pixels,
                 int64_t channels, Accumulator<T>* sums) {
  for (int64_t p = 0; p < pixels; ++p, x += channels)
    for_each_vector<Accumulator<T>>(channels, [&](auto lanes, int64_t c) {
      const auto d = lanes.load(x + c) - lanes.load(centre + c);
      add(lanes, sums + c, d);
      add(lanes, sums + channels + c, d * d);
    });
}

template <typename T, int k>
void forward(const WindowRow<T>& row, T* output) {
  for (int64_t w = 0; w < row.windows; ++w, output += row.channels) {
    const T* x = row.x + w * k * row.channels;
    for_each_vector<Accumulator<T>>(row.channels, [&](auto lanes, int64_t c) {
      lanes.store(output + c, largest<k>(row, lanes, c, x).relu());
    });
  }
}

template <typename T, int k>
void add_sums(const WindowRow<T>& row, const T* grad,
              const Accumulator<T>* mean, Accumulator<T>* sums, T* output) {
  for (int64_t w = 0; w < row.windows; ++w, grad += row.channels) {
    const T* x = row.x + w * k * row.channels;
    for_each_vector<Accumulator<T>>(row.channels, [&](auto lanes, int64_t c) {
      const auto top = largest<k>(row, lanes, c, x);
      const auto g = top.gate(lanes.load(grad + c));
      add(lanes, sums + c, g);
      add(lanes, sums + row.channels + c, g * (top.x - lanes.load(mean + c)));
      if (output) lanes.store(output + w * row.channels + c, top.relu());
    });
  }
}

template <typename T, int k>
void backward(const WindowRow<T>& row, const T* grad,
              const Accumulator<T>* constant, const Accumulator<T>* slope,
              T* grad_x) {
  for (int64_t w = 0; w < row.windows; ++w, grad += row.channels) {
    const int64_t begin = w * k * row.channels;
    for_each_vector<Accumulator<T>>(row.channels, [&](auto lanes, int64_t c) {
      const auto top = largest<k>(row, lanes, c, row.x + begin);
      const auto g = lanes.load(row.scale + c) * top.gate(lanes.load(grad + c));
      for (int i = 0; i < k * k; ++i) {
        const auto v =
            lanes.load(pixel<k>(row.x + begin, i, row.x_row, row.channels) + c);
        const auto rest = lanes.load(constant + c) + lanes.load(slope + c) * v;
        lanes.store(pixel<k>(grad_x + begin, i, row.x_row, row.channels) + c,
                    top.number == Accumulator<T>(i) ? rest + g : rest);
      }
    });
  }
}

template <typename T>
void fill(const T* x, const Accumulator<T>* constant,
          const Accumulator<T>* slope, int64_t pixels, int64_t channels,
          T* to) {
  for (int64_t p = 0; p < pixels; ++p, x += channels, to += channels)
    for_each_vector<Accumulator<T>>(channels, [&](auto lanes, int64_t c) {
      lanes.store(to + c, lanes.load(constant + c) +
                              lanes.load(slope + c) * lanes.load(x + c));
    });
}

// ---- The stem.

template <typename A, typename Lanes>
inline auto largest(const StemRow<A>& row, Lanes lanes, int64_t c, const A* x) {
  using V = typename Lanes::V;
  V z[4];
  for (int i = 0; i < 4; ++i) {
    const A* from = pixel<2>(x, i, row.x_row, row.inputs);
    z[i] = lanes.load(row.shift + c);
    for (int64_t k = 0; k < row.inputs; ++k)
      z[i] += from[k] * lanes.load(row.weight + k * row.channels + c);
  }
  Largest<V> result = {z[0], V{}, V{}};
  for (int i = 1; i < 4; ++i) result.offer(z[i], V{}, V{} + A(i));
  return result;
}

template <typename A>
void stem_forward(const StemRow<A>& row, A* output) {
  for (int64_t w = 0; w < row.windows; ++w, output += row.channels) {
    const A* x = row.x + 2 * w * row.inputs;
    for_each_vector<A>(row.channels, [&](auto lanes, int64_t c) {
      lanes.store(output + c, largest(row, lanes, c, x).relu());
    });
  }
}

// Lanes that are not loaded are zero in both.
template <typename A, typename V>
inline A sum_of_products(V a, V b) {
  const V products = a * b;
  A sum = 0;
  for (int i = 0; i < int(sizeof(V) / sizeof(A)); ++i) sum += products[i];
  return sum;
}

template <typename A>
void stem_backward(const StemRow<A>& row, const A* grad, A* sums, A* grad_x) {
  const int64_t inputs = row.inputs, channels = row.channels;
  for (int64_t w = 0; w < row.windows; ++w, grad += channels) {
    const int64_t begin = 2 * w * inputs;
    if (grad_x)
      for (int i = 0; i < 4; ++i)
        for (int64_t k = 0; k < inputs; ++k)
          pixel<2>(grad_x + begin, i, row.x_row, inputs)[k] = 0;
    for_each_vector<A>(channels, [&](auto lanes, int64_t c) {
      using V = typename decltype(lanes)::V;
      const auto top = largest(row, lanes, c, row.x + begin);
      const V g = top.gate(lanes.load(grad + c));
      add(lanes, sums + inputs * channels + c, g);
      for (int i = 0; i < 4; ++i) {
        const V mine = top.number == A(i) ? g : V{};
        const A* x = pixel<2>(row.x + begin, i, row.x_row, inputs);
        for (int64_t k = 0; k < inputs; ++k)
          add(lanes, sums + k * channels + c, x[k] * mine);
        if (!grad_x) continue;
        A* to = pixel<2>(grad_x + begin, i, row.x_row, inputs);
        for (int64_t k = 0; k < inputs; ++k)
          to[k] += sum_of_products<A>(
              mine, lanes.load(row.weight + k * channels + c));
      }
    });
  }
}

}  // namespace

template <typename T>
NormReluRows<T> SAN_TABLE(norm_relu_rows)() {
  return {add_moments<T>,
          {forward<T, 1>, forward<T, 2>},
          {add_sums<T, 1>, add_sums<T, 2>},
          {backward<T, 1>, backward<T, 2>},
          fill<T>};
}

template <typename A>
StemRows<A> SAN_TABLE(stem_rows)() {
  return {stem_forward<A>, stem_backward<A>};
}

template NormReluRows<float> SAN_TABLE(norm_relu_rows)();
template NormReluRows<double> SAN_TABLE(norm_relu_rows)();
template NormReluRows<float16> SAN_TABLE(norm_relu_rows)();
template NormReluRows<bfloat16> SAN_TABLE(norm_relu_rows)();
template StemRows<float> SAN_TABLE(stem_rows)();
template StemRows<double> SAN_TABLE(stem_rows)();

}  // namespace san::norm_relu
