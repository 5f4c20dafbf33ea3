// The fused pairwise attention on CUDA, forward.
//
// N batch, R relation channels, G weight channels, M value channels, F feature
// channels, K taps, P pixels of a block, T taps of a chunk.
//
// A block makes the relation of its pairs, maps it twice, and takes the softmax
// online: beside sums of e = exp(logit - top) * beta it keeps the top and the
// sum of e so far of each pixel and group, and scales what it has when the top
// rises. Memory plan: two buffers of rows (a, which makes room for the logits,
// and z) and the sums [P, M]; tile.h has the rest. A thread owns 4 x 4
// results of a product, then a (pixel, group), then a pixel and four channels
// of one group: one writer per element, no atomics. Read are the features, once
// from memory and from a cache for every tap; written are the output and, for a
// backward, log_sum_exp.
#include "cuda_kernels/pairwise/fixed_block.h"
#include "cuda_kernels/pairwise/tensor.h"

namespace san::pairwise {
namespace {

struct Needs {
  static constexpr int kRowBuffers = 2, kMatrices = 2, kRelationSums = 0;
  static constexpr bool kValueSums = true, kSoftmax = true;
};

template <typename T, typename Tile, typename A = Accumulator<T>>
struct Problem {
  Tile tile;
  const T* features;
  const A *scale, *shift, *table, *w1, *w2;
  T* output;
  A* log_sum_exp;  // or null
};

template <typename Block>
__device__ void clear_sums(const Block& block) {
  using A = typename Block::A;
  const auto& t = block.t;
  for_each_cell(t.pixels(), t.M,
                [&](int p, int c) { block.b.value[p * t.M + c] = 0; });
  for_each_cell(t.pixels(), t.G, [&](int p, int g) {
    block.b.top[p * t.G + g] = -static_cast<A>(INFINITY);
    block.b.total[p * t.G + g] = 0;
  });
}

// Turns the logits of a chunk into e times how often the pair counts.
template <typename Block, typename A>
__device__ void soften(const Block& block, A* logits) {
  if constexpr (Block::Tile::kFixed) return block.soften(logits);
  const auto& t = block.t;
  const A lowest = -static_cast<A>(INFINITY);
  for_each_cell(t.pixels(), t.G, [&](int p, int g) {
    const int at = p * t.G + g;
    A top = block.b.top[at];
    block.for_each_pair(p, [&](int row, int64_t) {
      const A logit = logits[row * t.pitch() + g];
      top = logit > top ? logit : top;
    });
    const A rescale = top > lowest ? exponential(block.b.top[at] - top) : A(1);
    A total = block.b.total[at] * rescale;
    block.for_each_pair(p, [&](int row, int64_t) {
      A& e = logits[row * t.pitch() + g];
      e = block.b.times[row] * exponential(e - top);
      total += e;
    });
    block.b.top[at] = top;
    block.b.total[at] = total;
    block.b.rescale[at] = rescale;
  });
}

template <typename Block, typename T>
__device__ void write_output(const Block& block, T* output) {
  if constexpr (Block::Tile::kFixed) return block.write_output(output);
  const auto& t = block.t;
  for_each_cell(t.pixels(), t.M, [&](int p, int c) {
    if (block.first + p < t.count)
      output[(block.first + p) * t.M + c] = rounded<T>(
          block.b.value[p * t.M + c] / block.b.total[p * t.G + c % t.G]);
  });
}

template <typename Block, typename A>
__device__ void write_log_sum_exp(const Block& block, A* to) {
  const auto& t = block.t;
  for_each_cell(t.pixels(), t.G, [&](int p, int g) {
    if (block.first + p < t.count)
      to[(block.first + p) * t.G + g] =
          block.b.top[p * t.G + g] + logarithm(block.b.total[p * t.G + g]);
  });
}

template <typename T, typename Tile>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Tile>)
    attend(Problem<T, Tile> problem) {
  const Tile& t = problem.tile;
  BlockOf<T, Own::kP, Needs, Tile> block(t, problem.features);
  const auto w1 = block.load(problem.w1, block.b.w1, t.R);
  const auto w2 = block.load(problem.w2, block.b.w2, t.G);
  auto *a = block.b.rows[0], *z = block.b.rows[1];
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    block.relate_own(problem.scale, problem.shift);
    clear_sums(block);
    for (int tap = block.begin_tap; tap < block.end_tap; tap += t.chunk) {
      __syncthreads();
      block.place(tap);
      block.take_table(problem.table);
      __syncthreads();
      block.relate(
          [&](int row, int i, auto x) { put(a + row * t.pitch() + i, x); });
      __syncthreads();
      block.hidden(a, w1, problem.table, z);
      __syncthreads();
      block.logits(z, w2, a);
      __syncthreads();
      soften(block, a);
      __syncthreads();
      block.aggregate(a, block.from_tile(block.value(0), t.features),
                      t.features, block.b.rescale);
    }
    __syncthreads();
    write_output(block, problem.output);
    if (problem.log_sum_exp) write_log_sum_exp(block, problem.log_sum_exp);
    __syncthreads();
  }
}

template <typename T>
void run(const PairwiseForward& task, void* stream) {
  using A = Accumulator<T>;
  const PairwiseInputs& in = task.inputs;
  const auto read = [](const void* data) {
    return static_cast<const A*>(data);
  };
  with_tile<T, Needs>(task.shape, {in.features, task.output}, [&](auto tile) {
    using Tile = decltype(tile);
    const Problem<T, Tile> problem = {tile,
                                      static_cast<const T*>(in.features),
                                      read(in.scale),
                                      read(in.shift),
                                      read(in.table),
                                      read(in.w1),
                                      read(in.w2),
                                      static_cast<T*>(task.output),
                                      static_cast<A*>(task.log_sum_exp)};
    launch_tiles<A, Needs>(&attend<T, Tile>, problem, 0, stream);
  });
}

}  // namespace

void run_on_cuda(const PairwiseForward& task, void* stream) {
  if (run_narrow(task, stream) || run_on_tensor_cores(task, stream)) return;
  with_scalar_type(task.type,
                   [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace san::pairwise
