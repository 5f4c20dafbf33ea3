// A product of matrices in bfloat16 on tensor cores: a block makes 32 x 32
// results, each of its four warps 16 x 16, while the next 32 columns of a and
// rows of b are on their way to shared memory.
//
// Rows in shared memory are 80 bytes apart, an odd multiple of 16, so that the
// eight rows of a small matrix lie in different banks.
#include <stdexcept>

#include "cuda_kernels/cuda/copy.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/cuda/matrix.h"
#include "tests/emulated_cuda/warp_kernels.h"

namespace san::warps {
namespace {

constexpr int kTile = 32, kPitch = kTile + 8, kStages = 2;
constexpr int kThreads = 128;
constexpr int kPiece = 8;  // elements that a thread copies at once

struct Stage {
  bfloat16 a[kTile][kPitch], b[kTile][kPitch];
};

struct Problem {
  const bfloat16 *a, *b;
  float* c;
  int M, N, K;
};

// Asks for the tile of x [rows, columns] at (row, column), zeros outside.
__device__ void copy_tile(const bfloat16* x, int rows, int columns, int row,
                          int column, bfloat16 (&to)[kTile][kPitch]) {
  const int thread = static_cast<int>(threadIdx.x);
  const int i = thread / (kTile / kPiece);
  const int j = thread % (kTile / kPiece) * kPiece;
  const bool inside = row + i < rows && column + j < columns;
  const int64_t at = int64_t(row + i) * columns + column + j;
  copy_async<16>(&to[i][j], inside ? x + at : x, inside ? 16 : 0);
}

__device__ void copy_step(const Problem& p, int k, Stage& to) {
  copy_tile(p.a, p.M, p.K, blockIdx.y * kTile, k, to.a);
  copy_tile(p.b, p.K, p.N, k, blockIdx.x * kTile, to.b);
}

// Adds the products of a stage to the warp's sums, [16, 8] each.
__device__ void add_step(const Stage& stage, int top, int left,
                         float (&sums)[2][4]) {
  for (int k = 0; k < kTile; k += 16) {
    const int near = lane() % 16, far = lane() / 16 * 8;
    uint32_t a[4], b[4];
    load_matrices(a, &stage.a[top + near][k + far]);
    load_transposed(b, &stage.b[k + near][left + far]);
    multiply_16x8x16<bfloat16>(sums[0], a, {b[0], b[1]});
    multiply_16x8x16<bfloat16>(sums[1], a, {b[2], b[3]});
  }
}

__global__ void __launch_bounds__(kThreads) matrix_product(Problem p) {
  Stage* stages = reinterpret_cast<Stage*>(shared_memory());
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int top = warp / 2 * 16, left = warp % 2 * 16;
  float sums[2][4] = {};
  if (p.K > 0) copy_step(p, 0, stages[0]);
  commit_copies();
  for (int k = 0, step = 0; k < p.K; k += kTile, ++step) {
    if (k + kTile < p.K) copy_step(p, k + kTile, stages[(step + 1) % kStages]);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    add_step(stages[step % kStages], top, left, sums);
    __syncthreads();
  }
  for (int n = 0; n < 2; ++n)
    for (int i = 0; i < 4; ++i) {
      const int row = blockIdx.y * kTile + top + lane() / 4 + i / 2 * 8;
      const int column =
          blockIdx.x * kTile + left + n * 8 + lane() % 4 * 2 + i % 2;
      if (row < p.M && column < p.N)
        p.c[int64_t(row) * p.N + column] = sums[n][i];
    }
}

bool on_boundary(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace

void multiply(const bfloat16* a, const bfloat16* b, float* c, int M, int N,
              int K, void* stream) {
  if (N % kPiece != 0 || K % kPiece != 0 || !on_boundary(a) || !on_boundary(b))
    throw std::invalid_argument(
        "multiply: N and K must be multiples of 8, a and b on 16-byte "
        "boundaries, got N = " +
        std::to_string(N) + ", K = " + std::to_string(K));
  if (M == 0 || N == 0) return;
  LaunchShape shape;
  shape.grid = dim3((N + kTile - 1) / kTile, (M + kTile - 1) / kTile);
  shape.block = dim3(kThreads);
  shape.shared_bytes = kStages * sizeof(Stage);
  launch(&matrix_product, shape, stream, Problem{a, b, c, M, N, K});
}

}  // namespace san::warps
