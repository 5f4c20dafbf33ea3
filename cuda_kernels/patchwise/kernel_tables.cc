// Chooses the inner loops for the processor at hand.
#include <type_traits>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/patchwise/kernels.h"

namespace san::patchwise {

SAN_CHOOSE_TABLE(PatchwiseKernels, patchwise_kernels)

template const PatchwiseKernels<float>& patchwise_kernels();
template const PatchwiseKernels<double>& patchwise_kernels();
template const PatchwiseKernels<float16>& patchwise_kernels();
template const PatchwiseKernels<bfloat16>& patchwise_kernels();

// For fewer rows, making the pairs takes longer than it saves.
constexpr int64_t kLeastRows = 16;

template <typename T>
bool in_pairs(int64_t rows) {
  return std::is_same_v<T, bfloat16> && rows >= kLeastRows &&
         multiplies_bfloat16();
}

template bool in_pairs<float>(int64_t);
template bool in_pairs<double>(int64_t);
template bool in_pairs<float16>(int64_t);
template bool in_pairs<bfloat16>(int64_t);

}  // namespace san::patchwise
