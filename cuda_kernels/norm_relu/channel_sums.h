// Sums over all pixels for each channel on CUDA, in two stages. For .cu files
// only.
//
// Idea. Stage one: a block owns 32 channels and one band of pixels; its threads
// sum every kRows-th pixel in registers, then over the block in shared memory,
// and write one partial sum per channel to the workspace. Stage two: a thread
// owns a channel and adds its partial sums, kBandsOnCuda at most, in order.
// Every sum has one writer and a fixed order: no atomics, the same bits in
// every run.
//
// A thread sums kRun pixels at a time in the accumulator, and these sums in
// float64: so the error does not grow with the number of pixels, and GPUs whose
// float64 is 64 times slower still wait for memory, not for it.
#ifndef CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_
#define CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace san::norm_relu {
namespace {

// A block is kLanes channels, side by side in memory, by kRows pixels.
constexpr unsigned kLanes = 32, kRows = 8;
constexpr int64_t kRun = 16;

inline unsigned blocks_of(int64_t count, unsigned per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// Launches a kernel with a thread for each of `pixels` x `channels`, if any.
template <typename... Parameters>
void launch_elements(void (*kernel)(Parameters...), int64_t pixels,
                     int64_t channels, void* stream, Parameters... parameters) {
  if (pixels == 0 || channels == 0) return;
  launch(kernel,
         {dim3(blocks_of(pixels, kRows), blocks_of(channels, kLanes)),
          dim3(kLanes, kRows)},
         stream, parameters...);
}

// A launch with a thread for each of `channels`.
inline LaunchShape channel_shape(int64_t channels) {
  return {blocks_of(channels, 64), 64};
}

// The pixel and the channel of this thread.
inline __device__ int64_t own_pixel() {
  return static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.y;
}
inline __device__ int64_t own_channel() {
  return static_cast<int64_t>(blockIdx.y) * kLanes + threadIdx.x;
}

// workspace[band, q, c] = sum over the band's pixels p of value(p, c, q), for
// the quantity q = blockIdx.z.
template <typename A, typename Value>
__global__ void add_band(Value value, int64_t pixels, int64_t channels,
                         double* workspace) {
  double* sums = reinterpret_cast<double*>(shared_memory());
  const int64_t c = own_channel();
  const int64_t height = (pixels + gridDim.x - 1) / gridDim.x;
  const int64_t begin = blockIdx.x * height;
  const int64_t end = begin + height < pixels ? begin + height : pixels;
  double sum = 0;
  for (int64_t p = begin + threadIdx.y; p < end && c < channels;) {
    A run = 0;
    for (int64_t i = 0; i < kRun && p < end; ++i, p += kRows)
      run += value(p, c, static_cast<int>(blockIdx.z));
    sum += run;
  }
  sums[threadIdx.y * kLanes + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= channels) return;
  double total = 0;
  for (unsigned row = 0; row < kRows; ++row)
    total += sums[row * kLanes + threadIdx.x];
  workspace[(static_cast<int64_t>(blockIdx.x) * gridDim.z + blockIdx.z) *
                channels +
            c] = total;
}

// Calls finish(c, totals) with the sums of all quantities of a channel.
template <int kQuantities, typename Finish>
__global__ void finish_sums(Finish finish, int64_t bands, int64_t quantities,
                            int64_t channels, const double* workspace) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  for (int64_t first = 0; first < quantities; first += kQuantities) {
    double totals[kQuantities] = {};
    for (int64_t band = 0; band < bands; ++band)
      for (int q = 0; q < kQuantities; ++q)
        totals[q] += workspace[(band * quantities + first + q) * channels + c];
    finish(first, c, totals);
  }
}

// Sums `quantities` (a multiple of kQuantities) values of each channel over all
// pixels; `finish(first, c, totals)` writes kQuantities of them at a time.
template <typename A, int kQuantities, typename Value, typename Finish>
void sum_channels(const Value& value, const Finish& finish, int64_t quantities,
                  int64_t pixels, int64_t channels, double* workspace,
                  void* stream) {
  if (channels == 0) return;
  const int64_t bands =
      pixels < kBandsOnCuda * kRows ? blocks_of(pixels, kRows) : kBandsOnCuda;
  LaunchShape shape = {dim3(bands > 0 ? bands : 1, blocks_of(channels, kLanes),
                            static_cast<unsigned>(quantities)),
                       dim3(kLanes, kRows), kLanes * kRows * sizeof(double)};
  launch(&add_band<A, Value>, shape, stream, value, pixels, channels,
         workspace);
  launch(&finish_sums<kQuantities, Finish>, channel_shape(channels), stream,
         finish, bands, quantities, channels,
         static_cast<const double*>(workspace));
}

}  // namespace
}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_
