// The fused pairwise attention on tensor cores, backward.
//
// As in backward.cu the pairs are visited twice, by blocks that own p and by
// blocks that own q, so that every gradient is a gather with one writer; and
// the weights come from log_sum_exp. A block's pixels, halo and products are
// those of the forward: tensor_tile.h, tensor_gradient.h.
//
// Blocks of p, a fixed number of them, go through the tiles and keep the
// gradients of w1 and w2 in registers, of the table, scale and shift in shared
// memory: tensor_sums.h; sums.cu adds the parts. They make grad_output * output
// of each group, too, which the blocks of q read.
//
// Read are the features, grad_output, output and log_sum_exp, for each tile
// once; written are grad_features, the products [N H W, G] and the parts.
#include <algorithm>

#include "cuda_kernels/pairwise/tensor.h"
#include "cuda_kernels/pairwise/tensor_sums.h"

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

// Whether sums and factors leave registers for little else.
template <typename S>
constexpr bool kCrowded = S::kWarps * kParts<typename S::T> > 4;
// Blocks that a multiprocessor shall have registers for.
template <typename S>
constexpr int kBlocks = S::kWarps > 4 ? 1 : 2;

// ---- Blocks that own p.

template <typename S>
struct MemoryOfP {
  using T = typename S::T;
  static constexpr int kCopied = S::R + (S::kFar ? 0 : S::M);
  static constexpr int kPitch = pitch_of_bytes<T>(sizeof(T) * kCopied);
  // Of its gradient; beside the largest weights there is no room for it, and a
  // team alone may add to its block's part.
  static constexpr bool kHasTable = !kIsSplit<T> || S::kWarps <= 4;

  SAN_HOST_DEVICE MemoryOfP(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory), weights(memory), told(memory), vectors(memory) {
    if (kHasTable) table = memory.take<float>(S::kTeams * tiling.taps() * S::R);
  }

  Halo<S, Own::kP, kPitch> halo;
  SharedWeights<S> weights;
  Told<S> told;
  VectorSums<S> vectors;
  float* table = nullptr;  // [team, K, R]
};

// The tile's pixels: the gradient of phi, and sums for the mapping's; those of
// the table to `grad_table` [K, R].
template <typename S, typename Element>
__device__ void visit_p(const BackwardProblem<S>& problem, const Lane<S>& lane,
                        MemoryOfP<S>& memory, MappingSums<S>& sums,
                        Element* grad_table) {
  using T = typename S::T;
  const auto& halo = memory.halo;
  const Pixels<S> pixels(lane, halo);
  Relation<S, Own::kP> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  Values<S> grad_output;
  load_values(lane, problem.grad_output, S::M, pixels.of, grad_output);
  float products[4] = {}, lowest[4];
#pragma unroll
  for (int row = 0; row < 2; ++row)
#pragma unroll
    for (int j = 0; j < S::kOwn && pixels.of[row] >= 0; ++j) {
      const Two<T> output = two<T>(
          problem.output + int64_t(pixels.of[row]) * S::M + lane.value(j));
      products[2 * row] += grad_output[2 * row][j] * output.first;
      products[2 * row + 1] += grad_output[2 * row + 1][j] * output.second;
    }
  join_groups<S>(products);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    lowest[i] = 0;
    if (pixels.of[i / 2] < 0) continue;
    const int64_t at = int64_t(pixels.of[i / 2]) * S::G + lane.weight() + i % 2;
    lowest[i] = problem.log_sum_exp[at] * kLog2OfE;
    if (lane.leads()) problem.products[at] = products[i];
  }
  Share total = {}, with_psi = {};
  const float* table = problem.mapping.table + lane.channel(0);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, pixels, tap);
    Share a, psi, grad_a;
    relation.of(lane, pairs.others, a, psi);
    SumsOfTap<S, Element> at_tap{sums, grad_table + tap.index * S::R};
    go_back(
        lane, memory.weights, table + tap.index * S::R, memory.told, a, grad_a,
        [&](float (&logits)[4]) {
          float grads[4] = {};
#pragma unroll
          for (int row = 0; row < 2; ++row)
#pragma unroll
            for (int j = 0; j < S::kOwn; ++j) {
              const Two<T> beta = pairs.two_at(row, sizeof(T) * S::R,
                                               problem.features + 2 * S::R,
                                               S::F, lane.value(j));
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
        at_tap);
    // Once more, where registers have no room for it meanwhile.
    if constexpr (kCrowded<S>) relation.of(lane, pairs.others, a, psi);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float grad = relu_gradient(a[n][i], grad_a[n][i]);
        total[n][i] += grad;
        with_psi[n][i] += grad * psi[n][i];
      }
  }
  write_relation<Own::kP>(lane, problem.mapping, pixels.of, total,
                          problem.grad_features);
  memory.vectors.add(lane, problem.features, pixels.of, total, with_psi);
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, kBlocks<S>)
    attend_backward_p(BackwardProblem<S> problem) {
  using M = MemoryOfP<S>;
  Arena arena(shared_memory());
  M memory(problem.tiling, arena);
  const Lane<S> lane;
  memory.weights.load(problem.mapping);
  memory.vectors.clear();
  MappingSums<S> sums = {};
  const int table = problem.tiling.taps() * S::R;
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
#pragma unroll 1
  for (int i = threadIdx.x; i < S::kTeams * table; i += S::kThreads) {
    if constexpr (M::kHasTable)
      memory.table[i] = 0;
    else
      part[at.table + i] = 0;
  }
  const auto visit = [&](auto* grad_table) {
    for_each_tile<M::kCopied, S>(
        problem.tiles, problem.features + S::R, memory,
        [&] { visit_p(problem, lane, memory, sums, grad_table); });
  };
  if constexpr (M::kHasTable)
    visit(memory.table + lane.team * table);
  else
    visit(part + at.table);
  write_in_turn(lane, part, [&](auto add) {
    memory.vectors.write(lane, at, add);
    sums.write(lane, at, add);
  });
  if constexpr (M::kHasTable)
    write_table<S>(memory.table, table, part + at.table);
}

// ---- Blocks that own q.

template <typename S>
struct MemoryOfQ {
  using T = typename S::T;
  // Of a pixel: phi, and unless they are far the gradient of the output, and
  // for each group the logarithm and the product.
  static constexpr int kGrads = sizeof(T) * S::R,
                       kLogarithms = kGrads + sizeof(T) * S::M,
                       kProducts = kLogarithms + 4 * S::G,
                       kEnd = S::kFar ? kGrads : kProducts + 4 * S::G,
                       kPitch = pitch_of_bytes<T>(kEnd);

  SAN_HOST_DEVICE MemoryOfQ(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory), weights(memory), told(memory) {}

  Halo<S, Own::kQ, kPitch> halo;
  SharedWeights<S> weights;
  Told<S> told;
};

// The tile's pixels: the gradients of psi and beta.
template <typename S>
__device__ void visit_q(const BackwardProblem<S>& problem, const Lane<S>& lane,
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
  NoSums<S> sums;
  const float* problem_products = problem.products;
  const float* table = problem.mapping.table + lane.channel(0);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, pixels, tap);
    Share a, phi, grad_a;
    relation.of(lane, pairs.others, a, phi);
    go_back(
        lane, memory.weights, table + tap.index * S::R, memory.told, a, grad_a,
        [&](float (&logits)[4]) {
          float grads[4] = {}, weight[4];
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            const Two<float> logarithms = pairs.two_at(
                row, M::kLogarithms, problem.log_sum_exp, S::G, lane.weight());
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
              const Two<T> grad = pairs.two_at(
                  row, M::kGrads, problem.grad_output, S::M, lane.value(j));
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
            const Two<float> products = pairs.two_at(
                row, M::kProducts, problem_products, S::G, lane.weight());
            const int i = 2 * row;
            const bool pair = pairs.times[row] > 0;
            logits[i] = pair ? weight[i] * (grads[i] - products.first) : 0;
            logits[i + 1] =
                pair ? weight[i + 1] * (grads[i + 1] - products.second) : 0;
          }
        },
        sums);
    if constexpr (kCrowded<S>) relation.of(lane, pairs.others, a, phi);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        total[n][i] += relu_gradient(a[n][i], grad_a[n][i]);
  }
  write_relation<Own::kQ>(lane, problem.mapping, pixels.of, total,
                          problem.grad_features);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    if (pixels.of[row] < 0) continue;
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j)
      store_two(problem.grad_features + int64_t(pixels.of[row]) * S::F +
                    2 * S::R + lane.value(j),
                grad_beta[2 * row][j], grad_beta[2 * row + 1][j]);
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, kBlocks<S>)
    attend_backward_q(BackwardProblem<S> problem) {
  using M = MemoryOfQ<S>;
  Arena arena(shared_memory());
  M memory(problem.tiling, arena);
  const auto& halo = memory.halo;
  memory.halo.begin(blockIdx.x);
  halo.template copy<0, S::F, S::R>(problem.features);
  if constexpr (!S::kFar) {
    halo.template copy<M::kGrads, S::M, S::M>(problem.grad_output);
    halo.template copy<M::kLogarithms, S::G, S::G>(problem.log_sum_exp);
    halo.template copy<M::kProducts, S::G, S::G>(
        static_cast<const float*>(problem.products));
  }
  commit_copies();
  memory.weights.load(problem.mapping);
  wait_copies<0>();
  __syncthreads();
  visit_q(problem, Lane<S>(), memory);
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
        return backward<decltype(sizes)>(task, workspace, stream);
      });
  });
}

}  // namespace san::pairwise
