// The fused pairwise attention on tensor cores, forward.
//
// A lane makes the logits of two pixels and two groups, at one offset after the
// other, and so has all of each softmax by itself: it keeps their tops, the
// sums of e = exp(logit - top), and of e * beta for 8 channels of each group,
// in registers. What it has is scaled when a top rises by more than 2^8, which
// is seldom: e and the sums may be that much larger. tensor_tile.h has the
// plan. Nothing is shared between the products of a warp but what the warps of
// a team exchange, the relation and the hidden layer, rounded; the relation is
// made an offset ahead, so that a team waits once for each offset.
//
// Read are the features, phi once, the others once for each tile whose halo has
// them; written are the output and, for a backward, log_sum_exp.
#include "cuda_kernels/pairwise/tensor.h"
#include "cuda_kernels/pairwise/tensor_mapping.h"

namespace san::pairwise {
namespace {

constexpr float kLogOf2 = 0.693147181f;
constexpr float kLowest = -3.40282347e38f;

// Blocks that a multiprocessor shall have registers for: as many as spill none.
template <typename S>
constexpr int kBlocksOf = S::kTeams * S::kWarps > 4    ? 1
                          : sizeof(typename S::T) == 4 ? 2
                                                       : 4;

template <typename S>
struct AttendProblem {
  using T = typename S::T;
  Tiling tiling;
  const T* features;
  Mapping mapping;
  T* output;
  float* log_sum_exp;  // or null
};

template <typename S>
struct Memory {
  using T = typename S::T;
  static constexpr int kCopied = S::R + (S::kFar ? 0 : S::M);
  static constexpr int kPitch = pitch_of_bytes<T>(sizeof(T) * kCopied);

  SAN_HOST_DEVICE Memory(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory), relations(memory), hidden(memory) {}

  Halo<S, Own::kP, kPitch> halo;
  Exchange<S, 2> relations, hidden;
};

// The softmax of a lane, and its sums.
template <typename S>
class Softmax {
 public:
  using T = typename S::T;

  __device__ Softmax() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      top_[i] = kLowest;
      total_[i] = 0;
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) value_[i][j] = 0;
    }
  }

  // Adds a pair of each row.
  __device__ void add(const Lane<S>& lane, const float (&logits)[4],
                      const Pairs<S>& pairs, const T* features) {
    const auto& times = pairs.times;
    float x[4], above[4], e[4];
    bool much = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = logits[i] * kLog2OfE;
      above[i] = x[i] - top_[i];
      much |= (times[i / 2] > 0) & (above[i] > 8);
    }
    if (any(much)) raise(x, times, above);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float count = times[i / 2];
      e[i] = count > 0 ? count * power_of_two(above[i]) : 0;
      total_[i] += e[i];
    }
#pragma unroll
    for (int row = 0; row < 2; ++row)
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) {
        const Two<T> beta = pairs.two_at(
            row, sizeof(T) * S::R, features + 2 * S::R, S::F, lane.value(j));
        value_[2 * row][j] += e[2 * row] * beta.first;
        value_[2 * row + 1][j] += e[2 * row + 1] * beta.second;
      }
  }

  __device__ void write(const Lane<S>& lane, const AttendProblem<S>& problem,
                        const int (&pixels)[2]) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      if (pixels[row] < 0) continue;
      const int i = 2 * row;
      const float first = __fdividef(1, total_[i]);
      const float second = __fdividef(1, total_[i + 1]);
      T* output = problem.output + int64_t(pixels[row]) * S::M;
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j)
        store_two<T>(output + lane.value(j), value_[i][j] * first,
                     value_[i + 1][j] * second);
      if (!problem.log_sum_exp || !lane.leads()) continue;
      float* to =
          problem.log_sum_exp + int64_t(pixels[row]) * S::G + lane.weight();
      to[0] = (top_[i] + logarithm_to_two(total_[i])) * kLogOf2;
      to[1] = (top_[i + 1] + logarithm_to_two(total_[i + 1])) * kLogOf2;
    }
  }

 private:
  __device__ void raise(const float (&x)[4], const float (&times)[2],
                        float (&above)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool higher = times[i / 2] > 0 && above[i] > 0;
      const float keep = higher ? power_of_two(-above[i]) : 1;
      if (higher) {
        top_[i] = x[i];
        above[i] = x[i] - x[i];  // NaN for infinity
      }
      total_[i] *= keep;
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) value_[i][j] *= keep;
    }
  }

  float top_[4], total_[4];  // in powers of two
  float value_[4][S::kOwn];
};

template <typename S>
__device__ void attend(const AttendProblem<S>& problem, const Lane<S>& lane,
                       const Weights<S>& weights, Memory<S>& memory) {
  using T = typename S::T;
  auto& halo = memory.halo;
  const int k = problem.tiling.kernel_size;
  const Pixels<S> pixels(lane, halo);
  Relation<S, Own::kP> relation;
  relation.begin(lane, problem.mapping, problem.features, pixels.of);
  const float* table = problem.mapping.table + lane.channel(0);
  Softmax<S> softmax;
  Tap tap(halo.first_tap(), k), next = tap;
  Pairs<S> pairs(lane, halo, pixels, tap);
  const auto relate = [&](const Tap& tap) {
    Share a, psi;
    relation.of(lane, pairs.others, a, psi);
    memory.relations.put(lane, tap.index % 2, left_of<T, true>(a));
  };
  relate(tap);
  wait_for_team(lane);
  for (; tap.y < halo.end_tap(); tap = next) {
    ++next;
    Share hidden;
    start_hidden(lane, table + tap.index * S::R, hidden);
    weights.add_hidden(lane, memory.relations, tap.index % 2, hidden);
    memory.hidden.put(lane, tap.index % 2, left_of<T, true>(hidden));
    const Pairs<S> now = pairs;
    if (next.y < halo.end_tap()) {
      pairs = Pairs<S>(lane, halo, pixels, next);
      relate(next);
    }
    wait_for_team(lane);
    float logits[4] = {};
    weights.add_logits(lane, memory.hidden, tap.index % 2, logits);
    softmax.add(lane, logits, now, problem.features);
  }
  softmax.write(lane, problem, pixels.of);
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, kBlocksOf<S>)
    attend_tensor(AttendProblem<S> problem) {
  Arena arena(shared_memory());
  Memory<S> memory(problem.tiling, arena);
  memory.halo.begin(blockIdx.x);
  memory.halo.template copy<0, S::F, Memory<S>::kCopied>(problem.features +
                                                         S::R);
  commit_copies();
  const Lane<S> lane;
  Weights<S> weights;
  weights.load(lane, problem.mapping);
  wait_copies<0>();
  __syncthreads();
  attend(problem, lane, weights, memory);
}

template <typename S>
bool forward(const PairwiseForward& task, void* stream) {
  using T = typename S::T;
  if (!on_boundary(task.inputs.features) || !on_boundary(task.output) ||
      !has_tiles<S, Memory<S>>(task.shape))
    return false;
  launch_on_tiles<S, Memory<S>>(
      &attend_tensor<S>,
      AttendProblem<S>{{},
                       static_cast<const T*>(task.inputs.features),
                       mapping_of(task.inputs),
                       static_cast<T*>(task.output),
                       static_cast<float*>(task.log_sum_exp)},
      task.shape, 0, stream);
  return true;
}

}  // namespace

bool run_on_tensor_cores(const PairwiseForward& task, void* stream) {
  return with_tensor_type(task.type, task.allow_tf32, [&](auto zero) {
    return with_sizes<decltype(zero)>(task.shape, [&](auto sizes) {
      using S = decltype(sizes);
      if constexpr (S::G < 8)
        return false;  // narrow_forward.cu
      else
        return forward<S>(task, stream);
    });
  });
}

}  // namespace san::pairwise
