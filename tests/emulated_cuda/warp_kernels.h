// Kernels that show and test what warps do together. Addresses of global
// memory; `stream` is a cudaStream_t.
#ifndef TESTS_EMULATED_CUDA_WARP_KERNELS_H_
#define TESTS_EMULATED_CUDA_WARP_KERNELS_H_

#include "cuda_kernels/scalar_types.h"

namespace san::warps {

// c [M, N] = a [M, K] b [K, N], summed in float. Throws std::invalid_argument
// unless N and K are multiples of 8 and a and b on 16-byte boundaries.
void multiply(const bfloat16* a, const bfloat16* b, float* c, int M, int N,
              int K, void* stream);

// Of each row of x [rows, columns].
void softmax(const float* x, float* y, int rows, int columns, void* stream);

// One instruction each, by one warp; what lane l gets is at l.

// sums [16, 8] += a [16, k] b [k, 8]: k = 16 for 16-bit elements, 8 for float,
// which are rounded to tf32.
void multiply_once(ScalarType type, const void* a, const void* b, float* sums,
                   void* stream);
// to [32, count]: what each lane loads of `count` matrices [8, 8].
void load_once(const uint16_t* matrices, int count, bool transposed,
               uint32_t* to, void* stream);
// to [32, size bytes]: what the copy of `bytes[lane]` leaves.
void copy_once(int size, const void* from, const int* bytes, void* to,
               void* stream);
// to [4, 32]: shuffle from lane 5, shuffle_xor with 9, shuffle_down by 3, and
// shuffle_down by 2 among the lanes of one parity.
void shuffle_once(const double* x, double* to, void* stream);
// to [3, 32]: ballot, any and all of x > 0 among the lanes of one half.
void vote_once(const int* x, unsigned* to, void* stream);
// to [64]: two warps hand x [64] to each other by barrier 1, while a third one,
// which they do not wait for, hands to itself.
void relay(const int* x, int* to, void* stream);

}  // namespace san::warps

#endif  // TESTS_EMULATED_CUDA_WARP_KERNELS_H_
