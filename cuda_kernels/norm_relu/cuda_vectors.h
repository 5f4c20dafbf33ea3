// How the CUDA kernels around attention share out images [N, H, W, C], and the
// accesses by which they read and write them. For .cu files only.
//
// Idea. All of it streams, so that the fewest instructions for each byte win: a
// thread owns the channels of a pixel that 16 bytes hold, numbers pixels in 32
// bits, and has some such accesses under way at once. Where sizes or addresses
// do not allow that, it owns one channel and numbers pixels in 64 bits.
// Neighbouring threads own neighbouring channels, those of a block up to 32
// times that many channels of as many pixels as it has threads for.
#ifndef CUDA_KERNELS_NORM_RELU_CUDA_VECTORS_H_
#define CUDA_KERNELS_NORM_RELU_CUDA_VECTORS_H_

#include <initializer_list>
#include <type_traits>

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/scalar_types.h"

namespace san::norm_relu {
namespace {

constexpr unsigned kThreads = 256, kMostLanes = 32;
constexpr int kWideBytes = 16;

// Elements of a thread's accesses to T of `kBytes`.
template <typename T, int kBytes>
constexpr int kWidth = kBytes / static_cast<int>(sizeof(T));

// What counts channels, and pixels and windows of a whole batch.
template <int kBytes>
using IndexOf = std::conditional_t<kBytes == kWideBytes, uint32_t, uint64_t>;

// Elements that lie side by side, `values` where they are computed with. The
// widest access has 16 bytes; what is wider is several of them.
template <int kCount, typename T>
__device__ void load(const T* from, Accumulator<T> (&values)[kCount]) {
  constexpr int kMost = kWidth<T, kWideBytes>;
  constexpr int kPiece = kCount < kMost ? kCount : kMost;
  struct alignas(kPiece * sizeof(T)) Piece {
    T elements[kPiece];
  };
#pragma unroll
  for (int i = 0; i < kCount; i += kPiece) {
    const Piece piece = *reinterpret_cast<const Piece*>(from + i);
#pragma unroll
    for (int j = 0; j < kPiece; ++j) values[i + j] = wide(piece.elements[j]);
  }
}
template <int kCount, typename T>
__device__ void store(T* to, const Accumulator<T> (&values)[kCount]) {
  constexpr int kMost = kWidth<T, kWideBytes>;
  constexpr int kPiece = kCount < kMost ? kCount : kMost;
  struct alignas(kPiece * sizeof(T)) Piece {
    T elements[kPiece];
  };
#pragma unroll
  for (int i = 0; i < kCount; i += kPiece) {
    Piece piece;
#pragma unroll
    for (int j = 0; j < kPiece; ++j)
      piece.elements[j] = rounded<T>(values[i + j]);
    *reinterpret_cast<Piece*>(to + i) = piece;
  }
}

// The first of the running thread's channels of `width` each, and the first of
// its pixels where a block does `per_thread`; others follow blockDim.y apart.
template <typename Index>
__device__ Index own_channel(int width) {
  return (Index{blockIdx.y} * blockDim.x + threadIdx.x) * width;
}
template <typename Index>
__device__ Index first_pixel(int per_thread) {
  return Index{blockIdx.x} * blockDim.y * per_thread + threadIdx.y;
}

inline int64_t blocks_of(int64_t count, int64_t per_block) {
  return (count + per_block - 1) / per_block;
}

// A block for `vectors` side by side: no more lanes than these need.
inline dim3 block_of(int64_t vectors) {
  unsigned lanes = 1;
  while (lanes < kMostLanes && lanes < vectors) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

// Launches a kernel whose threads do `per_thread` pixels of `width` channels,
// if there are any.
template <typename... Parameters>
void launch_vectors(void (*kernel)(Parameters...), int per_thread, int width,
                    int64_t pixels, int64_t channels, void* stream,
                    Parameters... parameters) {
  if (pixels == 0 || channels == 0) return;
  const int64_t vectors = channels / width;
  const dim3 block = block_of(vectors);
  launch(kernel,
         {dim3(static_cast<unsigned>(
                   blocks_of(pixels, int64_t{block.y} * per_thread)),
               static_cast<unsigned>(blocks_of(vectors, block.x))),
          block},
         stream, parameters...);
}

// Whether images of T, and vectors, at these addresses allow accesses of 16
// bytes, and numbers below 2^31. float64, which is for checking, does without.
template <typename T>
bool allows_wide(int64_t pixels, int64_t channels,
                 std::initializer_list<const void*> addresses) {
  constexpr int64_t kMost = 0x7fffffff - kThreads * kWideBytes;
  bool wide = !std::is_same_v<T, double> && pixels <= kMost &&
              channels <= kMost && channels % kWidth<T, kWideBytes> == 0;
  for (const void* address : addresses)
    wide = wide && reinterpret_cast<uintptr_t>(address) % kWideBytes == 0;
  return wide;
}

// Calls f(kBytes), an integral constant: the size of accesses to T.
template <typename T, typename F>
void with_bytes(bool wide, F f) {
  if constexpr (!std::is_same_v<T, double>)
    if (wide) return f(std::integral_constant<int, kWideBytes>());
  f(std::integral_constant<int, sizeof(T)>());
}

}  // namespace
}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_CUDA_VECTORS_H_
