// The moments of the relation of the fused pairwise attention on tensor cores,
// and their gradient. tensor_tile.h has the plan; halos have phi or psi alone.
//
// Forward a block goes through tiles, and keeps the second moments, sums over
// pairs of c c^T with c = a - centre, as products over the pairs in registers,
// the first ones, offset by offset, in shared memory; it writes its part once.
// Both factors are rounded, one of them after it was multiplied by how often
// the pair counts. Backward the blocks own p, then q, and make the gradient
// grad_first[o] + grad_second a of the relation by products over channels.
//
// Read are phi and psi, for each tile once; written are the parts, that sums.cu
// adds, and grad_features.
#include <algorithm>

#include "cuda_kernels/pairwise/tensor.h"
#include "cuda_kernels/pairwise/tensor_sums.h"

namespace san::pairwise {
namespace {

template <typename S, Own own>
using RelationHalo =
    Halo<S, own, pitch_of_bytes<typename S::T>(sizeof(typename S::T) * S::R)>;

// ---- Moments of c.

template <typename S>
struct MomentsProblem {
  using T = typename S::T;
  Tiling tiling;
  int64_t tiles;
  Parts parts;
  const T* features;
  Mapping mapping;
  const float* centre;
};

template <typename S>
struct MomentsMemory {
  SAN_HOST_DEVICE MomentsMemory(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory),
        about(memory),
        counted(memory),
        table(memory.take<float>(S::kTeams * tiling.taps() * S::R)) {}

  RelationHalo<S, Own::kP> halo;
  Sheets<S, S::kWarps, 2> about, counted;
  float* table;  // first moments, [team, K, R]
};

template <typename S>
struct SecondMoments {
  using T = typename S::T;

  __device__ void add(const Lane<S>& lane, const MomentsMemory<S>& memory,
                      int stage, float* table) {
    const Left<T> counted = memory.counted.transposed(lane, stage, lane.warp);
    add_to_table(lane, counted, table);
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      const Left<T> about = memory.about.transposed(lane, stage, step);
#pragma unroll
      for (int n = 0; n < 2; ++n)
        multiply<T>(sums[2 * step + n], counted, columns_of<T>(about, n));
    }
  }

  template <typename Add>
  __device__ void write(const Lane<S>& lane, int64_t at, Add add) const {
#pragma unroll
    for (int n = 0; n < 2 * S::kSteps; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = kChannels * lane.warp + lane.group + i / 2 * 8;
        const int column = 8 * n + 2 * lane.member + i % 2;
        if (lane.has(row) && lane.has(column))
          add(at + row * S::R + column, sums[n][i]);
      }
  }

  float sums[2 * S::kSteps][4];
};

template <typename S>
__device__ void visit(const MomentsProblem<S>& problem, const Lane<S>& lane,
                      const float (&centre)[2][2], MomentsMemory<S>& memory,
                      SecondMoments<S>& moments) {
  using T = typename S::T;
  const auto& halo = memory.halo;
  const Pixels<S> pixels(lane, halo);
  Relation<S, Own::kP> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, pixels, tap);
    Share a, psi, counted;
    relation.of(lane, pairs.others, a, psi);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool pair = pairs.times[i / 2] > 0 && lane.has(lane.channel(n));
        a[n][i] = pair ? relu(a[n][i]) - centre[n][i % 2] : 0;
        counted[n][i] = pairs.times[i / 2] * a[n][i];
      }
    const int stage = tap.index % 2;
    memory.about.put(lane, stage, left_of<T, false>(a));
    memory.counted.put(lane, stage, left_of<T, false>(counted));
    warp_sync();
    wait_for_team(lane);
    moments.add(
        lane, memory, stage,
        memory.table + (lane.team * problem.tiling.taps() + tap.index) * S::R);
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kWarps > 4 ? 1 : 3)
    sum_moments_tensor(MomentsProblem<S> problem) {
  Arena arena(shared_memory());
  MomentsMemory<S> memory(problem.tiling, arena);
  const Lane<S> lane;
  float centre[2][2];
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      centre[n][i] =
          lane.has(lane.channel(n)) ? problem.centre[lane.channel(n) + i] : 0;
  SecondMoments<S> moments = {};
  const int table = problem.tiling.taps() * S::R;
#pragma unroll 1
  for (int i = threadIdx.x; i < S::kTeams * table; i += S::kThreads)
    memory.table[i] = 0;
  for_each_tile<S::R, S>(problem.tiles, problem.features + S::R, memory, [&] {
    visit(problem, lane, centre, memory, moments);
  });
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  write_in_turn(lane, part, [&](auto add) { moments.write(lane, at.w1, add); });
  write_table<S>(memory.table, table, part + at.table);
}

template <typename S>
bool moments(const PairwiseMoments& task, void* workspace, void* stream) {
  using T = typename S::T;
  if (!on_boundary(task.features) ||
      !has_tiles<S, MomentsMemory<S>>(task.shape))
    return false;
  const int64_t tiles = tiles_of<S>(task.shape);
  Parts parts(TensorMoments{task.shape}, workspace);
  parts.count = std::min(parts.count, tiles);
  launch_on_tiles<S, MomentsMemory<S>>(
      &sum_moments_tensor<S>,
      MomentsProblem<S>{{},
                        tiles,
                        parts,
                        static_cast<const T*>(task.features),
                        mapping_of({nullptr, task.scale, task.shift, nullptr,
                                    nullptr, nullptr}),
                        static_cast<const float*>(task.centre)},
      task.shape, parts.count, stream);
  const int K = static_cast<int>(task.shape.taps());
  add_parts(parts,
            {{parts.at.table, K, S::R, false, false, task.first},
             {parts.at.w1, S::R, S::R, false, true, task.second}},
            ScalarType::kFloat64, stream);
  return true;
}

// ---- Their gradient.

template <typename S>
struct SpreadProblem {
  using T = typename S::T;
  Tiling tiling;
  int64_t tiles;
  Parts parts;
  const T* features;
  Mapping mapping;  // grad_first and grad_second in place of table and w1
  T* grad_features;
};

template <typename S, Own own>
struct SpreadMemory {
  SAN_HOST_DEVICE SpreadMemory(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory), relation(memory), vectors(memory) {}

  RelationHalo<S, own> halo;
  Exchange<S, 2> relation;
  VectorSums<S> vectors;
};

template <typename S, Own own>
__device__ void visit(const SpreadProblem<S>& problem, const Lane<S>& lane,
                      const Weights<S>& weights, SpreadMemory<S, own>& memory) {
  using T = typename S::T;
  const auto& halo = memory.halo;
  const Pixels<S> pixels(lane, halo);
  Relation<S, own> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  Share total = {}, with_other = {};
  const float* table = problem.mapping.table + lane.channel(0);
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const Pairs<S> pairs(lane, halo, pixels, tap);
    Share a, other, grad;
    relation.of(lane, pairs.others, a, other);
    memory.relation.put(lane, tap.index % 2, left_of<T, true>(a));
    wait_for_team(lane);
    start_hidden(lane, table + tap.index * S::R, grad);
    weights.add_hidden(lane, memory.relation, tap.index % 2, grad);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float count = pairs.times[i / 2];
        const float g =
            count > 0 ? relu_gradient(a[n][i], grad[n][i] * count) : 0;
        total[n][i] += g;
        if (own == Own::kP) with_other[n][i] += g * other[n][i];
      }
  }
  write_relation<own>(lane, problem.mapping, pixels.of, total,
                      problem.grad_features);
  if (own == Own::kP)
    memory.vectors.add(lane, problem.features, pixels.of, total, with_other);
  else
    write_no_values(lane, pixels.of, problem.grad_features);
}

template <typename S, Own own>
__global__ void __launch_bounds__(S::kThreads, S::kWarps > 4 ? 1
                                               : S::kFar     ? 3
                                                             : 4)
    spread_moments_tensor(SpreadProblem<S> problem) {
  Arena arena(shared_memory());
  SpreadMemory<S, own> memory(problem.tiling, arena);
  const Lane<S> lane;
  Weights<S> weights;
  weights.load_w1(lane, problem.mapping);
  memory.vectors.clear();
  for_each_tile<S::R, S>(problem.tiles,
                         problem.features + (own == Own::kP ? S::R : 0), memory,
                         [&] { visit(problem, lane, weights, memory); });
  if (own == Own::kQ) return;
  write_in_turn(lane, problem.parts.part(blockIdx.x), [&](auto add) {
    memory.vectors.write(lane, problem.parts.at, add);
  });
}

template <typename S>
bool spread(const PairwiseMomentsBackward& task, void* workspace,
            void* stream) {
  using T = typename S::T;
  if (!on_boundary(task.features) || !on_boundary(task.grad_features) ||
      !has_tiles<S, SpreadMemory<S, Own::kP>>(task.shape))
    return false;
  const int64_t tiles = tiles_of<S>(task.shape);
  Parts parts(task, workspace);
  parts.count = std::min(parts.count, tiles);
  const SpreadProblem<S> problem = {
      {},
      tiles,
      parts,
      static_cast<const T*>(task.features),
      mapping_of({nullptr, task.scale, task.shift, task.grad_first,
                  task.grad_second, nullptr}),
      static_cast<T*>(task.grad_features)};
  launch_on_tiles<S, SpreadMemory<S, Own::kP>>(
      &spread_moments_tensor<S, Own::kP>, problem, task.shape, parts.count,
      stream);
  launch_on_tiles<S, SpreadMemory<S, Own::kQ>>(
      &spread_moments_tensor<S, Own::kQ>, problem, task.shape, 0, stream);
  add_parts(parts,
            {{parts.at.first, 1, S::R, false, false, task.grad_scale},
             {parts.at.second, 1, S::R, false, false, task.grad_shift}},
            ScalarType::kFloat32, stream);
  return true;
}

// The sizes of a task that knows R and F, and calls its groups 1.
template <typename Task>
PairwiseShape grouped(const Task& task) {
  PairwiseShape shape = task.shape;
  shape.weight_channels = shape.relation_channels / 2;
  return shape;
}

template <typename Task, typename Run>
bool run_typed(const Task& task, Run run) {
  return with_tensor_type(task.type, false, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsTf32<T>)
      return false;
    else
      return with_sizes<T>(grouped(task), run);
  });
}

}  // namespace

bool run_on_tensor_cores(const PairwiseMoments& task, void* workspace,
                         void* stream) {
  return run_typed(task, [&](auto sizes) {
    return moments<decltype(sizes)>(task, workspace, stream);
  });
}

bool run_on_tensor_cores(const PairwiseMomentsBackward& task, void* workspace,
                         void* stream) {
  return run_typed(task, [&](auto sizes) {
    return spread<decltype(sizes)>(task, workspace, stream);
  });
}

}  // namespace san::pairwise
