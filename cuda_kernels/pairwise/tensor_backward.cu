// The fused pairwise attention on tensor cores, backward.
//
// As in backward.cu the pairs are visited twice, by blocks that own p and by
// blocks that own q, so that every gradient is a gather with one writer; and
// the weights come from log_sum_exp. A block's pixels, halo and products are
// those of the forward: tensor_tile.h, tensor_gradient.h.
//
// Blocks of p, a fixed number of them, go through the tiles and keep the
// gradients of w1 and w2 in registers, of the table and, at the end, of scale
// and shift in shared memory or registers: a block adds what its teams have, in
// order, and writes a part once; sums.cu adds the parts. They make
// grad_output * output of each group, too, which the blocks of q read.
//
// Read are the features, grad_output, output and log_sum_exp, for each tile
// once; written are grad_features, the products [N H W, G] and the parts.
#include <algorithm>

#include "cuda_kernels/pairwise/sums.h"
#include "cuda_kernels/pairwise/tensor.h"
#include "cuda_kernels/pairwise/tensor_gradient.h"

namespace san::pairwise {
namespace {

template <typename S>
struct BackwardProblem {
  using T = typename S::T;
  Tiling tiling;
  int64_t tiles;
  Parts parts;
  const T* features;
  Mapping mapping;
  const T *grad_output, *output;
  const float* log_sum_exp;
  float* products;
  T* grad_features;
};

// ---- Blocks that own p.

template <typename S>
struct MemoryOfP {
  using T = typename S::T;
  static constexpr int kPitch = pitch_of_bytes<T>(sizeof(T) * (S::R + S::M));

  SAN_HOST_DEVICE MemoryOfP(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory),
        told(memory),
        table(memory.take<float>(S::kTeams * tiling.taps() * S::R)) {}

  Halo<S, Own::kP, kPitch> halo;
  Told<S> told;
  float* table;  // its gradient, [team, K, R]
};

// A lane's sums of the gradients of the mapping, over all tiles.
template <typename S>
struct MappingSums {
  using T = typename S::T;

  // Adds those of 16 pairs at an offset; the last that is told is the warp's
  // own gradient of the hidden layer.
  __device__ void add(const Lane<S>& lane, const Told<S>& told, float* table) {
    warp_sync();
    const Left<T> grad = told.grad_hidden.transposed(lane, 0, lane.warp);
    add_to_table(lane, grad, table);
    const Left<T> hidden = told.hidden.transposed(lane, 0, lane.warp);
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      const Left<T> a = told.relation.transposed(lane, 0, step);
#pragma unroll
      for (int n = 0; n < 2; ++n)
        multiply<T>(w1[2 * step + n], grad, columns_of<T>(a, n));
    }
#pragma unroll
    for (int step = 0; step < Told<S>::kHalves; ++step) {
      const Left<T> logits = told.grad_logits.transposed(lane, 0, step);
#pragma unroll
      for (int n = 0; n < 2 && 2 * step + n < S::kWarps; ++n)
        multiply<T>(w2[2 * step + n], hidden, columns_of<T>(logits, n));
    }
  }

  template <typename Add>
  __device__ void write(const Lane<S>& lane, const PairwisePart& at,
                        Add add) const {
    vectors.write(lane, at, add);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = kChannels * lane.warp + lane.group + i / 2 * 8;
      if (!lane.has(row)) continue;
#pragma unroll
      for (int n = 0; n < 2 * S::kSteps; ++n) {
        const int column = 8 * n + 2 * lane.member + i % 2;
        if (lane.has(column)) add(at.w1 + row * S::R + column, w1[n][i]);
      }
#pragma unroll
      for (int n = 0; n < S::kWarps; ++n) {
        const int group = 8 * n + 2 * lane.member + i % 2;
        if (group < S::G) add(at.w2 + group * S::R + row, w2[n][i]);
      }
    }
  }

  VectorSums<S> vectors;
  float w1[2 * S::kSteps][4], w2[S::kWarps][4];  // that of w2 transposed
};

// The tile's pixels: the gradient of phi, and sums for the mapping's.
template <typename S>
__device__ void visit_p(const BackwardProblem<S>& problem, const Lane<S>& lane,
                        const Weights<S>& weights,
                        const BackwardWeights<S>& backward,
                        MemoryOfP<S>& memory, MappingSums<S>& sums) {
  using T = typename S::T;
  const auto& halo = memory.halo;
  const Pixels<S> pixels(lane, halo);
  Relation<S, Own::kP> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  Values<S> grad_output, output;
  load_values(lane, problem.grad_output, S::M, pixels.of, grad_output);
  load_values(lane, problem.output, S::M, pixels.of, output);
  float products[4] = {}, lowest[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j)
      products[i] += grad_output[i][j] * output[i][j];
    const int64_t at = pixels.of[i / 2] * S::G + lane.weight() + i % 2;
    lowest[i] = pixels.of[i / 2] < 0 ? 0 : problem.log_sum_exp[at] * kLog2OfE;
  }
  join_groups<S>(products);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (pixels.of[i / 2] >= 0 && lane.leads())
      problem.products[pixels.of[i / 2] * S::G + lane.weight() + i % 2] =
          products[i];
  Share total = {}, with_psi = {};
  const float* table = problem.mapping.table + lane.channel(0);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, tap);
    Share a, psi, grad_a;
    relation.of(lane, pairs.others, a, psi);
    go_back(
        lane, weights, backward, table + tap.index * S::R, memory.told, a,
        grad_a,
        [&](float (&logits)[4]) {
          float grads[4] = {};
#pragma unroll
          for (int row = 0; row < 2; ++row)
#pragma unroll
            for (int j = 0; j < S::kOwn; ++j) {
              const Two<T> beta = two<T>(pairs.others[row] +
                                         sizeof(T) * (S::R + lane.value(j)));
              grads[2 * row] += grad_output[2 * row][j] * beta.first;
              grads[2 * row + 1] += grad_output[2 * row + 1][j] * beta.second;
            }
          join_groups<S>(grads);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float weight = pairs.times[i / 2] *
                                 power_of_two(logits[i] * kLog2OfE - lowest[i]);
            logits[i] =
                pairs.times[i / 2] > 0 ? weight * (grads[i] - products[i]) : 0;
          }
        },
        [&] {
          sums.add(lane, memory.told,
                   memory.table +
                       (lane.team * problem.tiling.taps() + tap.index) * S::R);
        });
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[n][i] += grad_a[n][i];
        with_psi[n][i] += grad_a[n][i] * psi[n][i];
      }
  }
  write_relation(lane, relation, pixels.of, total, problem.grad_features);
  sums.vectors.add(lane, problem.features, pixels.of, total, with_psi);
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 2)
    attend_backward_p(BackwardProblem<S> problem) {
  Arena arena(shared_memory());
  MemoryOfP<S> memory(problem.tiling, arena);
  const Lane<S> lane;
  Weights<S> weights;
  weights.load(lane, problem.mapping);
  BackwardWeights<S> backward;
  backward.load(lane, problem.mapping);
  MappingSums<S> sums = {};
  const int table = problem.tiling.taps() * S::R;
#pragma unroll 1
  for (int i = threadIdx.x; i < S::kTeams * table; i += S::kThreads)
    memory.table[i] = 0;
  for (int64_t tile = blockIdx.x; tile < problem.tiles; tile += gridDim.x) {
    memory.halo.begin(static_cast<unsigned>(tile));
    memory.halo.template copy<0, S::F, S::R + S::M>(problem.features + S::R);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    visit_p(problem, lane, weights, backward, memory, sums);
    __syncthreads();
  }
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  sums.vectors.join();
  write_in_turn(lane, part, [&](auto add) { sums.write(lane, at, add); });
  write_table<S>(memory.table, table, part + at.table);
}

// ---- Blocks that own q.

template <typename S>
struct MemoryOfQ {
  using T = typename S::T;
  // Of a pixel: phi, the gradient of the output, and for each group the
  // logarithm and the product.
  static constexpr int kGrads = sizeof(T) * S::R,
                       kLogarithms = kGrads + sizeof(T) * S::M,
                       kProducts = kLogarithms + 4 * S::G,
                       kPitch = pitch_of_bytes<T>(kProducts + 4 * S::G);

  SAN_HOST_DEVICE MemoryOfQ(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory), told(memory) {}

  Halo<S, Own::kQ, kPitch> halo;
  Told<S> told;
};

// The tile's pixels: the gradients of psi and beta.
template <typename S>
__device__ void visit_q(const BackwardProblem<S>& problem, const Lane<S>& lane,
                        const Weights<S>& weights,
                        const BackwardWeights<S>& backward,
                        MemoryOfQ<S>& memory) {
  using T = typename S::T;
  using M = MemoryOfQ<S>;
  const auto& halo = memory.halo;
  const Pixels<S> pixels(lane, halo);
  Relation<S, Own::kQ> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  Values<S> beta, grad_beta = {};
  load_values(lane, problem.features + 2 * S::R, S::F, pixels.of, beta);
  Share total = {};
  const float* table = problem.mapping.table + lane.channel(0);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, tap);
    Share a, phi, grad_a;
    relation.of(lane, pairs.others, a, phi);
    go_back(
        lane, weights, backward, table + tap.index * S::R, memory.told, a,
        grad_a,
        [&](float (&logits)[4]) {
          float grads[4] = {}, weight[4];
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            const Two<float> logarithms = two<float>(
                pairs.others[row] + M::kLogarithms + 4 * lane.weight());
            const float x[2] = {logits[2 * row] - logarithms.first,
                                logits[2 * row + 1] - logarithms.second};
#pragma unroll
            for (int i = 0; i < 2; ++i)
              weight[2 * row + i] =
                  pairs.times[row] > 0
                      ? pairs.times[row] * power_of_two(x[i] * kLog2OfE)
                      : 0;
#pragma unroll
            for (int j = 0; j < S::kOwn; ++j) {
              const Two<T> grad = two<T>(pairs.others[row] + M::kGrads +
                                         sizeof(T) * lane.value(j));
              const int i = 2 * row;
              grads[i] += beta[i][j] * grad.first;
              grads[i + 1] += beta[i + 1][j] * grad.second;
              grad_beta[i][j] += weight[i] * grad.first;
              grad_beta[i + 1][j] += weight[i + 1] * grad.second;
            }
          }
          join_groups<S>(grads);
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            const Two<float> products = two<float>(
                pairs.others[row] + M::kProducts + 4 * lane.weight());
            const int i = 2 * row;
            const bool pair = pairs.times[row] > 0;
            logits[i] = pair ? weight[i] * (grads[i] - products.first) : 0;
            logits[i + 1] =
                pair ? weight[i + 1] * (grads[i + 1] - products.second) : 0;
          }
        },
        [] {});
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) total[n][i] += grad_a[n][i];
  }
  write_relation(lane, relation, pixels.of, total, problem.grad_features);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (pixels.of[row] < 0) continue;
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j)
      store_two(problem.grad_features + pixels.of[row] * S::F + 2 * S::R +
                    lane.value(j),
                grad_beta[2 * row][j], grad_beta[2 * row + 1][j]);
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 2)
    attend_backward_q(BackwardProblem<S> problem) {
  using M = MemoryOfQ<S>;
  Arena arena(shared_memory());
  M memory(problem.tiling, arena);
  const auto& halo = memory.halo;
  memory.halo.begin(blockIdx.x);
  halo.template copy<0, S::F, S::R>(problem.features);
  halo.template copy<M::kGrads, S::M, S::M>(problem.grad_output);
  halo.template copy<M::kLogarithms, S::G, S::G>(problem.log_sum_exp);
  halo.template copy<M::kProducts, S::G, S::G>(
      static_cast<const float*>(problem.products));
  commit_copies();
  const Lane<S> lane;
  Weights<S> weights;
  weights.load(lane, problem.mapping);
  BackwardWeights<S> backward;
  backward.load(lane, problem.mapping);
  wait_copies<0>();
  __syncthreads();
  visit_q(problem, lane, weights, backward, memory);
}

// ---- Both.

template <typename S>
bool backward(const PairwiseBackward& task, void* workspace, void* stream) {
  using T = typename S::T;
  const PairwiseShape& shape = task.shape;
  for (const void* data : {task.inputs.features, task.grad_output, task.output,
                           static_cast<const void*>(task.grad_features)})
    if (!on_boundary(data)) return false;
  if (!has_tiles<S, MemoryOfP<S>>(shape) || !has_tiles<S, MemoryOfQ<S>>(shape))
    return false;
  const int64_t tiles = tiles_of<S>(shape);
  Parts parts(TensorBackward{shape}, workspace);
  parts.count = std::min(parts.count, tiles);
  const BackwardProblem<S> problem = {
      {},
      tiles,
      parts,
      static_cast<const T*>(task.inputs.features),
      mapping_of(task.inputs),
      static_cast<const T*>(task.grad_output),
      static_cast<const T*>(task.output),
      static_cast<const float*>(task.log_sum_exp),
      reinterpret_cast<float*>(parts.part(parts.count)),
      static_cast<T*>(task.grad_features)};
  launch_on_tiles<S, MemoryOfP<S>>(&attend_backward_p<S>, problem, shape,
                                   parts.count, stream);
  launch_on_tiles<S, MemoryOfQ<S>>(&attend_backward_q<S>, problem, shape, 0,
                                   stream);
  add_parts(parts,
            {{parts.at.first, 1, S::R, false, false, task.grad_scale},
             {parts.at.second, 1, S::R, false, false, task.grad_shift},
             {parts.at.table, static_cast<int>(shape.taps()), S::R, false,
              false, task.grad_table},
             {parts.at.w1, S::R, S::R, false, false, task.grad_w1},
             {parts.at.w2, S::G, S::R, false, false, task.grad_w2}},
            ScalarType::kFloat32, stream);
  return true;
}

}  // namespace

bool run_on_tensor_cores(const PairwiseBackward& task, void* workspace,
                         void* stream) {
  return with_tensor_type(task.type, false, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsTf32<T>)
      return false;
    else
      return with_sizes<T>(task.shape, [&](auto sizes) {
        using S = decltype(sizes);
        if constexpr (S::kWarps > 4)
          return false;
        else
          return backward<S>(task, workspace, stream);
      });
  });
}

}  // namespace san::pairwise
