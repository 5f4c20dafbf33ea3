// The backward steps of one pixel of the fused pairwise attention, and those of
// the moments of its relation. In an unnamed namespace: one copy per
// instruction set.
#ifndef CUDA_KERNELS_PAIRWISE_PIXEL_BACKWARD_H_
#define CUDA_KERNELS_PAIRWISE_PIXEL_BACKWARD_H_

#include "cuda_kernels/pairwise/pixel.h"
#include "cuda_kernels/relu.h"

namespace san::pairwise {
namespace {

template <typename T>
struct BackwardPixel : Pixel<T> {
  using Base = Pixel<T>;
  using A = Accumulator<T>;
  using Base::Base, Base::L, Base::count_of, Base::feature, Base::flat,
      Base::for_each_block, Base::for_each_vector, Base::index_of_output,
      Base::period;
  using Base::p, Base::b, Base::view, Base::R, Base::G, Base::F, Base::taps,
      Base::image, Base::index;
  using V = typename Base::V;

  // sum += transpose(a) * g over the taps: [depth_a, columns of g].
  void add_outer(const T* a, int64_t rows, const T* g, int64_t columns, A* sum,
                 int64_t sum_pitch, bool upper = false) const {
    if constexpr (kStep<T> == 2) {
      pair_rows(a, taps, rows, b.pitch, b.left);
      pair_rows(g, taps, columns, b.pitch, b.right);
      a = b.left;
      g = b.right;
    }
    multiply(Product<T>{rows, columns, taps, a, kStep<T>, b.pitch, g, b.pitch,
                        kStep<T> * panel_width<A>(columns), sum, sum_pitch, sum,
                        sum_pitch, false, upper});
  }

  // weights = counts * exp(logit - log_sum_exp)
  void weigh(const A* log_sum_exp) const {
    for (int64_t g = 0; g < period(); ++g) {
      const int64_t group = g % b.groups;
      b.group_sums[g] = group < G ? log_sum_exp[index * G + group] : A(0);
    }
    const A* counts = this->begin_weights();
    for (int64_t g = 0; g < period(); g += L)
      this->exponentiate(g, flat(), cpu::load<L>(b.group_sums + g), counts);
  }

  // grad_weights[tap, g] = sum of grad_output * value over the group, and the
  // value's gradient takes weight * grad_output.
  void aggregate_backward(const T* grad_output, A* grad_features) const {
    for (int64_t i = 0; i < flat(); i += L)
      cpu::store<L>(b.grad_weights + i, V{});
    const T* own = grad_output + index_of_output();
    for_each_block([&](auto block) {
      constexpr int kVectors = block.kCount;
      using W = typename decltype(block)::V;
      W g[kVectors];
      for (int v = 0; v < kVectors; ++v) g[v] = block.load(own, v);
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const T* value = feature(pixel) + 2 * R;
        A* grad_value = grad_features + (image + pixel) * F + 2 * R;
        const auto w = block.weights(b.weights + tap * b.groups);
        W sum = {};
        for (int v = 0; v < kVectors; ++v) {
          sum += g[v] * block.load(value, v);
          block.store(grad_value, v, block.load(grad_value, v) + w * g[v]);
        }
        block.add_to(b.grad_weights + tap * b.groups, sum, G);
      });
    });
  }

  // grad_logits = weights * (grad_weights - their weighted sum), which is
  // grad_output * output summed over the group.
  void soften_backward(const T* grad_output, const T* output) const {
    for (int64_t g = 0; g < b.groups; ++g) b.group_sums[g] = 0;
    for_each_block([&](auto block) {
      typename decltype(block)::V sum = {};
      for (int v = 0; v < block.kCount; ++v)
        sum += block.load(grad_output + index_of_output(), v) *
               block.load(output + index_of_output(), v);
      block.add_to(b.group_sums, sum, G);
    });
    // By vectors that do not reach into other taps' groups: see
    // Pixel::for_each_vector.
    with_panel<A>(G, [&](auto panel) {
      constexpr int kLanes = panel.kLanes;
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t g = 0; g < b.groups; g += kLanes) {
          const int64_t i = tap * b.groups + g;
          const auto excess = cpu::load<kLanes>(b.grad_weights + i) -
                              cpu::load<kLanes>(b.group_sums + g);
          cpu::store_rounded(cpu::AllLanes<A, kLanes>(),
                             b.grad_logits + tap * b.pitch + g,
                             cpu::load<kLanes>(b.weights + i) * excess);
        }
    });
  }

  // Gradient through a relu with result `active`, written to `to`; its rows are
  // summed per offset in `table`.
  void hidden_backward(const T* active, const A* grad, T* to, A* table) const {
    for_each_vector([&](auto lanes, int64_t i) {
      constexpr int kLanes = lanes_of<A, decltype(lanes)>();
      view.for_each([&](int64_t tap, int64_t, int64_t offset) {
        const auto z = cpu::load<kLanes>(active + tap * b.pitch + i);
        auto g = cpu::load<kLanes>(grad + tap * b.pitch + i);
        g = relu_gradient(z, g);
        cpu::store_rounded(cpu::AllLanes<A, kLanes>(), to + tap * b.pitch + i,
                           g);
        A* sum = table + offset * b.pitch + i;
        cpu::store<kLanes>(sum, cpu::load<kLanes>(sum) + g);
      });
    });
  }

  // Spreads grad_a, through the relation's relu, over phi, psi, scale and
  // shift.
  void relate_backward(const A* grad_a, bool weighted, A* grad_features,
                       const MappingGradients<A>& sums) const {
    for_each_vector([&](auto lanes, int64_t i) {
      constexpr int kLanes = lanes_of<A, decltype(lanes)>();
      const auto scale = lanes.load(p.scale + i);
      const auto phi = lanes.load(p.features + index * F + i);
      Vector<A, kLanes> sum = {}, scale_sum = {};
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const auto a = cpu::load<kLanes>(b.a + tap * b.pitch + i);
        auto g = cpu::load<kLanes>(grad_a + tap * b.pitch + i);
        g = relu_gradient(a, g);
        if (weighted) g *= count_of(tap);
        sum += g;
        scale_sum += g * (phi - lanes.load(feature(pixel) + R + i));
        A* grad_psi = grad_features + (image + pixel) * F + R + i;
        lanes.store(grad_psi, lanes.load(grad_psi) - scale * g);
      });
      lanes.store(grad_features + index * F + i, scale * sum);
      lanes.store(sums.shift + i, lanes.load(sums.shift + i) + sum);
      lanes.store(sums.scale + i, lanes.load(sums.scale + i) + scale_sum);
    });
  }

  // Adds d = phi - psi - centre and its squares to two rows of sums.
  void add_difference(A* sums) const {
    for_each_vector([&](auto lanes, int64_t i) {
      const auto own =
          lanes.load(p.features + index * F + i) - lanes.load(p.centre + i);
      const T* psi = feature(0) + R + i;
      auto first = own - own, second = own - own;
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const auto d = own - lanes.load(psi + pixel * F);
        const auto counted = d * count_of(tap);
        first += counted;
        second += counted * d;
      });
      lanes.store(sums + i, lanes.load(sums + i) + first);
      lanes.store(sums + b.pitch + i, lanes.load(sums + b.pitch + i) + second);
    });
  }

  // Spreads constant + slope * (phi - psi) over phi and psi.
  void add_difference_backward(A* grad_features) const {
    for_each_vector([&](auto lanes, int64_t i) {
      const auto slope = lanes.load(p.table + b.pitch + i);
      const auto own = lanes.load(p.features + index * F + i) * slope +
                       lanes.load(p.table + i);
      auto sum = own - own;
      view.for_each([&](int64_t tap, int64_t pixel, int64_t) {
        const auto psi = lanes.load(feature(pixel) + R + i);
        const auto g = (own - slope * psi) * count_of(tap);
        sum += g;
        A* grad = grad_features + (image + pixel) * F + R + i;
        lanes.store(grad, lanes.load(grad) - g);
      });
      lanes.store(grad_features + index * F + i, sum);
    });
  }

  // Centres a, sums it per offset and as an outer product.
  void add_moments(const MappingGradients<A>& sums) const {
    for_each_vector([&](auto lanes, int64_t i) {
      constexpr int kLanes = lanes_of<A, decltype(lanes)>();
      constexpr cpu::AllLanes<A, kLanes> all;
      const auto centre = cpu::load<kLanes>(p.centre + i);
      view.for_each([&](int64_t tap, int64_t, int64_t offset) {
        const auto c = cpu::load<kLanes>(b.a + tap * b.pitch + i) - centre;
        const auto counted = c * count_of(tap);
        cpu::store_rounded(all, b.a + tap * b.pitch + i, c);
        cpu::store_rounded(all, b.z + tap * b.pitch + i, counted);
        A* sum = sums.table + offset * b.pitch + i;
        cpu::store<kLanes>(sum, cpu::load<kLanes>(sum) + counted);
      });
    });
    add_outer(b.a, R, b.z, R, sums.w1, b.pitch, true);
  }
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_PIXEL_BACKWARD_H_
