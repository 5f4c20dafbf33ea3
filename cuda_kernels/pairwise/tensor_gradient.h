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

// Tiles of 16 pairs by 16 channels, part by part, which the warps of a team
// fill; kStages in turn. A warp alone keeps its own, the newest, in registers,
// too.
template <typename S, int kTiles, int kStages = 1>
class Sheets {
 public:
  using T = typename S::T;

  SAN_HOST_DEVICE explicit Sheets(Arena& memory)
      : shared_(memory.take<Factor<T>>(S::kTeams * kStages * kTiles *
                                       kParts<T> * kTile)) {}

  // The warp's 16 channels.
  __device__ void put(const Lane<S>& lane, int stage, const Left<T>& left) {
#pragma unroll
    for (int i = 0; i < Left<T>::kWords; ++i)
      store(lane, stage * kTiles + lane.warp, i / 4, i % 2, i / 2 % 2,
            left.words[i]);
    own_ = left;
  }

  // The warp's 8 channels; where there is no further warp, 0 for the next 8.
  __device__ void put_half(const Lane<S>& lane, const float (&sums)[4]) {
    own_ = {};
#pragma unroll
    for (int row = 0; row < 2; ++row)
      split<T, false>(
          sums[2 * row], sums[2 * row + 1], [&](int part, uint32_t pair) {
            own_.words[4 * part + row] = pair;
            store(lane, lane.warp / 2, part, row, lane.warp % 2, pair);
            if (S::kWarps == 1) store(lane, 0, part, row, 1, 0);
          });
  }

  // A tile as a left factor.
  __device__ Left<T> get(const Lane<S>& lane, int stage, int tile) const {
    if constexpr (S::kWarps == 1) return own_;
    Left<T> left;
    const int row = 4 * lane.group + lane.member;
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part)
      load_matrices(part_of<4>(left, part),
                    at(lane, stage * kTiles + tile, part) + row % 16 * kPitch +
                        row / 16 * 8);
    return left;
  }

  // Its transpose, likewise: 16 channels by 16 pairs.
  __device__ Left<T> transposed(const Lane<S>& lane, int stage,
                                int tile) const {
    Left<T> left;
    const int row = 4 * lane.group + lane.member;
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part)
      load_transposed(part_of<4>(left, part),
                      at(lane, stage * kTiles + tile, part) +
                          (row % 8 + row / 16 * 8) * kPitch + row / 8 % 2 * 8);
    return left;
  }

 private:
  // Elements; an odd number of 16 bytes, so that rows lie in different banks.
  static constexpr int kPitch = 24, kTile = 16 * kPitch;

  __device__ Factor<T>* at(const Lane<S>& lane, int tile, int part) const {
    return shared_ +
           ((lane.team * kStages * kTiles + tile) * kParts<T> + part) * kTile;
  }
  __device__ void store(const Lane<S>& lane, int tile, int part, int rows,
                        int columns, uint32_t word) const {
    *reinterpret_cast<uint32_t*>(at(lane, tile, part) +
                                 (lane.group + 8 * rows) * kPitch +
                                 8 * columns + 2 * lane.member) = word;
  }

  Factor<T>* shared_;
  Left<T> own_;
};

// The right factor of 16 pairs by 8 of the 16 channels of a transposed tile.
template <typename T>
__device__ Right<T> columns_of(const Left<T>& transposed, int n) {
  Right<T> right;
#pragma unroll
  for (int i = 0; i < Right<T>::kWords; ++i)
    right.words[i] = transposed.words[2 * i + n];
  return right;
}

// What the warps of a team tell each other at an offset. Once the logits are
// made, the gradient of the hidden layer takes its place.
template <typename S>
struct Told {
  static constexpr int kHalves = (S::kWarps + 1) / 2;

  SAN_HOST_DEVICE explicit Told(Arena& memory)
      : relation(memory), hidden(memory), grad_logits(memory) {}

  Sheets<S, S::kWarps> relation, hidden;
  Sheets<S, kHalves> grad_logits;
};

// w1 and w2 in shared memory, part by part, as right factors of products there
// and back: registers have no room for both.
template <typename S>
class SharedWeights {
 public:
  using T = typename S::T;

  SAN_HOST_DEVICE explicit SharedWeights(Arena& memory)
      : shared_(memory.take<Factor<T>>(kParts<T> * kPart)) {}

  __device__ void load(const Mapping& mapping) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < kRows * kColumns / 2; i += S::kThreads) {
      const int row = i / (kColumns / 2), column = i % (kColumns / 2) * 2;
      const float* from = row_of(mapping, row);
      const bool has = from && Lane<S>::has(column);
      split<T, false>(has ? from[column] : 0, has ? from[column + 1] : 0,
                      [&](int part, uint32_t pair) {
                        *reinterpret_cast<uint32_t*>(at(part, row, column)) =
                            pair;
                      });
    }
  }

  // ---- Of the warp's channels and 16 more, by the step.

  // Relation to hidden layer, and to logits from there.
  __device__ void hidden(const Lane<S>& lane, int step,
                         Right<T> (&right)[2]) const {
    read<false>(lane, kChannels * lane.warp, kChannels * step, right);
  }
  __device__ void logits(const Lane<S>& lane, int step, Right<T>& right) const {
    const int row = 4 * lane.group + lane.member;
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part)
      load_matrices(part_of<2>(right, part),
                    at(part, kLogits + 8 * lane.warp + row % 8,
                       kChannels * step + row / 8 % 2 * 8));
  }
  // And back.
  __device__ void grad_hidden(const Lane<S>& lane, int step,
                              Right<T> (&right)[2]) const {
    read<true>(lane, kGradients + kChannels * step, kChannels * lane.warp,
               right);
  }
  __device__ void grad_relation(const Lane<S>& lane, int step,
                                Right<T> (&right)[2]) const {
    read<true>(lane, kChannels * step, kChannels * lane.warp, right);
  }

 private:
  // Rows of w1, and of w2: on the way there groups repeat where there are less
  // than 8, and back they do not, but zeros follow.
  static constexpr int kColumns = kChannels * S::kSteps, kLogits = kColumns,
                       kGradients = kLogits + (S::G < 8 ? 8 : 0),
                       kRows = kGradients + kChannels * Told<S>::kHalves;
  // Elements; an odd number of 16 bytes, so that rows lie in different banks.
  static constexpr int kPitch = kColumns + 8, kPart = kRows * kPitch;

  __device__ Factor<T>* at(int part, int row, int column) const {
    return shared_ + part * kPart + row * kPitch + column;
  }
  __device__ static const float* row_of(const Mapping& mapping, int row) {
    if (row < kLogits) return row < S::R ? mapping.w1 + row * S::R : nullptr;
    if (row < kGradients) return mapping.w2 + (row - kLogits) % S::G * S::R;
    row -= kGradients;
    return row < S::G ? mapping.w2 + row * S::R : nullptr;
  }

  // From 16 rows and columns two right factors: of rows, which have 8 of them
  // each, or transposed, of columns.
  template <bool kTransposed>
  __device__ void read(const Lane<S>& lane, int row, int column,
                       Right<T> (&right)[2]) const {
    const int i = 4 * lane.group + lane.member;
    const int high = i / 16 * 8, low = i / 8 % 2 * 8;
    row += i % 8 + (kTransposed ? low : high);
    column += kTransposed ? high : low;
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part) {
      uint32_t words[4];
      if constexpr (kTransposed)
        load_transposed(words, at(part, row, column));
      else
        load_matrices(words, at(part, row, column));
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int k = 0; k < 2; ++k)
          right[n].words[2 * part + k] = words[2 * n + k];
    }
  }

  Factor<T>* shared_;
};

// No sums.
template <typename S>
struct NoSums {
  __device__ void add_logits(const Lane<S>&, const Told<S>&) {}
  __device__ void add_hidden(const Lane<S>&, const Told<S>&) {}
};

// Calls soften(logits), which turns them into their gradients, and tells `sums`
// when it has these beside the hidden layer, and then, in its place, its
// gradient; returns with the gradient of the relation after its relu. `a` is it
// before.
template <typename S, typename Soften, typename Sums>
__device__ void go_back(const Lane<S>& lane, const SharedWeights<S>& weights,
                        const float* table, Told<S>& told, const Share& a,
                        Share& grad_a, Soften soften, Sums& sums) {
  using T = typename S::T;
  Right<T> factors[2];
  told.relation.put(lane, 0, left_of<T, true>(a));
  wait_for_team(lane);
  Share hidden;
  start_hidden(lane, table, hidden);
#pragma unroll
  for (int step = 0; step < S::kSteps; ++step) {
    weights.hidden(lane, step, factors);
    const Left<T> left = told.relation.get(lane, 0, step);
    multiply<T>(hidden[0], left, factors[0]);
    multiply<T>(hidden[1], left, factors[1]);
  }
  told.hidden.put(lane, 0, left_of<T, true>(hidden));
  wait_for_team(lane);
  float logits[4] = {};
#pragma unroll
  for (int step = 0; step < S::kSteps; ++step) {
    weights.logits(lane, step, factors[0]);
    multiply<T>(logits, told.hidden.get(lane, 0, step), factors[0]);
  }
  soften(logits);
  told.grad_logits.put_half(lane, logits);
  wait_for_team(lane);
  sums.add_logits(lane, told);
  Share grad_hidden = {};
#pragma unroll
  for (int step = 0; step < Told<S>::kHalves; ++step) {
    weights.grad_hidden(lane, step, factors);
    const Left<T> left = told.grad_logits.get(lane, 0, step);
    multiply<T>(grad_hidden[0], left, factors[0]);
    multiply<T>(grad_hidden[1], left, factors[1]);
  }
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      grad_hidden[n][i] = relu_gradient(hidden[n][i], grad_hidden[n][i]);
  told.hidden.put(lane, 0, left_of<T, false>(grad_hidden));
  sums.add_hidden(lane, told);
  wait_for_team(lane);
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) grad_a[n][i] = 0;
#pragma unroll
  for (int step = 0; step < S::kSteps; ++step) {
    weights.grad_relation(lane, step, factors);
    const Left<T> left = told.hidden.get(lane, 0, step);
    multiply<T>(grad_a[0], left, factors[0]);
    multiply<T>(grad_a[1], left, factors[1]);
  }
}

// Two rows by two groups by the channels of each that a lane has.
template <typename S>
using Values = float[4][S::kOwn];

template <typename S>
__device__ void load_values(const Lane<S>& lane, const typename S::T* from,
                            int stride, const int (&pixels)[2],
                            Values<S>& values) {
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j) {
      Two<typename S::T> pair = {0, 0};
      if (pixels[row] >= 0)
        pair = two<typename S::T>(from + int64_t(pixels[row]) * stride +
                                  lane.value(j));
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
template <Own own, typename S>
__device__ void write_relation(const Lane<S>& lane, const Mapping& mapping,
                               const int (&pixels)[2], const Share& sums,
                               typename S::T* to) {
  constexpr float kSign = own == Own::kP ? 1 : -1;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    if (!lane.has(lane.channel(n))) continue;
    // Read again: no register is kept for it.
    const Two<float> scale = two<float>(mapping.scale + lane.channel(n));
#pragma unroll
    for (int row = 0; row < 2; ++row)
      if (pixels[row] >= 0)
        store_two(to + int64_t(pixels[row]) * S::F +
                      (own == Own::kP ? 0 : S::R) + lane.channel(n),
                  kSign * scale.first * sums[n][2 * row],
                  kSign * scale.second * sums[n][2 * row + 1]);
  }
}

// No gradient of the pixels' beta.
template <typename S>
__device__ void write_no_values(const Lane<S>& lane, const int (&pixels)[2],
                                typename S::T* to) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (pixels[row] < 0) continue;
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j)
      store_two(to + int64_t(pixels[row]) * S::F + 2 * S::R + lane.value(j), 0,
                0);
  }
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_GRADIENT_H_
