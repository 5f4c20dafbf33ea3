// Products of small matrices that a warp holds in its registers, by tensor
// cores, and the loads for them. For .cu files only; all 32 lanes of a warp
// call these together, at the same place of the source.
//
// Each lane holds a fragment. With group = lane / 4 and member = lane % 4, and
// two 16-bit elements in a register, the first in its lower half, they are (PTX
// ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "Matrix
// Fragments for mma.m16n8k8"; [row, column]):
//
//   sums [16, 8]    sums[i]: [group + i / 2 * 8, 2 * member + i % 2]
//   a [16, 16]      a[i]: [group + i % 2 * 8, 2 * member + i / 2 * 8 + {0, 1}]
//   b [16, 8]       b[i]: [2 * member + i * 8 + {0, 1}, group]
//   a [16, 8] tf32  a[i]: [group + i % 2 * 8, member + i / 2 * 4]
//   b [8, 8] tf32   b[i]: [member + i * 4, group]
//
// So the sums of two products side by side, rounded to 16 bits in pairs, are an
// `a`. Products are exact; their sum is a float whose order and rounding nobody
// specifies: it is off by up to 2^-18 of the largest absolute product or sum.
#ifndef CUDA_KERNELS_CUDA_MATRIX_H_
#define CUDA_KERNELS_CUDA_MATRIX_H_

#include "cuda_kernels/cuda/warp.h"
#include "cuda_kernels/scalar_types.h"

#ifndef SAN_EMULATED_CUDA

#include <type_traits>

namespace san {

// sums += a b, of bfloat16 or float16.
template <typename T>
__device__ void multiply_16x8x16(float (&sums)[4], const uint32_t (&a)[4],
                                 const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>);
  if constexpr (std::is_same_v<T, bfloat16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// sums += a b, of what tf32() returns; hardware would ignore the other bits.
inline __device__ void multiply_16x8x8(float (&sums)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The value with 10 bits of fraction, rounded to nearest, ties away from zero.
inline __device__ uint32_t tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// Loads 1, 2 or 4 matrices [8, 8] of 16-bit elements from shared memory: lane
// 8 * m + i names row i of matrix m, 16 bytes on a 16-byte boundary; what
// further lanes name is ignored. to[m] is [group, 2 * member + {0, 1}] of
// matrix m (PTX ISA, "ldmatrix").
template <int kCount>
__device__ void load_matrices(uint32_t (&to)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kCount == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(to[0])
                 : "r"(from)
                 : "memory");
  else if constexpr (kCount == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(from)
                 : "memory");
  else
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "r"(from)
        : "memory");
}

// The same of the transposes: to[m] is [2 * member + {0, 1}, group] of matrix
// m.
template <int kCount>
__device__ void load_transposed(uint32_t (&to)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kCount == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(to[0])
                 : "r"(from)
                 : "memory");
  else if constexpr (kCount == 2)
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
        : "=r"(to[0]), "=r"(to[1])
        : "r"(from)
        : "memory");
  else
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "r"(from)
        : "memory");
}

}  // namespace san

#endif  // SAN_EMULATED_CUDA
#endif  // CUDA_KERNELS_CUDA_MATRIX_H_
