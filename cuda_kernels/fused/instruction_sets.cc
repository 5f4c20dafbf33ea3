// Chooses the inner loops of the fused operators for the processor at hand.
#include "cuda_kernels/fast/row_kernels.h"
#include "cuda_kernels/fused/patchwise_kernels.h"

namespace san::fused {

// Defined by the three compilations of patchwise_kernels.cc.
template <typename A>
PatchwiseKernels<A> patchwise_kernels_baseline();
template <typename A>
PatchwiseKernels<A> patchwise_kernels_avx2();
template <typename A>
PatchwiseKernels<A> patchwise_kernels_avx512();

template <typename A>
const PatchwiseKernels<A>& patchwise_kernels() {
  static const PatchwiseKernels<A> tables[] = {
      SAN_TABLES(patchwise_kernels, <A>())};
  return tables[fast::instruction_set()];
}

template const PatchwiseKernels<float>& patchwise_kernels();
template const PatchwiseKernels<double>& patchwise_kernels();

}  // namespace san::fused
