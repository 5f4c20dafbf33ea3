// How a block of the fused pairwise attention shares cells among its threads,
// and reads them four at a time. For .cu files only.
#ifndef CUDA_KERNELS_PAIRWISE_CELLS_H_
#define CUDA_KERNELS_PAIRWISE_CELLS_H_

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/pairwise/workspace.h"

namespace san::pairwise {
namespace {

// Blocks that a multiprocessor shall have registers for: leaves a thread enough
// for its 4 x 4 sums and what it multiplies for them.
template <typename T, typename Tile>
constexpr int kBlocks = Tile::kBlocks    ? Tile::kBlocks
                        : sizeof(T) == 8 ? 2
                                         : 3;

template <typename A>
struct alignas(16) Four {
  A v[4];
};

template <typename A>
__device__ Four<A> four(const A* from) {
  return *reinterpret_cast<const Four<A>*>(from);
}

template <typename A>
__device__ void put(A* to, Four<A> x) {
  *reinterpret_cast<Four<A>*>(to) = x;
}
template <typename A>
__device__ void put(A* to, A x) {
  *to = x;
}

inline __device__ float exponential(float x) { return expf(x); }
inline __device__ double exponential(double x) { return exp(x); }
inline __device__ float logarithm(float x) { return logf(x); }
inline __device__ double logarithm(double x) { return log(x); }

// log2 of how many lanes stand side by side for so many columns.
constexpr __device__ int lane_bits(int columns) {
  int bits = 0;
  while (bits < 5 && 1 << bits < columns) ++bits;
  return bits;
}

// Calls f(row, column) for each, spread over the block; always by the same
// thread for the same cell.
template <typename F>
__device__ void for_each_cell(int rows, int columns, F f) {
  const int bits = lane_bits(columns), thread = static_cast<int>(threadIdx.x);
  for (int row = thread >> bits; row < rows; row += kThreads >> bits)
    for (int column = thread & ((1 << bits) - 1); column < columns;
         column += 1 << bits)
      f(row, column);
}

template <typename E>
__device__ void clear(E* array, int64_t elements) {
  for (int64_t i = threadIdx.x; i < elements; i += kThreads) array[i] = 0;
}

// A factor of products, [rows, columns]; `shared` has a pitch and zeros around
// it, or is null.
template <typename A>
struct Matrix {
  const A* global;
  const A* shared;
  int rows, columns;
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_CELLS_H_
