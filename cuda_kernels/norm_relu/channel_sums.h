// Sums over all pixels for each channel on CUDA, in two stages. For .cu files
// only.
//
// Idea. Stage one: a block owns some channels and one band of pixels; a thread
// sums all quantities of its channels over every so many pixels, in registers,
// then the block adds up its threads' sums in shared memory and writes one for
// each quantity and channel to the workspace. So all is read once. Stage two: a
// block adds up the bands' sums of a few channels. Every sum has one writer and
// an order that depends on sizes and alignment alone: no atomics, the same bits
// in every run, on large GPUs and small ones, as there are blocks for all.
//
// A thread sums kRun pixels at a time in the accumulator, and these sums in
// float64: so the error does not grow with the number of pixels, and GPUs whose
// float64 is 64 times slower still wait for memory, not for it.
#ifndef CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_
#define CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_

#include <algorithm>

#include "cuda_kernels/cuda/ordered_sum.h"
#include "cuda_kernels/norm_relu/cuda_vectors.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace san::norm_relu {
namespace {

constexpr int kRun = 16;
constexpr int kFinishLanes = 8, kFinishRows = 32;

// What is summed: a `Value` has
//   A                         the type of the sums of kRun pixels
//   kChannels, kQuantities       channels and quantities of a thread
//   kInFlight                 pixels whose loads are under way together
//   quantities                in all, kQuantities of them for each blockIdx.z
//   Channels                  what is the same for all pixels of kChannels
//                             channels: Channels(value, first channel)
//   Pixel                     what is loaded of one: Pixel(value, p, channel)
//   add(channels, pixel, p, c, sums)   to sums[kQuantities][kChannels]

// workspace[band, q, c] = sum over the band's pixels.
template <typename Value, typename Index>
__global__ void __launch_bounds__(kThreads)
    add_band(Value value, Index pixels, Index channels, double* workspace) {
  using A = typename Value::A;
  constexpr int kChannels = Value::kChannels, kQuantities = Value::kQuantities;
  constexpr int kInFlight = Value::kInFlight;
  const Index c = own_channel<Index>(kChannels);
  const Index rows = blockDim.y;
  const Index height = (pixels + gridDim.x - 1) / gridDim.x;
  const Index begin = blockIdx.x * height;
  const Index end = begin + height < pixels ? begin + height : pixels;
  double sums[kQuantities][kChannels] = {};
  if (c < channels) {
    const typename Value::Channels own(value, c);
    Index p = begin + threadIdx.y;
#pragma unroll 1
    while (p < end) {
      A run[kQuantities][kChannels] = {};
#pragma unroll 1
      for (int i = 0; i < kRun && p < end; i += kInFlight) {
        typename Value::Pixel loaded[kInFlight];
#pragma unroll
        for (int j = 0; j < kInFlight; ++j)
          if (p + j * rows < end) loaded[j].load(value, p + j * rows, c);
#pragma unroll
        for (int j = 0; j < kInFlight; ++j)
          if (p + j * rows < end)
            value.add(own, loaded[j], p + j * rows, c, run);
        p += kInFlight * rows;
      }
#pragma unroll
      for (int q = 0; q < kQuantities; ++q)
#pragma unroll
        for (int v = 0; v < kChannels; ++v) sums[q][v] += run[q][v];
    }
  }

  // [row, quantity, channel of the block].
  double* shared = reinterpret_cast<double*>(shared_memory());
  const unsigned columns = blockDim.x * kChannels;
#pragma unroll
  for (int q = 0; q < kQuantities; ++q)
#pragma unroll
    for (int v = 0; v < kChannels; ++v)
      shared[(threadIdx.y * kQuantities + q) * columns +
             threadIdx.x * kChannels + v] = sums[q][v];
  __syncthreads();
  const Index left = Index{blockIdx.y} * columns;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll 1
  for (unsigned i = thread; i < kQuantities * columns; i += kThreads) {
    double total = 0;
#pragma unroll 4
    for (unsigned row = 0; row < blockDim.y; ++row)
      total += shared[row * kQuantities * columns + i];
    const int64_t q = int64_t{blockIdx.z} * kQuantities + i / columns;
    const Index channel = left + i % columns;
    if (q < value.quantities && channel < channels)
      workspace[(blockIdx.x * value.quantities + q) * channels + channel] =
          total;
  }
}

// Calls finish(first, c, totals) with the sums of kQuantities quantities of a
// channel, the first of which is `first`.
template <int kQuantities, typename Finish>
__global__ void finish_sums(Finish finish, int64_t bands, int64_t quantities,
                            int64_t channels, const double* workspace) {
  const int64_t c = int64_t{blockIdx.x} * kFinishLanes + threadIdx.x;
  const int64_t first = int64_t{blockIdx.y} * kQuantities;
  sum_in_order<kFinishLanes, kFinishRows, double, kQuantities>(
      threadIdx.x, threadIdx.y, c < channels, bands,
      [&](int64_t band, double (&sums)[kQuantities]) {
#pragma unroll
        for (int q = 0; q < kQuantities; ++q)
          sums[q] += workspace[(band * quantities + first + q) * channels + c];
      },
      [&](const double (&totals)[kQuantities]) { finish(first, c, totals); });
}

// Sums the values of each channel over all pixels; finish(first, c, totals)
// writes kFinished of them at a time, of which their number is a multiple.
template <int kFinished, typename Index, typename Value, typename Finish>
void sum_channels(const Value& value, const Finish& finish, int64_t pixels,
                  int64_t channels, double* workspace, void* stream) {
  if (channels == 0) return;
  const int64_t vectors = channels / Value::kChannels;
  const dim3 block = block_of(vectors);
  const int64_t across = blocks_of(vectors, block.x);
  const int64_t quantities = value.quantities;
  // At most most_bands(channels): no block has more than 256 channels.
  const int64_t bands = std::max<int64_t>(
      1, std::min(kSumBlocksOnCuda / across, blocks_of(pixels, block.y * 8)));
  launch(
      &add_band<Value>,
      {dim3(static_cast<unsigned>(bands), static_cast<unsigned>(across),
            static_cast<unsigned>(blocks_of(quantities, Value::kQuantities))),
       block,
       kThreads * Value::kChannels * Value::kQuantities * sizeof(double)},
      stream, value, static_cast<Index>(pixels), static_cast<Index>(channels),
      workspace);
  launch(&finish_sums<kFinished, Finish>,
         {dim3(static_cast<unsigned>(blocks_of(channels, kFinishLanes)),
               static_cast<unsigned>(quantities / kFinished)),
          dim3(kFinishLanes, kFinishRows),
          kOrderedSumBytes<kFinishLanes, kFinishRows, double, kFinished>},
         stream, finish, bands, quantities, channels,
         static_cast<const double*>(workspace));
}

}  // namespace
}  // namespace san::norm_relu

#endif  // CUDA_KERNELS_NORM_RELU_CHANNEL_SUMS_H_
