// Chooses the row kernels for the processor at hand.
#include <atomic>

#include "cuda_kernels/fast/row_kernels.h"

namespace san::fast {

// Defined by the three compilations of row_kernels.cc.
template <typename T>
RowKernels<T> row_kernels_baseline();
template <typename T>
RowKernels<T> row_kernels_avx2();
template <typename T>
RowKernels<T> row_kernels_avx512();

namespace {

int detect() {
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw");
  return avx512 ? 2 : avx2 ? 1 : 0;
#else
  return 0;
#endif
}

std::atomic<int> in_use{detect()};

}  // namespace

int best_instruction_set() { return detect(); }

int instruction_set() { return in_use.load(std::memory_order_relaxed); }

void use_instruction_set(int index) { in_use = index; }

template <typename T>
const RowKernels<T>& row_kernels() {
  static const RowKernels<T> tables[] = {SAN_TABLES(row_kernels, <T>())};
  return tables[in_use.load(std::memory_order_relaxed)];
}

template const RowKernels<float>& row_kernels();
template const RowKernels<double>& row_kernels();
template const RowKernels<float16>& row_kernels();
template const RowKernels<bfloat16>& row_kernels();

}  // namespace san::fast
