// The weights of the footprint by tensor cores, for the kernels that make them
// of hidden: mapped[p, g] of a tap is a product of 16 pixels, G deep, with 8 or
// 16 weight channels. For .cu files only.
//
// A warp has a unit of 8 or 16 weight channels, and a lane two or four
// neighbours of these, of one product or of two, so that it reads neighbours of
// value: the columns of the products are in that order. SAN's first layer has
// two weight channels: there every lane has both, in columns of its own, and
// two of the 8 members.
#ifndef CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_
#define CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_

#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/patchwise/tensor_tile.h"

namespace san::patchwise {
namespace {

// Channels of value that share a weight channel.
constexpr int kMembers = 8;

// Weight channels of a lane, and products of 8 columns that hold a unit's.
template <int kUnit>
constexpr int kOwn = kUnit > kWide ? 4 : 2;
template <int kUnit>
constexpr int kProducts = kOwn<kUnit> / 2;
// Members of a lane, and those of them that are neighbours.
template <int kUnit>
constexpr int kLaneMembers = kUnit == 2 ? 2 : kMembers;
template <int kUnit>
constexpr int kNeighbours = kUnit == 2 ? 2 : 1;

// From pixel to pixel of what is like value: by member, then weight channel,
// and a gap that puts what the lanes read at once into different banks.
template <int kUnit>
constexpr int kPixelPitch = kMembers * kUnit + (kUnit > kWide ? kUnit : kWide);

// The largest unit: a lane has registers for the sums of four channels of half
// types.
template <typename T>
constexpr int kMostUnit = kIsHalf<T> ? 16 : kWide;

// The lane's first weight channel in a unit, and where that is in a pixel.
template <int kUnit>
__device__ int first_channel(int member) {
  return kUnit == 2 ? 0 : member * kOwn<kUnit>;
}
template <int kUnit>
__device__ int first_element(int member) {
  return member * (kUnit == 2 ? kLaneMembers<kUnit> * kUnit : kOwn<kUnit>);
}

// Calls f with the unit of G weight channels, at most kMost, as a type.
template <int kMost, typename F>
void with_unit(int G, F f) {
  if (G == 2) return f(std::integral_constant<int, 2>());
  if constexpr (kMost > kWide)
    if (G > kWide) return f(std::integral_constant<int, kMost>());
  f(std::integral_constant<int, kWide>());
}

// How the channels of a unit are copied: all of a pixel at once if they are its
// only unit.
template <typename T>
Runs<T> runs_of(const Image<const T>& image, int G, int unit) {
  return G == unit ? Runs<T>(image, kMembers * G, 1, 0, kMembers * G)
                   : Runs<T>(image, G, kMembers, G, unit);
}
// The elements of a run that exist, of the unit that begins with channel g.
template <typename T>
__device__ int valid_of(const Runs<T>& runs, int G, int g) {
  return runs.count == 1 ? runs.width : min(G - g, runs.width);
}

// Weights and biases in the order of their use.
template <typename T>
struct CoreParameters {
  int G, K;
  int products, units, depth;   // of a unit; how many; steps
  int weights_step, bias_step;  // from tap to tap
  size_t bytes;
  Right<T>* weights;  // [K, units, depth, products, lanes]
  float* bias;        // [K, units, products * 8]

  CoreParameters(const PatchwiseCoreForward& task, void* workspace)
      : G(static_cast<int>(task.weight_channels)),
        K(static_cast<int>(task.window.taps())),
        products(kMostUnit<T> > kWide && G > kWide ? 2 : 1),
        units(static_cast<int>(pieces(G, columns()))),
        depth(static_cast<int>(pieces(G, kDeep))),
        weights_step(units * depth * products * 32),
        bias_step(units * columns()) {
    Arena arena(aligned(workspace));
    weights = arena.take<Right<T>>(int64_t{K} * weights_step);
    bias = arena.take<float>(int64_t{K} * bias_step);
    bytes = arena.bytes();
  }

  // Columns of a unit's products.
  SAN_HOST_DEVICE int columns() const { return products * kWide; }
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
  for (int64_t i = first; i < int64_t{p.K} * p.weights_step; i += stride) {
    const int lane = static_cast<int>(i % 32), column = lane / 4;
    const int64_t step = i / 32 / p.products, unit = step / p.depth;
    const int lane_first = p.G == 2 ? 0 : column / 2 * (p.products * 2);
    const int g = static_cast<int>(unit % p.units) * p.columns() + lane_first +
                  static_cast<int>(i / 32 % p.products) * 2 + column % 2;
    const int from = static_cast<int>(step % p.depth) * kDeep + lane % 4 * 4;
    const int64_t tap = unit / p.units;
    float values[4];
    for (int j = 0; j < 4; ++j)
      values[j] = g < p.G && from + j < p.G
                      ? a.weight[(g * int64_t{p.K} + tap) * p.G + from + j]
                      : 0;
    p.weights[i] = right_of<T>(values);
  }
  for (int64_t i = first; i < int64_t{p.K} * p.bias_step; i += stride) {
    const int g = static_cast<int>(i % (p.G == 2 ? 2 : p.bias_step));
    p.bias[i] = g < p.G ? a.bias[g * int64_t{p.K} + i / p.bias_step] : 0;
  }
}

template <typename T>
void launch_pack(const PatchwiseCoreForward& task, const CoreParameters<T>& to,
                 void* stream) {
  launch(&pack_core<T>,
         {blocks_for(pieces(int64_t{to.K} * to.weights_step, kMostThreads)),
          kMostThreads},
         stream,
         PackCore<T>{to, static_cast<const float*>(task.weight),
                     static_cast<const float*>(task.bias)});
}

// Left sides of the lanes of kTileThreads threads in shared memory: 16 bytes of
// each lane side by side, in different banks.
template <typename T>
class LeftSides {
 public:
  SAN_HOST_DEVICE LeftSides(int steps, Arena& arena)
      : quarters_(arena.take<Quarter>(steps * kQuarters * kTileThreads)) {}

  __device__ void store(int step, int thread, const Left<T>& left) const {
#pragma unroll
    for (int i = 0; i < kQuarters; ++i)
      at(step, i, thread) = {left.words[4 * i], left.words[4 * i + 1],
                             left.words[4 * i + 2], left.words[4 * i + 3]};
  }
  __device__ Left<T> load(int step, int thread) const {
    Left<T> left;
#pragma unroll
    for (int i = 0; i < kQuarters; ++i) {
      const Quarter quarter = at(step, i, thread);
#pragma unroll
      for (int j = 0; j < 4; ++j) left.words[4 * i + j] = quarter.words[j];
    }
    return left;
  }

 private:
  struct alignas(16) Quarter {
    uint32_t words[4];
  };
  static constexpr int kQuarters = kLeftWords<T> / 4;

  __device__ Quarter& at(int step, int i, int thread) const {
    return quarters_[(step * kQuarters + i) * kTileThreads + thread];
  }
  Quarter* quarters_;
};

// Writes hidden of a tile as the products have it, zeros where there is no
// pixel. The warps of one part do so.
template <typename T>
__device__ void stage_hidden(const float* hidden, const CoreParameters<T>& p,
                             const Layout& layout, const Tile& tile,
                             const LanePixels& pixels, const LeftSides<T>& to) {
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
    to.store(d, threadIdx.x, left_of<T>(values));
  }
}

// What a lane reads of the parameters: those of one tap and unit at a time.
template <int kUnit, typename T>
struct WeightReader {
  const CoreParameters<T>& p;
  const Right<T>* weights;
  const float* bias;

  __device__ WeightReader(const CoreParameters<T>& p, int tap, int unit)
      : p(p),
        weights(p.weights + int64_t{tap} * p.weights_step +
                unit * p.depth * (kProducts<kUnit> * 32) + lane()),
        bias(p.bias + int64_t{tap} * p.bias_step +
             unit * (kProducts<kUnit> * kWide) + lane() % 4 * kOwn<kUnit>) {}

  __device__ void skip(int taps) {
    weights += taps * p.weights_step;
    bias += taps * p.bias_step;
  }

  // The weights of the tap: hidden(step) is the left side of a step.
  template <typename Hidden>
  __device__ void make(Hidden hidden, float (&to)[kProducts<kUnit>][4]) const {
    float starts[kOwn<kUnit>];
    load(bias, starts);
#pragma unroll
    for (int j = 0; j < kProducts<kUnit>; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) to[j][i] = starts[j * 2 + i % 2];
    const Right<T>* from = weights;
    const auto add_step = [&](int d) {
      const Left<T> left = hidden(d);
#pragma unroll
      for (int j = 0; j < kProducts<kUnit>; ++j) {
        const Right<T> right = from[j * 32];
        multiply(to[j], left, right);
      }
    };
    add_step(0);
#pragma unroll 1  // most often there is one step
    for (int d = 1; d < p.depth; ++d) {
      from += kProducts<kUnit> * 32;
      add_step(d);
    }
  }
};

// Sums of a lane: of each member, pixel and weight channel.
template <int kUnit>
using LaneSums = float[kLaneMembers<kUnit>][2][kOwn<kUnit>];

// Adds the lane's channels of what its two pixels see, weighed.
template <int kUnit, typename T>
__device__ void weigh(const T* const (&from)[2],
                      const float (&weights)[kProducts<kUnit>][4],
                      LaneSums<kUnit>& sums) {
  constexpr int kCount = kOwn<kUnit>, kNear = kNeighbours<kUnit>;
#pragma unroll
  for (int m = 0; m < kLaneMembers<kUnit>; m += kNear)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float seen[kNear * kCount];
      load(from[i] + m * kUnit, seen);
#pragma unroll
      for (int j = 0; j < kNear * kCount; ++j)
        sums[m + j / kCount][i][j % kCount] +=
            weights[j % kCount / 2][i * 2 + j % 2] * seen[j];
    }
}

// An image like value that is written.
template <typename T>
struct ValueImage {
  Image<T> image;
  int G;
  bool whole;  // whether a lane's channels of one member are a single store

  ValueImage(const WritablePixels& pixels, const CoreParameters<T>& p)
      : image(pixels), G(p.G), whole(divides(2 * p.products)) {}

 private:
  bool divides(int own) const {
    return reinterpret_cast<uintptr_t>(image.data) % (own * sizeof(T)) == 0 &&
           image.pitch % own == 0 && G % own == 0;
  }
};

// Writes the lane's sums, of the unit that begins with g.
template <int kUnit, typename T>
__device__ void store_value(const ValueImage<T>& to, const Layout& layout,
                            const Tile& tile, int g, int member,
                            const LanePixels& pixels,
                            const LaneSums<kUnit>& sums) {
  constexpr int kCount = kOwn<kUnit>;
  struct alignas(kCount * sizeof(T)) Elements {
    T at[kCount];
  };
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int own = g + first_channel<kUnit>(member);
    if (!pixels.exists(tile, i) || own >= to.G) continue;
    T* const first = to.image.at(pixels.in_batch(layout, tile, i)) + g +
                     first_element<kUnit>(member);
#pragma unroll
    for (int m = 0; m < kLaneMembers<kUnit>; ++m) {
      Elements elements;
#pragma unroll
      for (int j = 0; j < kCount; ++j)
        elements.at[j] = rounded<T>(sums[m][i][j]);
      if (to.whole) {
        *reinterpret_cast<Elements*>(first + m * to.G) = elements;
        continue;
      }
#pragma unroll
      for (int j = 0; j < kCount; ++j)
        if (own + j < to.G) first[m * to.G + j] = elements.at[j];
    }
  }
}

}  // namespace
}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_TENSOR_WEIGHTS_H_
