// The moments of the relation of the fused pairwise attention on CUDA, over all
// pixels and taps, and their gradient.
//
// R relation channels, K taps, P pixels of a block, T taps of a chunk.
//
// Memory plan: two buffers of rows. Forward for the relation of T taps as it is
// and times how often a pair counts: a thread owns 4 x 4 of their product, over
// a share of the rows. A fixed number of blocks go through the batch, P pixels
// at a time, and each adds to a part of its own in the workspace, in float64
// from chunk to chunk, or see outer.h; sums.cu adds the parts. Backward for the
// relation and its gradient, once by blocks that own p and once by those that
// own q; see backward.cu. Read are phi and psi, once from memory and from a
// cache for every tap.
#include <type_traits>

#include "cuda_kernels/pairwise/gradient.h"
#include "cuda_kernels/pairwise/outer.h"
#include "cuda_kernels/pairwise/sums.h"
#include "cuda_kernels/pairwise/tensor.h"

namespace san::pairwise {
namespace {

struct Needs {
  static constexpr int kRowBuffers = 2, kMatrices = 0, kRelationSums = 0;
  static constexpr bool kValueSums = false, kSoftmax = false;
};

template <Own own>
struct GradientNeeds {
  static constexpr int kRowBuffers = 2, kMatrices = 1,
                       kRelationSums = own == Own::kP ? 2 : 1;
  static constexpr bool kValueSums = false, kSoftmax = false;
};

// ---- Moments of c = a - centre.

template <typename T, typename Tile, typename A = Accumulator<T>>
struct Moments {
  Tile tile;
  Parts parts;
  const T* features;
  const A *scale, *shift, *centre;
};

// The rows' a - centre where there is a pair, else 0.
template <typename Block, typename A>
__device__ A about(const Block& block, int row, int i, A a, const A* centre) {
  return i < block.t.R && block.b.times[row] > 0 ? a - centre[i] : A(0);
}
template <typename Block, typename A>
__device__ Four<A> about(const Block& block, int row, int i, Four<A> a,
                         const A* centre) {
#pragma unroll
  for (int j = 0; j < 4; ++j) a.v[j] = about(block, row, i + j, a.v[j], centre);
  return a;
}
template <typename A>
__device__ A times(A factor, A x) {
  return factor * x;
}
template <typename A>
__device__ Four<A> times(A factor, Four<A> x) {
#pragma unroll
  for (int j = 0; j < 4; ++j) x.v[j] *= factor;
  return x;
}

template <typename T, typename Tile>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Tile>)
    sum_moments(Moments<T, Tile> problem) {
  using BlockType = BlockOf<T, Own::kP, Needs, Tile>;
  const Tile& t = problem.tile;
  BlockType block(t, problem.features);
  auto *c = block.b.rows[0], *counted = block.b.rows[1];
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  OuterProduct<BlockType, Height::kR> products(part + at.w1);
  int tiles_of_sum = 0;
  clear(part, at.elements);
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    block.relate_own(problem.scale, problem.shift);
    for (int tap = block.begin_tap; tap < block.end_tap; tap += t.chunk) {
      __syncthreads();
      block.place(tap);
      __syncthreads();
      block.relate([&](int row, int i, auto a) {
        const auto x = about(block, row, i, a, problem.centre);
        put(c + row * t.pitch() + i, x);
        put(counted + row * t.pitch() + i, times(block.b.times[row], x));
      });
      __syncthreads();
      products.add(block, c, counted);
      block.add_to_table(counted, part + at.table);
    }
    __syncthreads();
    if (++tiles_of_sum % kTilesOfSum == 0) products.flush();
  }
  products.flush();
}

template <typename T>
void moments(const PairwiseMoments& task, const Parts& parts, void* stream) {
  using A = Accumulator<T>;
  with_tile<T, Needs>(task.shape, {task.features}, [&](auto tile) {
    using Tile = decltype(tile);
    const Moments<T, Tile> problem = {tile,
                                      parts,
                                      static_cast<const T*>(task.features),
                                      static_cast<const A*>(task.scale),
                                      static_cast<const A*>(task.shift),
                                      static_cast<const A*>(task.centre)};
    launch_tiles<A, Needs>(&sum_moments<T, Tile>, problem, parts.count, stream);
  });
}

// ---- The moments: the gradient of a is grad_first[o] + grad_second a.

template <typename T, typename Tile, typename A = Accumulator<T>>
struct MomentGradients {
  Tile tile;
  Parts parts;
  const T* features;
  const A *scale, *shift, *grad_first, *grad_second;
  T* grad_features;
};

template <typename T, Own own, typename Tile>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Tile>)
    spread_moments(MomentGradients<T, Tile> problem) {
  using A = Accumulator<T>;
  const Tile& t = problem.tile;
  BlockOf<T, own, GradientNeeds<own>, Tile> block(t, problem.features);
  const auto second = block.load(problem.grad_second, block.b.w1, t.R);
  A *a = block.b.rows[0], *grad_a = block.b.rows[1];
  const PairwisePart& at = problem.parts.at;
  double* part = problem.parts.part(blockIdx.x);
  if (own == Own::kP) clear(part, at.elements);
  for (int64_t tile = blockIdx.x; tile < t.tiles(); tile += gridDim.x) {
    block.begin(tile);
    block.relate_own(problem.scale, problem.shift);
    clear_relation_sums(block);
    for (int tap = block.begin_tap; tap < block.end_tap; tap += t.chunk) {
      __syncthreads();
      block.place(tap);
      block.take_table(problem.grad_first);
      __syncthreads();
      block.relate(
          [&](int row, int i, auto x) { put(a + row * t.pitch() + i, x); });
      __syncthreads();
      block.template multiply<true>(
          a, second,
          [&](int row, int i) {
            return block.from_table(problem.grad_first, row, i);
          },
          [&](int row, int i, A sum) {
            const int cell = row * t.pitch() + i;
            grad_a[cell] = relu_gradient(a[cell], sum * block.b.times[row]);
          });
      __syncthreads();
      add_relation_gradients(block, grad_a);
    }
    __syncthreads();
    write_relation_gradients(block, problem.scale, problem.grad_features, part,
                             at);
    if (own == Own::kQ)
      block.write_value(problem.grad_features, [](int, int) { return A(0); });
    __syncthreads();
  }
}

template <typename T>
void moments_backward(const PairwiseMomentsBackward& task, const Parts& parts,
                      void* stream) {
  using A = Accumulator<T>;
  const auto read = [](const void* data) {
    return static_cast<const A*>(data);
  };
  const auto launch_for = [&](auto own, int64_t blocks) {
    constexpr Own kOwn = decltype(own)::value;
    with_tile<T, GradientNeeds<kOwn>>(
        task.shape, {task.features, task.grad_features}, [&](auto tile) {
          using Tile = decltype(tile);
          const MomentGradients<T, Tile> problem = {
              tile,
              parts,
              static_cast<const T*>(task.features),
              read(task.scale),
              read(task.shift),
              read(task.grad_first),
              read(task.grad_second),
              static_cast<T*>(task.grad_features)};
          launch_tiles<A, GradientNeeds<kOwn>>(&spread_moments<T, kOwn, Tile>,
                                               problem, blocks, stream);
        });
  };
  launch_for(std::integral_constant<Own, Own::kP>(), parts.count);
  launch_for(std::integral_constant<Own, Own::kQ>(), 0);
}

}  // namespace

void run_on_cuda(const PairwiseMoments& task, void* workspace, void* stream) {
  if (run_on_tensor_cores(task, workspace, stream)) return;
  const Parts parts(task, workspace);
  if (parts.count > 0)
    with_scalar_type(task.type, [&](auto zero) {
      moments<decltype(zero)>(task, parts, stream);
    });
  const int R = static_cast<int>(task.shape.relation_channels);
  const int K = static_cast<int>(task.shape.taps());
  add_parts(parts,
            {{parts.at.table, K, R, false, false, task.first},
             {parts.at.w1, R, R, true, true, task.second}},
            ScalarType::kFloat64, stream);
}

void run_on_cuda(const PairwiseMomentsBackward& task, void* workspace,
                 void* stream) {
  if (run_on_tensor_cores(task, workspace, stream)) return;
  const Parts parts(task, workspace);
  if (parts.count > 0)
    with_scalar_type(task.type, [&](auto zero) {
      moments_backward<decltype(zero)>(task, parts, stream);
    });
  const int R = static_cast<int>(task.shape.relation_channels);
  add_parts(parts,
            {{parts.at.first, 1, R, false, false, task.grad_scale},
             {parts.at.second, 1, R, false, false, task.grad_shift}},
            computed_in(task.type), stream);
}

}  // namespace san::pairwise
