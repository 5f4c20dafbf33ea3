// What the lanes of a warp do together, one instruction at a time: fragments
// are collected as cuda/matrix.h says where their elements are.
#include "cuda_kernels/cuda/copy.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/cuda/matrix.h"
#include "tests/emulated_cuda/warp_kernels.h"

namespace san::warps {
namespace {

LaunchShape warps(int count, size_t shared_bytes = 0) {
  LaunchShape shape;
  shape.grid = dim3(1);
  shape.block = dim3(32 * count);
  shape.shared_bytes = shared_bytes;
  return shape;
}

template <typename T>
__device__ uint32_t pair(T low, T high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}

template <typename T>
__device__ void collect(const T* a, const T* b, int group, int member,
                        uint32_t (&fragment_a)[4], uint32_t (&fragment_b)[2]) {
  for (int i = 0; i < 4; ++i) {
    const T* at = a + (group + i % 2 * 8) * 16 + 2 * member + i / 2 * 8;
    fragment_a[i] = pair(at[0], at[1]);
  }
  for (int i = 0; i < 2; ++i) {
    const T* at = b + (2 * member + i * 8) * 8 + group;
    fragment_b[i] = pair(at[0], at[8]);
  }
}

inline __device__ void collect(const float* a, const float* b, int group,
                               int member, uint32_t (&fragment_a)[4],
                               uint32_t (&fragment_b)[2]) {
  for (int i = 0; i < 4; ++i)
    fragment_a[i] = tf32(a[(group + i % 2 * 8) * 8 + member + i / 2 * 4]);
  for (int i = 0; i < 2; ++i)
    fragment_b[i] = tf32(b[(member + i * 4) * 8 + group]);
}

template <typename T>
__global__ void multiply_fragments(const T* a, const T* b, float* sums) {
  const int group = lane() / 4, member = lane() % 4;
  uint32_t fragment_a[4], fragment_b[2];
  collect(a, b, group, member, fragment_a, fragment_b);
  float mine[4];
  for (int i = 0; i < 4; ++i)
    mine[i] = sums[(group + i / 2 * 8) * 8 + 2 * member + i % 2];
  if constexpr (sizeof(T) == 2)
    multiply_16x8x16<T>(mine, fragment_a, fragment_b);
  else
    multiply_16x8x8(mine, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i)
    sums[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = mine[i];
}

template <int kCount, bool kTransposed>
__global__ void load(const uint16_t* matrices, uint32_t* to) {
  auto* rows = reinterpret_cast<uint16_t (*)[8]>(shared_memory());
  for (int i = lane(); i < kCount * 64; i += 32)
    rows[i / 8][i % 8] = matrices[i];
  warp_sync();
  uint32_t mine[kCount];
  if constexpr (kTransposed)
    load_transposed(mine, rows[lane() % (8 * kCount)]);
  else
    load_matrices(mine, rows[lane() % (8 * kCount)]);
  for (int i = 0; i < kCount; ++i) to[lane() * kCount + i] = mine[i];
}

template <int kBytes>
__global__ void copy(const char* from, const int* bytes, char* to) {
  auto* mine = reinterpret_cast<char*>(shared_memory()) + lane() * kBytes;
  copy_async<kBytes>(mine, from + lane() * kBytes, bytes[lane()]);
  commit_copies();
  wait_copies<0>();
  for (int i = 0; i < kBytes; ++i) to[lane() * kBytes + i] = mine[i];
}

__global__ void shuffles(const double* x, double* to) {
  const unsigned parity = 0x55555555u << lane() % 2;
  to[lane()] = shuffle(x[lane()], 5);
  to[32 + lane()] = shuffle_xor(x[lane()], 9);
  to[64 + lane()] = shuffle_down(x[lane()], 3);
  to[96 + lane()] = shuffle_down(x[lane()], 2, parity);
}

__global__ void votes(const int* x, unsigned* to) {
  const bool value = x[lane()] > 0;
  const unsigned half = lane() < 16 ? 0xffffu : 0xffff0000u;
  to[lane()] = ballot(value, half);
  to[32 + lane()] = any(value, half);
  to[64 + lane()] = all(value, half);
}

__global__ void hand_over(const int* x, int* to) {
  int* shared = reinterpret_cast<int*>(shared_memory());
  const int thread = static_cast<int>(threadIdx.x);
  const bool third = thread >= 64;
  if (!third) shared[thread] = x[thread];
  barrier(third ? 2 : 1, third ? 32 : 64);
  if (!third) to[thread] = shared[63 - thread];
}

template <int kCount>
void load_counted(const uint16_t* matrices, bool transposed, uint32_t* to,
                  void* stream) {
  launch(transposed ? &load<kCount, true> : &load<kCount, false>,
         warps(1, kCount * 128), stream, matrices, to);
}

template <int kBytes>
void copy_sized(const void* from, const int* bytes, void* to, void* stream) {
  launch(&copy<kBytes>, warps(1, 32 * kBytes), stream,
         static_cast<const char*>(from), bytes, static_cast<char*>(to));
}

template <typename T>
void multiply_typed(const void* a, const void* b, float* sums, void* stream) {
  launch(&multiply_fragments<T>, warps(1), stream, static_cast<const T*>(a),
         static_cast<const T*>(b), sums);
}

}  // namespace

void multiply_once(ScalarType type, const void* a, const void* b, float* sums,
                   void* stream) {
  if (type == ScalarType::kBfloat16)
    multiply_typed<bfloat16>(a, b, sums, stream);
  else if (type == ScalarType::kFloat16)
    multiply_typed<float16>(a, b, sums, stream);
  else
    multiply_typed<float>(a, b, sums, stream);
}

void load_once(const uint16_t* matrices, int count, bool transposed,
               uint32_t* to, void* stream) {
  const auto load = count == 1   ? &load_counted<1>
                    : count == 2 ? &load_counted<2>
                                 : &load_counted<4>;
  load(matrices, transposed, to, stream);
}

void copy_once(int size, const void* from, const int* bytes, void* to,
               void* stream) {
  const auto copy = size == 4   ? &copy_sized<4>
                    : size == 8 ? &copy_sized<8>
                                : &copy_sized<16>;
  copy(from, bytes, to, stream);
}

void shuffle_once(const double* x, double* to, void* stream) {
  launch(&shuffles, warps(1), stream, x, to);
}

void vote_once(const int* x, unsigned* to, void* stream) {
  launch(&votes, warps(1), stream, x, to);
}

void relay(const int* x, int* to, void* stream) {
  launch(&hand_over, warps(3, 64 * sizeof(int)), stream, x, to);
}

}  // namespace san::warps
