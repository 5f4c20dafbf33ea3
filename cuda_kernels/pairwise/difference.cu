// The differences of the fused pairwise attention on CUDA: sums of phi - psi
// and its squares over all pixels and taps, and their gradient.
//
// R relation channels, P pixels of a block, T taps of a chunk.
//
// Forward a fixed number of blocks go through the batch, P pixels at a time,
// and each adds to a part of its own in the workspace, in float64 from tile to
// tile; sums.cu adds the parts. Backward one block takes each tile,
// once as p for phi and once as q for psi. Memory plan: sums over the taps [P,
// R]. A thread owns a (pixel, channel) and sums over T taps in a register. Read
// are phi and psi, once from memory and from a cache for every tap.
#include "cuda_kernels/pairwise/block.h"
#include "cuda_kernels/pairwise/sums.h"

namespace san::pairwise {
namespace {

template <int kSums>
struct SumNeeds {
  static constexpr int kRowBuffers = 0, kMatrices = 0, kRelationSums = kSums;
  static constexpr bool kValueSums = false, kSoftmax = false;
};

// ---- Sums of d = phi - psi - centre and its squares.

template <typename T, typename A = Accumulator<T>>
struct Differences {
  Tile tile;
  Parts parts;
  const T* features;
  const A* centre;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    sum_differences(Differences<T> problem) {
  using A = Accumulator<T>;
  const Tile& t = problem.tile;
  Block<T, Own::kP, SumNeeds<2>> block(t, problem.features);
  A *first = block.b.relation[0], *second = block.b.relation[1];
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  clear(part, at.elements);
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    clear(first, t.pixels() * t.R);
    clear(second, t.pixels() * t.R);
    for (int tap = block.begin_tap; tap < block.end_tap; tap += t.chunk) {
      __syncthreads();
      block.place(tap);
      __syncthreads();
      for_each_cell(t.pixels(), t.R, [&](int p, int i) {
        if (block.first + p >= t.count) return;
        const A phi = block.own_relation(p, i) - problem.centre[i];
        A sum = 0, squares = 0;
        block.for_each_pair(p, [&](int row, int64_t other) {
          const A d = phi - block.other_relation(other, i);
          const A counted = block.b.times[row] * d;
          sum += counted;
          squares += counted * d;
        });
        first[p * t.R + i] += sum;
        second[p * t.R + i] += squares;
      });
    }
    __syncthreads();
    block.add_pixels(first, part + at.first);
    block.add_pixels(second, part + at.second);
    __syncthreads();
  }
}

template <typename T>
void difference(const PairwiseDifference& task, const Parts& parts,
                void* stream) {
  using A = Accumulator<T>;
  const Differences<T> problem = {{},
                                  parts,
                                  static_cast<const T*>(task.features),
                                  static_cast<const A*>(task.centre)};
  launch_tiles<A, SumNeeds<2>>(&sum_differences<T>, problem, task.shape,
                               parts.count, stream);
}

// ---- The gradient of those: constant + slope * (phi - psi).

template <typename T, typename A = Accumulator<T>>
struct DifferenceGradients {
  Tile tile;
  const T* features;
  const A *constant, *slope;
  T* grad_features;
};

template <typename T, Own own>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    spread_differences(DifferenceGradients<T> problem) {
  using A = Accumulator<T>;
  const Tile& t = problem.tile;
  Block<T, own, SumNeeds<1>> block(t, problem.features);
  A* sums = block.b.relation[0];
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    clear(sums, t.pixels() * t.R);
    for (int tap = block.begin_tap; tap < block.end_tap; tap += t.chunk) {
      __syncthreads();
      block.place(tap);
      __syncthreads();
      for_each_cell(t.pixels(), t.R, [&](int p, int i) {
        if (block.first + p >= t.count) return;
        const A x = block.own_relation(p, i);
        A sum = 0;
        block.for_each_pair(p, [&](int row, int64_t other) {
          const A y = block.other_relation(other, i);
          const A d = own == Own::kP ? x - y : y - x;
          sum +=
              block.b.times[row] * (problem.constant[i] + problem.slope[i] * d);
        });
        sums[p * t.R + i] += sum;
      });
    }
    __syncthreads();
    block.write_relation(problem.grad_features, [&](int p, int i) {
      return own == Own::kP ? sums[p * t.R + i] : -sums[p * t.R + i];
    });
    if (own == Own::kQ)
      block.write_value(problem.grad_features, [](int, int) { return A(0); });
    __syncthreads();
  }
}

template <typename T>
void difference_backward(const PairwiseDifferenceBackward& task, void* stream) {
  using A = Accumulator<T>;
  const DifferenceGradients<T> problem = {{},
                                          static_cast<const T*>(task.features),
                                          static_cast<const A*>(task.constant),
                                          static_cast<const A*>(task.slope),
                                          static_cast<T*>(task.grad_features)};
  launch_tiles<A, SumNeeds<1>>(&spread_differences<T, Own::kP>, problem,
                               task.shape, 0, stream);
  launch_tiles<A, SumNeeds<1>>(&spread_differences<T, Own::kQ>, problem,
                               task.shape, 0, stream);
}

}  // namespace

void run_on_cuda(const PairwiseDifference& task, void* workspace,
                 void* stream) {
  const Parts parts(task, workspace);
  if (parts.count > 0)
    with_scalar_type(task.type, [&](auto zero) {
      difference<decltype(zero)>(task, parts, stream);
    });
  const int R = static_cast<int>(task.shape.relation_channels);
  add_parts(parts,
            {{parts.at.first, 1, R, false, false, task.first},
             {parts.at.second, 1, R, false, false, task.second}},
            ScalarType::kFloat64, stream);
}

void run_on_cuda(const PairwiseDifferenceBackward& task, void* stream) {
  if (task.shape.batch == 0) return;
  with_scalar_type(task.type, [&](auto zero) {
    difference_backward<decltype(zero)>(task, stream);
  });
}

}  // namespace san::pairwise
