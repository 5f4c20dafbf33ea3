// The fused pairwise attention on tensor cores: from the gradients of the
// logits of 16 pairs back to those of their relation. For .cu files only.
//
// The factors of these products are rounded as those of the forward are: the
// gradients of the logits and of the hidden layer. As in the forward each warp
// makes 8 and 16 channels of them, and takes what the other warps of its team
// have made from shared memory, there row by row: so it can be read as the left
// factor of a product over channels, or, transposed, as a factor of a product
// over pairs.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_GRADIENT_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_GRADIENT_H_

#include "cuda_kernels/pairwise/tensor_mapping.h"

namespace san::pairwise {
namespace {

// Tiles of 16 pairs by 16 channels, of half types, which the warps of a team
// fill; kStages in turn. A warp alone keeps its own, the newest, in registers,
// too.
template <typename S, int kTiles, int kStages = 1>
class Sheets {
 public:
  using T = typename S::T;

  SAN_HOST_DEVICE explicit Sheets(Arena& memory)
      : shared_(memory.take<T>(S::kTeams * kStages * kTiles * kTile)) {}

  // The warp's 16 channels.
  __device__ void put(const Lane<S>& lane, int stage, const Left<T>& left) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      store(lane, stage * kTiles + lane.warp, i % 2, i / 2, left.words[i]);
    own_ = left;
  }

  // The warp's 8 channels; where there is no further warp, 0 for the next 8.
  __device__ void put_half(const Lane<S>& lane, const float (&sums)[4]) {
    own_ = {};
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      own_.words[row] = rounded_pair<T>(sums[2 * row], sums[2 * row + 1]);
      store(lane, lane.warp / 2, row, lane.warp % 2, own_.words[row]);
      if (S::kWarps == 1) store(lane, 0, row, 1, 0);
    }
  }

  // A tile as a left factor.
  __device__ Left<T> get(const Lane<S>& lane, int stage, int tile) const {
    if constexpr (S::kWarps == 1) return own_;
    Left<T> left;
    const int row = 4 * lane.group + lane.member;
    load_matrices(left.words, at(lane, stage * kTiles + tile) +
                                  row % 16 * kPitch + row / 16 * 8);
    return left;
  }

  // Its transpose, likewise: 16 channels by 16 pairs.
  __device__ Left<T> transposed(const Lane<S>& lane, int stage,
                                int tile) const {
    Left<T> left;
    const int row = 4 * lane.group + lane.member;
    load_transposed(left.words, at(lane, stage * kTiles + tile) +
                                    (row % 8 + row / 16 * 8) * kPitch +
                                    row / 8 % 2 * 8);
    return left;
  }

 private:
  // Elements; an odd number of 16 bytes, so that rows lie in different banks.
  static constexpr int kPitch = 24, kTile = 16 * kPitch;

  __device__ T* at(const Lane<S>& lane, int tile) const {
    return shared_ + (lane.team * kStages * kTiles + tile) * kTile;
  }
  __device__ void store(const Lane<S>& lane, int tile, int rows, int columns,
                        uint32_t word) const {
    *reinterpret_cast<uint32_t*>(at(lane, tile) +
                                 (lane.group + 8 * rows) * kPitch +
                                 8 * columns + 2 * lane.member) = word;
  }

  T* shared_;
  Left<T> own_;
};

// The right factor of 16 pairs by 8 of the 16 channels of a transposed tile.
template <typename T>
__device__ Right<T> columns_of(const Left<T>& transposed, int n) {
  return {{transposed.words[n], transposed.words[n + 2]}};
}

// What the warps of a team tell each other at an offset.
template <typename S>
struct Told {
  static constexpr int kHalves = (S::kWarps + 1) / 2;

  SAN_HOST_DEVICE explicit Told(Arena& memory)
      : relation(memory),
        hidden(memory),
        grad_hidden(memory),
        grad_logits(memory) {}

  Sheets<S, S::kWarps> relation, hidden, grad_hidden;
  Sheets<S, kHalves> grad_logits;
};

// w1 and w2 once more, as the right factors of the way back.
template <typename S>
struct BackwardWeights {
  using T = typename S::T;

  __device__ void load(const Lane<S>& lane, const Mapping& mapping) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int column = kChannels * lane.warp + 8 * n + lane.group;
#pragma unroll
      for (int step = 0; step < S::kSteps; ++step)
        w1[step][n] = right_of<T>([&](int i) {
          const int row = kChannels * step + i;
          return lane.has(row) && lane.has(column)
                     ? mapping.w1[row * S::R + column]
                     : 0.0f;
        });
#pragma unroll
      for (int step = 0; step < Told<S>::kHalves; ++step)
        w2[step][n] = right_of<T>([&](int i) {
          const int row = kChannels * step + i;
          return row < S::G && lane.has(column)
                     ? mapping.w2[row * S::R + column]
                     : 0.0f;
        });
    }
  }

  Right<T> w1[S::kSteps][2], w2[Told<S>::kHalves][2];
};

// Calls soften(logits), which turns them into their gradients, and sum(told)
// once the gradient of the hidden layer is known; returns with the gradient of
// what the relation is before its relu. `a` is that.
template <typename S, typename Soften, typename Sum>
__device__ void go_back(const Lane<S>& lane, const Weights<S>& weights,
                        const BackwardWeights<S>& backward, const float* table,
                        Told<S>& told, const Share& a, Share& grad_a,
                        Soften soften, Sum sum) {
  using T = typename S::T;
  told.relation.put(lane, 0, left_of<T, true>(a));
  wait_for_team(lane);
  Share hidden;
  start_hidden(lane, table, hidden);
  weights.add_hidden(lane, told.relation, 0, hidden);
  told.hidden.put(lane, 0, left_of<T, true>(hidden));
  wait_for_team(lane);
  float logits[4] = {};
  weights.add_logits(lane, told.hidden, 0, logits);
  soften(logits);
  told.grad_logits.put_half(lane, logits);
  wait_for_team(lane);
  Share grad_hidden = {};
#pragma unroll
  for (int step = 0; step < Told<S>::kHalves; ++step) {
    const Left<T> grad = told.grad_logits.get(lane, 0, step);
#pragma unroll
    for (int n = 0; n < 2; ++n)
      multiply<T>(grad_hidden[n], grad, backward.w2[step][n]);
  }
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      grad_hidden[n][i] = relu_gradient(hidden[n][i], grad_hidden[n][i]);
  told.grad_hidden.put(lane, 0, left_of<T, false>(grad_hidden));
  sum();
  wait_for_team(lane);
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) grad_a[n][i] = 0;
#pragma unroll
  for (int step = 0; step < S::kSteps; ++step) {
    const Left<T> grad = told.grad_hidden.get(lane, 0, step);
#pragma unroll
    for (int n = 0; n < 2; ++n)
      multiply<T>(grad_a[n], grad, backward.w1[step][n]);
  }
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      grad_a[n][i] = relu_gradient(a[n][i], grad_a[n][i]);
}

// Two rows by two groups by the channels of each that a lane has.
template <typename S>
using Values = float[4][S::kOwn];

template <typename S>
__device__ void load_values(const Lane<S>& lane, const typename S::T* from,
                            int64_t stride, const int64_t (&pixels)[2],
                            Values<S>& values) {
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j) {
      Two<typename S::T> pair = {0, 0};
      if (pixels[row] >= 0)
        pair = two<typename S::T>(from + pixels[row] * stride + lane.value(j));
      values[2 * row][j] = pair.first;
      values[2 * row + 1][j] = pair.second;
    }
}

// Adds up what the lanes have that share the channels of a group.
template <typename S>
__device__ void join_groups(float (&sums)[4]) {
  if constexpr (S::G < 8)
#pragma unroll
    for (int bits = 1; bits < 8 / S::G; bits *= 2)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] += shuffle_xor(sums[i], bits);
}

// The gradient of the pixels' phi or psi, from the sums of that of the
// relation.
template <typename S, Own own>
__device__ void write_relation(const Lane<S>& lane,
                               const Relation<S, own>& relation,
                               const int64_t (&pixels)[2], const Share& sums,
                               typename S::T* to) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (pixels[row] < 0) continue;
#pragma unroll
    for (int n = 0; n < 2; ++n)
      if (lane.has(lane.channel(n)))
        store_two(to + pixels[row] * S::F + (own == Own::kP ? 0 : S::R) +
                      lane.channel(n),
                  -relation.factor[n][0] * sums[n][2 * row],
                  -relation.factor[n][1] * sums[n][2 * row + 1]);
  }
}

// No gradient of the pixels' beta.
template <typename S>
__device__ void write_no_values(const Lane<S>& lane, const int64_t (&pixels)[2],
                                typename S::T* to) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (pixels[row] < 0) continue;
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j)
      store_two(to + pixels[row] * S::F + 2 * S::R + lane.value(j), 0, 0);
  }
}

// A lane's sums of the gradients of scale and shift, over all tiles.
template <typename S>
struct VectorSums {
  using T = typename S::T;

  // Adds those of two pixels p, from their sums of the gradient of the relation
  // and of that times psi.
  __device__ void add(const Lane<S>& lane, const T* features,
                      const int64_t (&pixels)[2], const Share& sums,
                      const Share& with_psi) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        Two<T> phi = {0, 0};
        if (pixels[row] >= 0 && lane.has(lane.channel(n)))
          phi = two<T>(features + pixels[row] * S::F + lane.channel(n));
        const int i = 2 * row;
        scale[n][0] += phi.first * sums[n][i] - with_psi[n][i];
        scale[n][1] += phi.second * sums[n][i + 1] - with_psi[n][i + 1];
        shift[n][0] += sums[n][i];
        shift[n][1] += sums[n][i + 1];
      }
  }

  // Joins what the lanes have of a channel, in the first of them.
  __device__ void join() {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int bits = 4; bits < 32; bits *= 2) {
          scale[n][i] += shuffle_xor(scale[n][i], bits);
          shift[n][i] += shuffle_xor(shift[n][i], bits);
        }
  }

  template <typename Add>
  __device__ void write(const Lane<S>& lane, const PairwisePart& at,
                        Add add) const {
    if (lane.group > 0) return;
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (lane.has(lane.channel(n))) {
          add(at.first + lane.channel(n) + i, scale[n][i]);
          add(at.second + lane.channel(n) + i, shift[n][i]);
        }
  }

  float scale[2][2], shift[2][2];
};

// table [R] += the sum over the pairs of a transposed tile, of the warp's own
// channels.
template <typename S>
__device__ void add_to_table(const Lane<S>& lane,
                             const Left<typename S::T>& transposed,
                             float* table) {
  using T = typename S::T;
  const float one = lane.group == 0 ? 1 : 0;
  float sums[4] = {};
  multiply<T>(sums, transposed, right_of<T>([&](int) { return one; }));
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int channel = kChannels * lane.warp + lane.group + 8 * row;
    if (lane.member == 0 && lane.has(channel)) table[channel] += sums[2 * row];
  }
}

// Calls write(add) by one team after the other, where add(i, sum) adds to
// element i of a part.
template <typename S, typename Write>
__device__ void write_in_turn(const Lane<S>& lane, double* part, Write write) {
  for (int team = 0; team < S::kTeams; ++team) {
    if (team == lane.team)
      write([&](int64_t i, float sum) {
        part[i] = team == 0 ? sum : part[i] + sum;
      });
    __syncthreads();
  }
}

// part [K, R] = the sum of the teams' tables, after a barrier.
template <typename S>
__device__ void write_table(const float* tables, int elements, double* part) {
#pragma unroll 1
  for (int i = threadIdx.x; i < elements; i += S::kThreads) {
    float sum = 0;
#pragma unroll
    for (int team = 0; team < S::kTeams; ++team)
      sum += tables[team * elements + i];
    part[i] = sum;
  }
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_GRADIENT_H_
