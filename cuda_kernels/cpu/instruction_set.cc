#include "cuda_kernels/cpu/instruction_set.h"

#include <atomic>

namespace san {
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

bool multiplies_bfloat16() {
#ifdef __x86_64__
  return instruction_set() == 2 && __builtin_cpu_supports("avx512bf16") &&
         !__builtin_cpu_supports("amx-bf16");
#else
  return false;
#endif
}

}  // namespace san
