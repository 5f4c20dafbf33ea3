// The fused pairwise attention on tensor cores: sums over the whole batch. For
// .cu files only.
//
// A fixed number of blocks go through the tiles, and keep their sums meanwhile
// in registers or in shared memory. At the end each adds what its teams have,
// in order, and writes a part once.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_SUMS_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_SUMS_H_

#include "cuda_kernels/pairwise/sums.h"
#include "cuda_kernels/pairwise/tensor_gradient.h"

namespace san::pairwise {
namespace {

// Calls visit() for each tile of the block, with kCount elements of each pixel
// of its halo, the first of which is the first in `from`.
template <int kCount, typename S, typename Memory, typename Visit>
__device__ void for_each_tile(int64_t tiles, const typename S::T* from,
                              Memory& memory, Visit visit) {
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    memory.halo.begin(static_cast<unsigned>(tile));
    memory.halo.template copy<0, S::F, kCount>(from);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    visit();
    __syncthreads();
  }
}

// The sums of the gradients of scale and shift, over all tiles. Of its member's
// four channels a lane has one of the eight, that of its group, in shared
// memory.
template <typename S>
class VectorSums {
 public:
  using T = typename S::T;

  SAN_HOST_DEVICE explicit VectorSums(Arena& memory)
      : sums_(memory.take<float>(S::kThreads)) {}
  __device__ void clear() const { sums_[threadIdx.x] = 0; }

  // Adds those of two pixels p, from their sums of the gradient of the relation
  // and of that times psi.
  __device__ void add(const Lane<S>& lane, const T* features,
                      const int (&pixels)[2], const Share& sums,
                      const Share& with_psi) const {
    float x[8] = {};  // scale and shift, by n, by which of two
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        Two<T> phi = {0, 0};
        if (pixels[row] >= 0 && lane.has(lane.channel(n)))
          phi =
              two<T>(features + int64_t(pixels[row]) * S::F + lane.channel(n));
        const int i = 2 * row;
        x[2 * n] += phi.first * sums[n][i] - with_psi[n][i];
        x[2 * n + 1] += phi.second * sums[n][i + 1] - with_psi[n][i + 1];
        x[4 + 2 * n] += sums[n][i];
        x[4 + 2 * n + 1] += sums[n][i + 1];
      }
    // Each exchange leaves a lane half of what it had, of twice as many pixels.
#pragma unroll
    for (int half = 4; half > 0; half /= 2)
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const bool high = lane.group & half;
        const float give = high ? x[i] : x[i + half];
        x[i] = (high ? x[i + half] : x[i]) + shuffle_xor(give, 4 * half);
      }
    sums_[threadIdx.x] += x[0];
  }

  template <typename Add>
  __device__ void write(const Lane<S>& lane, const PairwisePart& at,
                        Add add) const {
    const int channel = lane.channel(lane.group / 2 % 2) + lane.group % 2;
    if (lane.has(channel))
      add((lane.group < 4 ? at.first : at.second) + channel,
          sums_[threadIdx.x]);
  }

 private:
  float* sums_;
};

// table [R] += the sum over the pairs of a transposed tile, of the warp's own
// channels.
template <typename S, typename Element>
__device__ void add_to_table(const Lane<S>& lane,
                             const Left<typename S::T>& transposed,
                             Element* table) {
  using T = typename S::T;
  const float one = lane.group == 0 ? 1 : 0;
  const uint32_t ones = rounded_pair<Factor<T>>(one, one);
  float sums[4] = {};
#pragma unroll
  for (int part = kParts<T> - 1; part >= 0; --part)
    multiply_16x8x16<Factor<T>>(sums, part_of<4>(transposed, part),
                                {ones, ones});
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int channel = kChannels * lane.warp + lane.group + 8 * row;
    if (lane.member == 0 && lane.has(channel)) table[channel] += sums[2 * row];
  }
}

// A lane's sums of the gradients of the mapping, over all tiles.
template <typename S>
struct MappingSums {
  using T = typename S::T;

  // Adds those of 16 pairs at an offset.
  __device__ void add_logits(const Lane<S>& lane, const Told<S>& told) {
    warp_sync();
    const Left<T> hidden = told.hidden.transposed(lane, 0, lane.warp);
#pragma unroll
    for (int step = 0; step < Told<S>::kHalves; ++step) {
      const Left<T> logits = told.grad_logits.transposed(lane, 0, step);
#pragma unroll
      for (int n = 0; n < 2 && 2 * step + n < S::kWarps; ++n)
        multiply<T>(w2[2 * step + n], hidden, columns_of<T>(logits, n));
    }
    warp_sync();
  }
  template <typename Element>
  __device__ void add_hidden(const Lane<S>& lane, const Told<S>& told,
                             Element* table) {
    warp_sync();
    const Left<T> grad = told.hidden.transposed(lane, 0, lane.warp);
    add_to_table(lane, grad, table);
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      const Left<T> a = told.relation.transposed(lane, 0, step);
#pragma unroll
      for (int n = 0; n < 2; ++n)
        multiply<T>(w1[2 * step + n], grad, columns_of<T>(a, n));
    }
  }

  template <typename Add>
  __device__ void write(const Lane<S>& lane, const PairwisePart& at,
                        Add add) const {
    const int first = kChannels * lane.warp + lane.group;
#pragma unroll
    for (int n = 0; n < 2 * S::kSteps; ++n) {
      warp_sync();  // else the compiler would convert all at once
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = first + i / 2 * 8;
        const int column = 8 * n + 2 * lane.member + i % 2;
        if (lane.has(row) && lane.has(column))
          add(at.w1 + row * S::R + column, w1[n][i]);
      }
    }
#pragma unroll
    for (int n = 0; n < S::kWarps; ++n) {
      warp_sync();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = first + i / 2 * 8;
        const int group = 8 * n + 2 * lane.member + i % 2;
        if (lane.has(row) && group < S::G)
          add(at.w2 + group * S::R + row, w2[n][i]);
      }
    }
  }

  float w1[2 * S::kSteps][4], w2[S::kWarps][4];  // that of w2 transposed
};

// What adds the sums of an offset, and the table's to a row of it.
template <typename S, typename Element>
struct SumsOfTap {
  __device__ void add_logits(const Lane<S>& lane, const Told<S>& told) {
    sums.add_logits(lane, told);
  }
  __device__ void add_hidden(const Lane<S>& lane, const Told<S>& told) {
    sums.add_hidden(lane, told, row);
  }

  MappingSums<S>& sums;
  Element* row;
};

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

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_SUMS_H_
