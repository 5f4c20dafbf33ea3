// Adds the parts of sums over the batch on CUDA. A block takes 32 elements of
// one matrix, one for each lane; its warps share the parts.
#include <algorithm>

#include "cuda_kernels/cuda/ordered_sum.h"
#include "cuda_kernels/pairwise/sums.h"

namespace san::pairwise {
namespace {

constexpr int kLanes = 32, kWarps = kThreads / kLanes, kMostTotals = 5;

struct Totals {
  Parts parts;
  Total of[kMostTotals];
};

template <typename A>
__global__ void __launch_bounds__(kThreads) add(Totals all) {
  const Parts& parts = all.parts;
  const Total& total = all.of[blockIdx.y];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t element = int64_t(blockIdx.x) * kLanes + lane;
  const int i = static_cast<int>(element / total.columns);
  const int j = static_cast<int>(element % total.columns);
  const int row = total.symmetric ? min(i, j) : i;
  const int column = total.symmetric ? max(i, j) : j;
  const OuterSums outer(total.rows, total.columns);
  const int segments = total.outer ? outer.segments : 1;
  sum_in_order<kLanes, kWarps, double, 1>(
      lane, warp, element < int64_t(total.rows) * total.columns,
      parts.count * segments,
      [&](int64_t term, double (&sum)[1]) {
        const int segment = static_cast<int>(term % segments);
        const double* from = parts.part(term / segments) + total.begin;
        sum[0] +=
            from[total.outer ? outer.index(segment, row, column) : element];
      },
      [&](const double (&sum)[1]) {
        static_cast<A*>(total.output)[element] = static_cast<A>(sum[0]);
      });
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
  const LaunchShape shape = {grid, kThreads,
                             kOrderedSumBytes<kLanes, kWarps, double, 1>};
  type == ScalarType::kFloat64 ? launch(&add<double>, shape, stream, all)
                               : launch(&add<float>, shape, stream, all);
}

}  // namespace san::pairwise
