// The inner loops of the patchwise core where weight channels fill vectors.
//
// Idea. Channels of a pixel that lie side by side are weighed by weight
// channels that lie side by side. So the weights of all taps of a few pixels
// are one small matrix product, whose columns are (tap, lane), and value is
// read where it lies: no padded copy of it is ever made. Backward is two more
// products, of the gradients of these weights.
//
// In an unnamed namespace: one copy per instruction set.
#ifndef CUDA_KERNELS_PATCHWISE_LANES_H_
#define CUDA_KERNELS_PATCHWISE_LANES_H_

#include <algorithm>
#include <type_traits>

#include "cuda_kernels/cpu/pairs.h"
#include "cuda_kernels/cpu/product.h"
#include "cuda_kernels/cpu/transposition.h"
#include "cuda_kernels/patchwise/kernels.h"

namespace san::patchwise {
namespace {

constexpr int kMostMembers = 8;  // that are summed at once

// Rows as E; of bfloat16 each two beside each other, element by element, where
// an odd last one has zeros for a partner.
template <typename E, typename A>
void round_rows(const A* from, int64_t pitch, int64_t rows, int64_t columns,
                E* to) {
  if constexpr (std::is_same_v<E, A>) {
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(from + r * pitch, columns, to + r * columns);
  }
#ifdef __AVX512F__
  else {
    constexpr int L = cpu::kWide<A>;
    for (int64_t r = 0; r < rows; r += 2)
      for (int64_t i = 0; i < columns; i += L) {
        const A* const row = from + r * pitch + i;
        cpu::Vector<A, L> second = {};
        if (r + 1 < rows) second = cpu::load<L>(row + pitch);
        const auto pairs = cpu::paired(cpu::load<L>(row), second);
        memcpy(to + r * columns + 2 * i, &pairs, sizeof pairs);
      }
  }
#endif
}

// Rows that follow one another, likewise: what they are, or `to`.
template <typename E, typename A>
const E* paired(const A* from, int64_t rows, int64_t columns, E* to) {
  if constexpr (std::is_same_v<E, A>) {
    return from;
  } else {
    round_rows(from, columns, rows, columns, to);
    return to;
  }
}

// c = init + a b, row by row dense but for those of a; an element of a is a
// pair where E is bfloat16.
template <typename E, typename A>
void multiply(int64_t rows, int64_t columns, int64_t depth, const E* a,
              int64_t a_row, int64_t a_depth, const E* b, const A* init,
              int64_t init_row, A* c) {
  cpu::multiply<E, A>({rows, columns, depth, a, a_row, a_depth, b, columns,
                       cpu::kStep<E> * cpu::panel_width<A>(columns), init,
                       init_row, c, columns});
}

static_assert(kChunkPitch == cpu::kPitch);  // for which there are fast tiles

template <typename E, typename A>
void round_row(const A* from, int64_t count, E* to) {
  cpu::for_each_vector<A>(count, [&](auto lanes, int64_t i) {
    cpu::store_rounded(lanes, to + i, lanes.load(from + i));
  });
}

// As E: what they are, or `to`.
template <typename E, typename A>
const E* as_rounded(const A* from, int64_t count, E* to) {
  if constexpr (std::is_same_v<E, A>) {
    return from;
  } else {
    round_row(from, count, to);
    return to;
  }
}

// Left factors: rows that follow one another as E, lane_pitch(columns) apart.
template <typename E, typename A>
const E* as_factors(const A* from, int64_t rows, int64_t columns, E* to) {
  for (int64_t r = 0; r < rows; ++r)
    round_row(from + r * columns, columns, to + r * lane_pitch(columns));
  return to;
}

template <typename E, typename T>
void pack_weight(const LaneWeight<T>& w) {
  using A = Accumulator<T>;
  const int64_t G = w.weight_channels, K = w.taps, row = lane_row(K);
  E* to = static_cast<E*>(w.packed);
  // [G', K, lane]; taps beyond K are zero.
  std::fill_n(w.scratch, G * row, A(0));
  for (int64_t t = 0; t < K; ++t)
    cpu::transpose<true>(w.weight + t * G, K * G, w.scratch + t * kColumns, row,
                         kColumns, G);
  round_rows<E>(w.scratch, row, G, row, to);
  std::fill_n(w.packed_bias, row, A(0));
  cpu::transpose<true>(w.bias, K, w.packed_bias, kColumns, kColumns, K);
  if (!w.turned) return;
  // [K, lane, G']
  for (int64_t t = 0; t < K; ++t)
    round_rows<E>(w.weight + t * G, K * G, kColumns, G,
                  static_cast<E*>(w.turned) + t * kColumns * G);
}

// The weights of all taps of some pixels: [count, lane_row(K)].
template <typename E, typename T>
void make_weights(const LaneForward<T>& f, int64_t first, int64_t count,
                  E* factors, Accumulator<T>* weights) {
  const int64_t G = f.weight_channels;
  multiply<E>(count, lane_row(f.taps), G,
              as_factors(f.hidden + first * G, count, G, factors),
              lane_pitch(G), 1, static_cast<const E*>(f.weight), f.bias, 0,
              weights);
}

// Calls f(Constant<M>(), first) for some members at a time.
template <typename F>
void for_each_members(int64_t members, F f) {
  int64_t m = 0;
  for (; m + kMostMembers <= members; m += kMostMembers)
    f(cpu::Constant<kMostMembers>(), m);
  for (; m < members; ++m) f(cpu::Constant<1>(), m);
}

template <typename A>
using Lanes = cpu::Vector<A, cpu::kWide<A>>;

// Calls f(lane) for the first of each vector of them.
template <typename A, typename F>
inline __attribute__((always_inline)) void for_each_lanes(F f) {
  for (int64_t lane = 0; lane < kColumns; lane += cpu::kWide<A>) f(lane);
}

// Members from the place of `value` and `output` on, of one pixel.
template <int M, typename T>
void weigh(const LaneForward<T>& f, const Accumulator<T>* weights,
           const int64_t* sources, const T* value, T* output) {
  using A = Accumulator<T>;
  constexpr int L = cpu::kWide<A>;
  for_each_lanes<A>([&](int64_t lane) {
    Lanes<A> sum[M] = {};
    for (int64_t t = 0; t < f.taps; ++t) {
      const auto weight = cpu::load<L>(weights + t * kColumns + lane);
      const T* const from = value + sources[t] * f.pitch + lane;
      cpu::unrolled<M>([&](auto m) {
        sum[m] += weight * cpu::load<L>(from + m * f.weight_channels);
      });
    }
    cpu::unrolled<M>([&](auto m) {
      cpu::store<L>(output + m * f.weight_channels + lane, sum[m]);
    });
  });
}

template <typename E, typename T>
void lane_forward(const LaneForward<T>& f) {
  using A = Accumulator<T>;
  const int64_t row = lane_row(f.taps), G = f.weight_channels;
  A* const weights = f.scratch;
  E* const factors = reinterpret_cast<E*>(weights + kLanePixels * row);
  for (int64_t first = 0; first < f.pixels; first += kLanePixels) {
    const int64_t count = std::min(kLanePixels, f.pixels - first);
    make_weights(f, first, count, factors, weights);
    for (int64_t p = 0; p < count; ++p)
      for_each_members(f.members, [&](auto most, int64_t m) {
        weigh<most()>(f, weights + p * row, f.sources + (first + p) * f.taps,
                      f.value + m * G,
                      f.output + (first + p) * f.output_pitch + m * G);
      });
  }
}

// The gradients of `weigh`: those of the weights, a chunk of taps after another
// and added to where `add`, and added to grad_value, whose pixels and members
// are dense.
template <int M, typename T>
void weigh_gradients(const LaneBackward<T>& b, const Accumulator<T>* weights,
                     const int64_t* sources, const T* value,
                     const T* grad_output, Accumulator<T>* grad_value, bool add,
                     Accumulator<T>* grad_weights) {
  using A = Accumulator<T>;
  constexpr int L = cpu::kWide<A>;
  const LaneForward<T>& f = b.forward;
  for_each_lanes<A>([&](int64_t lane) {
    Lanes<A> grad[M];
    cpu::unrolled<M>([&](auto m) {
      grad[m] = cpu::load<L>(grad_output + m * f.weight_channels + lane);
    });
    for (int64_t t = 0; t < f.taps; ++t) {
      const auto weight = cpu::load<L>(weights + t * kColumns + lane);
      const T* const from = value + sources[t] * f.pitch + lane;
      A* const to = grad_value + sources[t] * f.members * kColumns + lane;
      A* const sum_at = grad_weights + t / kChunkTaps * kChunk +
                        t % kChunkTaps * kColumns + lane;
      Lanes<A> sum = add ? cpu::load<L>(sum_at) : Lanes<A>{};
      cpu::unrolled<M>([&](auto m) {
        sum += grad[m] * cpu::load<L>(from + m * f.weight_channels);
        A* const member = to + m * kColumns;
        cpu::store<L>(member, cpu::load<L>(member) + weight * grad[m]);
      });
      cpu::store<L>(sum_at, sum);
    }
  });
}

template <typename A>
inline void add_to(A* to, Lanes<A> value) {
  cpu::store<cpu::kWide<A>>(to, cpu::load<cpu::kWide<A>>(to) + value);
}

template <typename E, typename T>
void lane_backward(const LaneBackward<T>& b) {
  using A = Accumulator<T>;
  constexpr int64_t kStep = cpu::kStep<E>;
  const LaneForward<T>& f = b.forward;
  const int64_t row = lane_row(f.taps), G = f.weight_channels;
  A* const weights = f.scratch;
  A* const grad_weights = weights + kLanePixels * row;
  E* const rounded =
      reinterpret_cast<E*>(grad_weights + lane_chunks(f.taps) * kChunk);
  E* const pairs = rounded + kChunk;
  E* const hidden_pairs = pairs + kChunk;
  E* const factors = hidden_pairs + kLanePixels * G;
  for (int64_t first = 0; first < f.pixels; first += kLanePixels) {
    const int64_t count = std::min(kLanePixels, f.pixels - first);
    make_weights(f, first, count, factors, weights);
    for (int64_t p = 0; p < count; ++p)
      for_each_members(f.members, [&](auto most, int64_t m) {
        weigh_gradients<most()>(
            b, weights + p * row, f.sources + (first + p) * f.taps,
            f.value + m * G, b.grad_output + (first + p) * b.grad_pitch + m * G,
            b.grad_value + m * kColumns, m > 0, grad_weights + p * kChunkPitch);
      });
    const E* const hidden =
        paired(f.hidden + first * G, count, G, hidden_pairs);
    A* const grad_hidden = b.grad_hidden + first * G;
    for (int64_t t = 0; t < f.taps; t += kChunkTaps) {
      const A* const grads = grad_weights + t / kChunkTaps * kChunk;
      const int64_t at = t * kColumns;
      const int64_t columns = std::min(kChunkTaps, f.taps - t) * kColumns;
      for (int64_t p = 0; p < count; ++p)
        for (int64_t i = 0; i < columns; i += cpu::kWide<A>)
          add_to(b.grad_bias + at + i,
                 cpu::load<cpu::kWide<A>>(grads + p * kChunkPitch + i));
      multiply<E>(count, G, columns,
                  as_rounded(grads, count * kChunkPitch, rounded), kChunkPitch,
                  1, static_cast<const E*>(b.turned) + at * G, grad_hidden, G,
                  grad_hidden);
      multiply<E>(columns, G, (count + kStep - 1) / kStep * kStep,
                  paired(grads, count, kChunkPitch, pairs), kStep, kChunkPitch,
                  hidden, b.grad_weight + at * G, G, b.grad_weight + at * G);
    }
  }
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_LANES_H_
