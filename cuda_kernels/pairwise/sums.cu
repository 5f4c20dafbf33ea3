// Adds the parts of sums over the batch on CUDA. A block takes 32 elements of
// one matrix, one for each lane; its warps share the parts, each in order, and
// then the first warp adds what the warps have, in order.
#include <algorithm>

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/pairwise/sums.h"

namespace san::pairwise {
namespace {

constexpr int kLanes = 32, kWarps = kThreads / kLanes, kMostTotals = 5;

struct Totals {
  Parts parts;
  Total of[kMostTotals];
};

__device__ double sum_of_warp(const Parts& parts, const Total& total,
                              int64_t element, int warp) {
  int row = static_cast<int>(element / total.columns);
  int column = static_cast<int>(element % total.columns);
  const OuterSums outer(total.rows, total.columns);
  if (total.symmetric && row > column) {
    const int swapped = row;
    row = column;
    column = swapped;
  }
  const int segments = total.outer ? outer.segments : 1;
  double sum = 0;
  for (int64_t term = warp; term < parts.count * segments; term += kWarps) {
    const int segment = static_cast<int>(term % segments);
    const double* sums = parts.part(term / segments) + total.begin;
    sum += sums[total.outer ? outer.index(segment, row, column) : element];
  }
  return sum;
}

template <typename A>
__global__ void __launch_bounds__(kThreads) add(Totals all) {
  const Total& total = all.of[blockIdx.y];
  double* sums = reinterpret_cast<double*>(shared_memory());
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t element = int64_t(blockIdx.x) * kLanes + lane;
  const bool inside = element < int64_t(total.rows) * total.columns;
  sums[threadIdx.x] = inside ? sum_of_warp(all.parts, total, element, warp) : 0;
  __syncthreads();
  if (!inside || warp > 0) return;
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i * kLanes + lane];
  static_cast<A*>(total.output)[element] = static_cast<A>(sum);
}

}  // namespace

void add_parts(const Parts& parts, std::initializer_list<Total> totals,
               ScalarType type, void* stream) {
  Totals all = {parts, {}};
  std::copy(totals.begin(), totals.end(), all.of);
  int64_t most = 0;
  for (const Total& total : totals)
    most = std::max(most, int64_t(total.rows) * total.columns);
  const dim3 grid(static_cast<unsigned>((most + kLanes - 1) / kLanes),
                  static_cast<unsigned>(totals.size()));
  const LaunchShape shape = {grid, kThreads, kThreads * sizeof(double)};
  type == ScalarType::kFloat64 ? launch(&add<double>, shape, stream, all)
                               : launch(&add<float>, shape, stream, all);
}

}  // namespace san::pairwise
