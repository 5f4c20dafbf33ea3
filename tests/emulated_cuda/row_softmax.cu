// The softmax of rows by warps, online: a lane keeps the top of its columns and
// the sum of exp(x - top), and the lanes of a warp join theirs in five
// shuffles.
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/cuda/warp.h"
#include "tests/emulated_cuda/warp_kernels.h"

namespace san::warps {
namespace {

constexpr int kWarps = 4;

struct Sum {
  float top, total;
};

// Of two sums; of no columns the top is -infinity.
__device__ Sum joined(const Sum& a, const Sum& b) {
  const float top = a.top > b.top ? a.top : b.top;
  const auto scale = [top](float old) {
    return old == top ? 1.0f : expf(old - top);
  };
  return {top, a.total * scale(a.top) + b.total * scale(b.top)};
}

__global__ void row_softmax(const float* x, float* y, int rows, int columns) {
  const int row = blockIdx.x * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (row >= rows) return;  // the whole warp
  x += int64_t(row) * columns;
  y += int64_t(row) * columns;
  Sum sum = {-INFINITY, 0};
  for (int i = lane(); i < columns; i += 32) sum = joined(sum, {x[i], 1});
  for (int bits = 16; bits > 0; bits /= 2)
    sum =
        joined(sum, {shuffle_xor(sum.top, bits), shuffle_xor(sum.total, bits)});
  for (int i = lane(); i < columns; i += 32)
    y[i] = expf(x[i] - sum.top) / sum.total;
}

}  // namespace

void softmax(const float* x, float* y, int rows, int columns, void* stream) {
  if (rows == 0 || columns == 0) return;
  LaunchShape shape;
  shape.grid = dim3((rows + kWarps - 1) / kWarps);
  shape.block = dim3(32 * kWarps);
  launch(&row_softmax, shape, stream, x, y, rows, columns);
}

}  // namespace san::warps
