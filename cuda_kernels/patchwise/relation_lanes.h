// The inner loops of the patchwise hidden layer where relation channels and
// weight channels fill vectors, as lanes.h has those of the core: the rectified
// relation of a few pixels, some relation channels in the lanes, is a factor of
// a small product. Nothing but these pixels' relation is ever in memory.
//
// In an unnamed namespace: one copy per instruction set.
#ifndef CUDA_KERNELS_PATCHWISE_RELATION_LANES_H_
#define CUDA_KERNELS_PATCHWISE_RELATION_LANES_H_

#include "cuda_kernels/patchwise/lanes.h"
#include "cuda_kernels/relu.h"

namespace san::patchwise {
namespace {

template <typename E, typename T>
void pack_relation(const RelationWeight<T>& w) {
  using A = Accumulator<T>;
  const int64_t R = w.relation_channels, G = w.weight_channels, K = w.taps;
  const int64_t S = R * (K + 1), row = lane_row(K + 1);
  // Of K taps of the lanes' channels in a row of S.
  const int64_t at = R + w.first * K;
  const auto turn = [&](const A* from, A* to) {
    std::copy_n(from + w.first, kColumns, to);
    cpu::transpose<true>(from + at, K, to + kColumns, kColumns, kColumns, K);
  };
  turn(w.scale, w.packed_scale);
  turn(w.shift, w.packed_shift);
  E* const turned = static_cast<E*>(w.turned);
  round_rows(w.transposed + w.first * G, G, kColumns, G, turned);
  for (int64_t t = 0; t < K; ++t)
    round_rows(w.transposed + (at + t) * G, K * G, kColumns, G,
               turned + (t + 1) * kColumns * G);
  if (!w.packed) return;
  std::fill_n(w.scratch, G * row, A(0));
  for (int64_t g = 0; g < G; ++g) turn(w.weight + g * S, w.scratch + g * row);
  round_rows(w.scratch, row, G, row, static_cast<E*>(w.packed));
}

// The source of phi; a type of its own, so that each kind of source has code of
// its own, and products the same roundings for every type of image.
using Itself = cpu::Constant<-1>;

// Calls f(vector of the relation, its first element among T * lane, source) for
// the taps [begin, end) of a pixel.
template <typename T, typename F>
inline __attribute__((always_inline)) void for_each_relation(
    const RelationForward<T>& f, int64_t pixel, int64_t begin, int64_t end,
    F call) {
  using A = Accumulator<T>;
  constexpr int L = cpu::kWide<A>;
  const T* const phi = f.phi + pixel * f.phi_pitch;
  const int64_t* const sources = f.sources + pixel * f.taps - 1;
  for_each_lanes<A>([&](int64_t lane) {
    int64_t t = begin;
    if (t == 0) call(cpu::load<L>(phi + lane), lane, Itself()), ++t;
    for (; t < end; ++t)
      call(cpu::load<L>(f.psi + sources[t] * f.psi_pitch + lane),
           t * kColumns + lane, sources[t]);
  });
}

template <typename E, typename T>
void relation_forward(const RelationForward<T>& f) {
  using A = Accumulator<T>;
  constexpr int L = cpu::kWide<A>;
  const int64_t G = f.weight_channels, taps = f.taps + 1;
  const E* const turned = static_cast<const E*>(f.turned);
  E* const rectified = reinterpret_cast<E*>(f.scratch);
  for (int64_t begin = 0; begin < taps; begin += kChunkTaps) {
    const int64_t end = std::min(begin + kChunkTaps, taps);
    const int64_t at = begin * kColumns;
    const bool add = f.add || begin > 0;
    for (int64_t first = 0; first < f.pixels; first += kLanePixels) {
      const int64_t count = std::min(kLanePixels, f.pixels - first);
      for (int64_t p = 0; p < count; ++p)
        for_each_relation(
            f, first + p, begin, end, [&](auto x, int64_t i, auto) {
              const auto y =
                  x * cpu::load<L>(f.scale + i) + cpu::load<L>(f.shift + i);
              cpu::store_rounded(cpu::AllLanes<A, L>(),
                                 rectified + p * kChunkPitch + i - at, relu(y));
            });
      A* const hidden = f.hidden + first * G;
      multiply(count, G, (end - begin) * kColumns, rectified, kChunkPitch, 1,
               turned + at * G, add ? hidden : nullptr, G, hidden);
    }
  }
}

template <typename E, typename T>
void relation_backward(const RelationBackward<T>& b) {
  using A = Accumulator<T>;
  constexpr int L = cpu::kWide<A>;
  constexpr int64_t kStep = cpu::kStep<E>;
  const RelationForward<T>& f = b.forward;
  const int64_t row = lane_row(f.taps + 1), used = (f.taps + 1) * kColumns;
  const int64_t G = f.weight_channels;
  A* const rectified = f.scratch;  // first the gradient of what it is then
  E* const pairs = reinterpret_cast<E*>(rectified + kLanePixels * row);
  E* const grad_pairs = pairs + kLanePixels * row;
  E* const factors = grad_pairs + kLanePixels * G;
  for (int64_t first = 0; first < f.pixels; first += kLanePixels) {
    const int64_t count = std::min(kLanePixels, f.pixels - first);
    const A* const grad_hidden = b.grad_hidden + first * G;
    multiply<E, A>(count, row, G, as_factors(grad_hidden, count, G, factors),
                   lane_pitch(G), 1, static_cast<const E*>(b.packed), nullptr,
                   0, rectified);
    for (int64_t p = 0; p < count; ++p)
      for_each_relation(
          f, first + p, 0, f.taps + 1, [&](auto x, int64_t i, auto source) {
            const auto scale = cpu::load<L>(f.scale + i);
            const auto y = x * scale + cpu::load<L>(f.shift + i);
            A* const at = rectified + p * row + i;
            const Lanes<A> grad = relu_gradient(y, cpu::load<L>(at));
            add_to<A>(b.grad_shift + i, grad);
            add_to<A>(b.grad_scale + i, grad * x);
            if constexpr (std::is_same_v<decltype(source), Itself>)
              cpu::store<L>(b.grad_phi + (first + p) * b.grad_phi_pitch + i,
                            Lanes<A>(grad * scale));
            else
              add_to<A>(b.grad_psi + source * kColumns + i % kColumns,
                        grad * scale);
            cpu::store<L>(at, Lanes<A>(relu(y)));
          });
    multiply(used, G, (count + kStep - 1) / kStep * kStep,
             paired(rectified, count, row, pairs), kStep, row,
             paired(grad_hidden, count, G, grad_pairs), b.grad_weight, G,
             b.grad_weight);
  }
}

// What depends on whether factors are rounded to pairs.
template <typename E, typename T>
constexpr LaneKernels<T> lane_kernels() {
  return {pack_weight<E, T>,   lane_forward<E, T>,     lane_backward<E, T>,
          pack_relation<E, T>, relation_forward<E, T>, relation_backward<E, T>};
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_RELATION_LANES_H_
