// Kernels of which tests/tools/cuda_report_test.py knows what they do.
#include <cuda_bf16.h>

namespace {

// Two loops, one in the other: the outer one stores, the inner one multiplies.
template <typename T>
__global__ void nested(T* to, const T* from, int rows, int columns) {
#pragma unroll 1
  for (int row = 0; row < rows; ++row) {
    T sum = 0;
    int column = 0;
#pragma unroll 1
    do sum += from[row * columns + column] * from[column];
    while (++column < columns);
    to[row] = sum;
  }
}

// A loop that the compiler is told to unroll by four, and one after it.
__global__ void unrolled(float* to, const float* from, int count) {
  float sum = 0;
#pragma unroll 4
  for (int i = 0; i < count; ++i) sum += from[i] * from[i + 1];
  to[threadIdx.x] = sum;
#pragma unroll 1
  for (int i = 0; i < count; ++i) to[i * 2] = sum;
}

// 128 bits from global to shared memory, 16 bits back.
__global__ void copied(short* to, const float4* from) {
  __shared__ float4 tile[256];
  tile[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = reinterpret_cast<short*>(tile)[threadIdx.x * 3];
}

// More values than 32 registers hold.
__global__ void __launch_bounds__(1024, 2) spilled(float* to, const float* by) {
  float values[48];
#pragma unroll
  for (int i = 0; i < 48; ++i) values[i] = to[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 48; ++i)
#pragma unroll
    for (int j = 0; j < 48; ++j) values[i] += values[j] * by[i];
#pragma unroll
  for (int i = 0; i < 48; ++i) to[i * 1024 + threadIdx.x] = values[i];
}

// One tensor-core instruction in a loop: 16 x 8 x 16 in bfloat16.
__global__ void multiplied(float* to, const unsigned* from, int count) {
  float c[4] = {};
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const unsigned a = from[i * 32 + threadIdx.x];
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a));
  }
  for (int i = 0; i < 4; ++i) to[threadIdx.x * 4 + i] = c[i];
}

}  // namespace

void launch(float* to, const float* from, int count) {
  nested<float><<<1, 32>>>(to, from, count, count);
  nested<double><<<1, 32>>>(reinterpret_cast<double*>(to),
                            reinterpret_cast<const double*>(from), count,
                            count);
  unrolled<<<1, 32>>>(to, from, count);
  copied<<<1, 256>>>(reinterpret_cast<short*>(to),
                     reinterpret_cast<const float4*>(from));
  spilled<<<1, 1024>>>(to, from);
  multiplied<<<1, 32>>>(to, reinterpret_cast<const unsigned*>(from), count);
}
