// The fused pairwise attention on CUDA, backward, by recomputation.
//
// N batch, R relation channels, G weight channels, M value channels, K taps, P
// pixels of a block, T taps of a chunk.
//
// The gradient of a pair (p, q) belongs to phi of p, and to psi and beta of q.
// So the pairs are visited twice, by blocks that own p and by blocks that own
// q, with the same steps: each makes a, z and the logits of a chunk again, has
// the weights from log_sum_exp, and goes back. That costs the mapping twice,
// and saves atomics, halos and tensors with K taps: every gradient is a gather
// with one writer. What a softmax's gradient subtracts, grad_output * output
// summed over each group, is made once for all pairs, by a launch of its own.
//
// Memory plan: buffers of rows for a, z (which makes room for the gradient of
// a), the gradient of z, and logits (then their gradient), for q also the
// weights; sums over the taps [P, R], for q also [P, M]. A thread owns 4 x 4
// results of a product, or a (pixel, channel). Blocks of p sum the gradients of
// the mapping into parts of their own, in the workspace, in float64: from chunk
// to chunk, or see outer.h. sums.cu adds the parts. Read are the features and
// grad_output, from a cache for every tap; written are grad_features, the
// products [N H W, G] and the parts.
#include <type_traits>

#include "cuda_kernels/pairwise/gradient.h"
#include "cuda_kernels/pairwise/outer.h"
#include "cuda_kernels/pairwise/sums.h"
#include "cuda_kernels/pairwise/tensor.h"

namespace san::pairwise {
namespace {

template <Own own>
struct Needs {
  static constexpr int kRowBuffers = own == Own::kP ? 4 : 5, kMatrices = 2,
                       kRelationSums = own == Own::kP ? 2 : 1;
  static constexpr bool kValueSums = own == Own::kQ, kSoftmax = false;
};
template <typename T, typename Tile, typename A = Accumulator<T>>
struct Problem {
  Tile tile;
  Parts parts;
  const T* features;
  const A *scale, *shift, *table, *w1, *w2;
  const T* grad_output;
  const A *log_sum_exp, *products;
  T* grad_features;
};

// Turns the logits of a chunk into their gradient, and keeps the weights if
// there is room.
template <typename Block, typename Problem, typename A>
__device__ void soften_backward(const Block& block, const Problem& problem,
                                A* logits, A* weights) {
  if constexpr (Block::Tile::kFixed)
    return block.soften_backward(problem.grad_output, problem.log_sum_exp,
                                 problem.products, logits, weights);
  const auto& t = block.t;
  for_each_cell(t.rows(), padded(t.G), [&](int row, int g) {
    const int64_t other = block.b.other[row];
    A weight = 0, grad = 0;
    if (other >= 0 && g < t.G) {
      const int64_t mine = block.first + block.pixel(row);
      const int64_t p = Block::kOwn == Own::kP ? mine : other;
      const auto* beta = block.value(Block::kOwn == Own::kP ? other : mine);
      const auto* grad_output = problem.grad_output + p * t.M;
      weight =
          block.b.times[row] * exponential(logits[row * t.pitch() + g] -
                                           problem.log_sum_exp[p * t.G + g]);
      for (int c = g; c < t.M; c += t.G)
        grad += wide(grad_output[c]) * wide(beta[c]);
      grad = weight * (grad - problem.products[p * t.G + g]);
    }
    logits[row * t.pitch() + g] = grad;
    if (weights) weights[row * t.pitch() + g] = weight;
  });
}

template <typename T, Own own, typename Tile>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Tile>)
    attend_backward(Problem<T, Tile> problem) {
  using A = Accumulator<T>;
  using BlockType = BlockOf<T, own, Needs<own>, Tile>;
  const Tile& t = problem.tile;
  BlockType block(t, problem.features);
  const auto w1 = block.load(problem.w1, block.b.w1, t.R);
  const auto w2 = block.load(problem.w2, block.b.w2, t.G);
  A *a = block.b.rows[0], *z = block.b.rows[1], *grad_z = block.b.rows[2];
  A* logits = block.b.rows[3];
  A* weights = own == Own::kQ ? block.b.rows[4] : nullptr;
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  OuterProduct<BlockType, Height::kR> w1_sums(part + at.w1);
  OuterProduct<BlockType, Height::kG> w2_sums(part + at.w2);
  int tiles_of_sum = 0;
  if (own == Own::kP) clear(part, at.elements);
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    block.relate_own(problem.scale, problem.shift);
    clear_relation_sums(block);
    if (own == Own::kQ) clear(block.b.value, t.pixels() * t.M);
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
      block.logits(z, w2, logits);
      __syncthreads();
      soften_backward(block, problem, logits, weights);
      __syncthreads();
      block.template multiply<false>(logits, w2, [&](int row, int i, A sum) {
        const int cell = row * t.pitch() + i;
        grad_z[cell] = relu_gradient(z[cell], sum);
      });
      if (own == Own::kP) w2_sums.add(block, logits, z);
      __syncthreads();
      block.template multiply<false>(grad_z, w1, [&](int row, int i, A sum) {
        const int cell = row * t.pitch() + i;
        z[cell] = relu_gradient(a[cell], sum);
      });
      if (own == Own::kP) {
        w1_sums.add(block, grad_z, a);
        block.add_to_table(grad_z, part + at.table);
      }
      __syncthreads();
      add_relation_gradients(block, z);
      if (own == Own::kQ)
        block.aggregate(weights, block.from_tile(problem.grad_output, t.M), t.M,
                        nullptr);
    }
    __syncthreads();
    if (own == Own::kP && ++tiles_of_sum % kTilesOfSum == 0) {
      w1_sums.flush();
      w2_sums.flush();
    }
    write_relation_gradients(block, problem.scale, problem.grad_features, part,
                             at);
    if (own == Own::kQ)
      block.write_value(problem.grad_features, [&](int p, int c) {
        return block.b.value[p * t.M + c];
      });
    __syncthreads();
  }
  if (own == Own::kP) {
    w1_sums.flush();
    w2_sums.flush();
  }
}

// products[i, g] = sum over the group of grad_output * output, for each pixel.
// A thread owns an element.
template <typename T, typename A = Accumulator<T>>
struct Products {
  int64_t elements;  // N H W * G
  int G, M;
  const T *grad_output, *output;
  A* products;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) sum_products(Products<T> problem) {
  using A = Accumulator<T>;
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
       i < problem.elements; i += step) {
    const int64_t pixel = i / problem.G;
    A sum = 0;
    for (int64_t c = i % problem.G; c < problem.M; c += problem.G)
      sum += wide(problem.grad_output[pixel * problem.M + c]) *
             wide(problem.output[pixel * problem.M + c]);
    problem.products[i] = sum;
  }
}

template <typename T, typename A>
void write_products(const PairwiseBackward& task, A* products, void* stream) {
  constexpr int64_t kMostBlocks = 0x7fffffff;
  const Products<T> problem = {product_elements(task.shape),
                               static_cast<int>(task.shape.weight_channels),
                               static_cast<int>(task.shape.value_channels),
                               static_cast<const T*>(task.grad_output),
                               static_cast<const T*>(task.output),
                               products};
  const int64_t blocks = (problem.elements + kThreads - 1) / kThreads;
  launch(&sum_products<T>,
         {static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
          kThreads, 0},
         stream, problem);
}

template <typename T>
void backward(const PairwiseBackward& task, const Parts& parts, void* stream) {
  using A = Accumulator<T>;
  A* products = reinterpret_cast<A*>(parts.part(parts.count));
  write_products<T>(task, products, stream);
  const auto read = [](const void* data) {
    return static_cast<const A*>(data);
  };
  const PairwiseInputs& in = task.inputs;
  const auto launch_for = [&](auto own, int64_t blocks) {
    constexpr Own kOwn = decltype(own)::value;
    with_tile<T, Needs<kOwn>>(
        task.shape, {in.features, task.grad_output, task.grad_features},
        [&](auto tile) {
          using Tile = decltype(tile);
          const Problem<T, Tile> problem = {
              tile,
              parts,
              static_cast<const T*>(in.features),
              read(in.scale),
              read(in.shift),
              read(in.table),
              read(in.w1),
              read(in.w2),
              static_cast<const T*>(task.grad_output),
              read(task.log_sum_exp),
              products,
              static_cast<T*>(task.grad_features)};
          launch_tiles<A, Needs<kOwn>>(&attend_backward<T, kOwn, Tile>, problem,
                                       blocks, stream);
        });
  };
  launch_for(std::integral_constant<Own, Own::kP>(), parts.count);
  launch_for(std::integral_constant<Own, Own::kQ>(), 0);
}

}  // namespace

void run_on_cuda(const PairwiseBackward& task, void* workspace, void* stream) {
  if (run_on_tensor_cores(task, workspace, stream)) return;
  const Parts parts(task, workspace);
  if (parts.count > 0)
    with_scalar_type(task.type, [&](auto zero) {
      backward<decltype(zero)>(task, parts, stream);
    });
  const int R = static_cast<int>(task.shape.relation_channels);
  const int G = static_cast<int>(task.shape.weight_channels);
  const int K = static_cast<int>(task.shape.taps());
  add_parts(parts,
            {{parts.at.first, 1, R, false, false, task.grad_scale},
             {parts.at.second, 1, R, false, false, task.grad_shift},
             {parts.at.table, K, R, false, false, task.grad_table},
             {parts.at.w1, R, R, true, false, task.grad_w1},
             {parts.at.w2, G, R, true, false, task.grad_w2}},
            computed_in(task.type), stream);
}

}  // namespace san::pairwise
