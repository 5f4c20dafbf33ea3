// The weights of the footprint by tensor cores, for the kernels that make them
// of hidden: mapped[p, g] of a tap is a product of 16 pixels, G deep, with 8 or
// 16 weight channels. For .cu files only.
//
// A lane has kOwn neighbouring weight channels of its pixels, of one product or
// of two, so that it reads neighbours of value: the columns of the products are
// in that order.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_

#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/patchwise/tensor_tile.h"

namespace san::patchwise {
namespace {

// Channels of value that share a weight channel.
constexpr int kMembers = 8;

// Of a lane with kOwn weight channels: the products and the channels of its
// warp.
template <int kOwn>
constexpr int kProducts = kOwn / 2;
template <int kOwn>
constexpr int kUnit = kOwn * 4;

// Weights and biases in the order of their use.
template <typename T>
struct CoreParameters {
  int G, K;
  int own, units, depth;  // of a lane; of 4 * own channels; steps
  size_t bytes;
  Right<T>* weights;  // [K, units, depth, products, lanes]
  float* bias;        // [K, units, unit]

  CoreParameters(const PatchwiseCoreForward& task, void* workspace)
      : G(static_cast<int>(task.weight_channels)),
        K(static_cast<int>(task.window.taps())),
        own(kIsHalf<T> && G > kWide ? 4 : 2),
        units(static_cast<int>(pieces(G, own * 4))),
        depth(static_cast<int>(pieces(G, kDeep))) {
    Arena arena(aligned(workspace));
    weights = arena.take<Right<T>>(fragments() * 32);
    bias = arena.take<float>(int64_t{K} * units * own * 4);
    bytes = arena.bytes();
  }

  SAN_HOST_DEVICE int64_t fragments() const {
    return int64_t{K} * units * (own / 2) * depth;
  }
  SAN_HOST_DEVICE int unit() const { return own * 4; }
};

template <typename T>
struct PackCore {
  CoreParameters<T> to;
  const float *weight, *bias;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads) pack_core(PackCore<T> a) {
  const CoreParameters<T>& p = a.to;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = first; i < p.fragments() * 32; i += stride) {
    const int lane = static_cast<int>(i % 32), column = lane / 4;
    const int64_t step = i / 32 / (p.own / 2), unit = step / p.depth;
    const int g = static_cast<int>(unit % p.units) * p.unit() +
                  column / 2 * p.own +
                  static_cast<int>(i / 32 % (p.own / 2)) * 2 + column % 2;
    const int from = static_cast<int>(step % p.depth) * kDeep + lane % 4 * 4;
    const int64_t tap = unit / p.units;
    float values[4];
    for (int j = 0; j < 4; ++j)
      values[j] = g < p.G && from + j < p.G
                      ? a.weight[(g * int64_t{p.K} + tap) * p.G + from + j]
                      : 0;
    p.weights[i] = right_of<T>(values);
  }
  const int width = p.units * p.unit();
  for (int64_t i = first; i < int64_t{p.K} * width; i += stride) {
    const int g = static_cast<int>(i % width);
    p.bias[i] = g < p.G ? a.bias[g * int64_t{p.K} + i / width] : 0;
  }
}

template <typename T>
void launch_pack(const PatchwiseCoreForward& task, const CoreParameters<T>& to,
                 void* stream) {
  launch(&pack_core<T>,
         {blocks_for(pieces(to.fragments() * 32, kMostThreads)), kMostThreads},
         stream,
         PackCore<T>{to, static_cast<const float*>(task.weight),
                     static_cast<const float*>(task.bias)});
}

// Writes hidden of a tile as the products have it to to[step][tile warp][lane],
// zeros where there is no pixel. The warps of one part do so.
template <typename T>
__device__ void stage_hidden(const float* hidden, const CoreParameters<T>& p,
                             const Layout& layout, const Tile& tile,
                             const LanePixels& pixels, Left<T>* to) {
  for (int d = 0; d < p.depth; ++d) {
    float values[2][4];
    for (int i = 0; i < 2; ++i) {
      const bool exists = pixels.exists(tile, i);
      const int g = d * kDeep + lane() % 4 * 4;
      const float* const from =
          hidden + (exists ? pixels.in_batch(layout, tile, i) * p.G : 0);
      for (int j = 0; j < 4; ++j)
        values[i][j] = exists && g + j < p.G ? from[g + j] : 0;
    }
    to[d * kTileThreads + threadIdx.x] = left_of<T>(values);
  }
}

// What a lane reads of the parameters: those of one tap and unit at a time.
template <int kOwn, typename T>
struct WeightReader {
  const Right<T>* weights;
  const float* bias;
  int weights_step, bias_step;  // from tap to tap
  int depth;

  __device__ WeightReader(const CoreParameters<T>& p, int tap, int unit)
      : weights_step(p.units * p.depth * (kProducts<kOwn> * 32)),
        bias_step(p.units * kUnit<kOwn>),
        depth(p.depth) {
    weights = p.weights + int64_t{tap} * weights_step +
              unit * p.depth * (kProducts<kOwn> * 32) + lane();
    bias = p.bias + int64_t{tap} * bias_step + unit * kUnit<kOwn> +
           lane() % 4 * kOwn;
  }

  __device__ void skip(int taps) {
    weights += taps * weights_step;
    bias += taps * bias_step;
  }

  // The weights of the tap: hidden(step) is the left side of a step.
  template <typename Hidden>
  __device__ void make(Hidden hidden, float (&to)[kProducts<kOwn>][4]) const {
    float starts[kOwn];
    load(bias, starts);
#pragma unroll
    for (int j = 0; j < kProducts<kOwn>; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) to[j][i] = starts[j * 2 + i % 2];
    const Right<T>* from = weights;
    const auto add_step = [&](int d) {
      const Left<T> left = hidden(d);
#pragma unroll
      for (int j = 0; j < kProducts<kOwn>; ++j) {
        const Right<T> right = from[j * 32];
        multiply(to[j], left, right);
      }
    };
    add_step(0);
#pragma unroll 1  // most often there is one step
    for (int d = 1; d < depth; ++d) {
      from += kProducts<kOwn> * 32;
      add_step(d);
    }
  }
};

// Adds to sums[m][pixel] the lane's channels of what its two pixels see,
// weighed.
template <int kOwn, typename T>
__device__ void weigh(const T* const (&from)[2],
                      const float (&weights)[kProducts<kOwn>][4],
                      float (&sums)[kMembers][2][kOwn]) {
#pragma unroll
  for (int m = 0; m < kMembers; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float seen[kOwn];
      load(from[i] + m * kUnit<kOwn>, seen);
#pragma unroll
      for (int j = 0; j < kOwn; ++j)
        sums[m][i][j] += weights[j / 2][i * 2 + j % 2] * seen[j];
    }
}

// An image like value that is written.
template <typename T>
struct ValueImage {
  Image<T> image;
  int G;
  bool whole;  // whether a lane's channels of one member are a single store

  ValueImage(const WritablePixels& pixels, const CoreParameters<T>& p)
      : image(pixels),
        G(p.G),
        whole(reinterpret_cast<uintptr_t>(image.data) % (p.own * sizeof(T)) ==
                  0 &&
              image.pitch % p.own == 0 && G % p.own == 0) {}
};

// Writes the lane's sums, whose first weight channel is g.
template <int kOwn, typename T>
__device__ void store_value(const ValueImage<T>& to, const Layout& layout,
                            const Tile& tile, int g, const LanePixels& pixels,
                            const float (&sums)[kMembers][2][kOwn]) {
  struct alignas(kOwn * sizeof(T)) Elements {
    T at[kOwn];
  };
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (!pixels.exists(tile, i) || g >= to.G) continue;
    T* const first = to.image.at(pixels.in_batch(layout, tile, i)) + g;
#pragma unroll
    for (int m = 0; m < kMembers; ++m) {
      Elements elements;
#pragma unroll
      for (int j = 0; j < kOwn; ++j) elements.at[j] = rounded<T>(sums[m][i][j]);
      if (to.whole) {
        *reinterpret_cast<Elements*>(first + m * to.G) = elements;
        continue;
      }
#pragma unroll
      for (int j = 0; j < kOwn; ++j)
        if (g + j < to.G) first[m * to.G + j] = elements.at[j];
    }
  }
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_
