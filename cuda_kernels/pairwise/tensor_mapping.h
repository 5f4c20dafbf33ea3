// The fused pairwise attention on tensor cores: from the pixels of 16 pairs to
// their logits. For .cu files only.
//
// Each warp of a team makes the relation of its 16 channels, and from that of
// all of them its 16 channels of the hidden layer, and from those its 8 logits:
// nothing is made twice.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_MAPPING_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_MAPPING_H_

#include "cuda_kernels/pairwise/tensor_fragments.h"

namespace san::pairwise {
namespace {

constexpr float kLog2OfE = 1.44269504f;

// The mapping's tensors, in global memory.
struct Mapping {
  const float *scale, *shift, *table, *w1, *w2;
};

inline Mapping mapping_of(const PairwiseInputs& in) {
  const auto read = [](const void* data) {
    return static_cast<const float*>(data);
  };
  return {read(in.scale), read(in.shift), read(in.table), read(in.w1),
          read(in.w2)};
}

// The pixels of the batch in a lane's rows, lane / 4 and 8 more, or -1.
template <typename S>
struct Pixels {
  template <typename Halo>
  __device__ Pixels(const Lane<S>& lane, const Halo& halo) {
#pragma unroll
    for (int row = 0; row < 2; ++row)
      of[row] = halo.pixel(2 * lane.team + row, lane.group);
  }

  int of[2];
};

// Their pairs at an offset: the other pixels, in the halo and, where that has
// not all of them, in the batch or -1; and how often each pair counts.
template <typename S>
struct Pairs {
  template <typename Halo>
  __device__ Pairs(const Lane<S>& lane, const Halo& halo,
                   const Pixels<S>& pixels, const Tap& tap) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      others[row] = halo.other(2 * lane.team + row, lane.group, tap);
      times[row] = halo.times(2 * lane.team + row, lane.group, tap);
      if constexpr (S::kFar) {
        const bool has = pixels.of[row] >= 0 && times[row] > 0;
        of[row] = has ? pixels.of[row] + halo.away(tap) : -1;
      }
    }
  }

  // A channel and the next of the other pixel: `at` bytes from where that
  // begins in the halo, or else from [N H W, stride].
  template <typename E>
  __device__ Two<E> two_at(int row, int at, const E* from, int stride,
                           int channel) const {
    if constexpr (!S::kFar)
      return two<E>(others[row] + at + sizeof(E) * channel);
    else
      return of[row] < 0 ? Two<E>{0, 0}
                         : two<E>(from + int64_t(of[row]) * stride + channel);
  }

  const unsigned char* others[2];
  float times[2];
  int of[2];
};

// a = relu(own + factor * the other pixel's), of a lane's 16 channels.
template <typename S, Own own_pixel>
struct Relation {
  using T = typename S::T;

  // For pixels of the batch in rows lane / 4 and 8 more, -1 where there is
  // none. The block's own pixels have phi or psi.
  __device__ void begin(const Lane<S>& lane, const Mapping& mapping,
                        const T* features, const int (&pixels)[2]) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int channel = lane.channel(n) + i;
        const bool has = lane.has(channel);
        const float scale = has ? mapping.scale[channel] : 0;
        const float sign = own_pixel == Own::kP ? 1.0f : -1.0f;
        factor[n][i] = -sign * scale;
        own[n][i] = own[n][2 + i] = has ? mapping.shift[channel] : 0;
      }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      if (pixels[row] < 0) continue;
      const T* from = features + int64_t(pixels[row]) * S::F +
                      (own_pixel == Own::kP ? 0 : S::R);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (!lane.has(lane.channel(n))) continue;
        const Two<T> pair = two<T>(from + lane.channel(n));
        own[n][2 * row] -= factor[n][0] * pair.first;
        own[n][2 * row + 1] -= factor[n][1] * pair.second;
      }
    }
  }

  // Before the relu, and the others' phi or psi, which begins where the
  // pointers are.
  __device__ void of(const Lane<S>& lane,
                     const unsigned char* const (&others)[2], Share& share,
                     Share& other) const {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int channel = lane.channel(n);
        Two<T> pair = {0, 0};
        if (lane.has(channel)) pair = two<T>(others[row] + sizeof(T) * channel);
        other[n][2 * row] = pair.first;
        other[n][2 * row + 1] = pair.second;
      }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        share[n][i] = own[n][i] + factor[n][i % 2] * other[n][i];
  }

  Share own;
  float factor[2][2];
};

// What the hidden layer's products start from: the table at an offset, which
// begins at the lane's first channel.
template <typename S>
__device__ void start_hidden(const Lane<S>& lane, const float* table,
                             Share& hidden) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      hidden[n][i] = hidden[n][i + 2] =
          lane.has(lane.channel(n) + i) ? table[8 * n + i] : 0;
    }
}

// w1 and w2, as the right factors of a warp.
template <typename S>
struct Weights {
  using T = typename S::T;

  __device__ void load(const Lane<S>& lane, const Mapping& mapping) {
    load_w1(lane, mapping);
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      const int row = (8 * lane.warp + lane.group) % S::G;
      const int from = kChannels * step;
      w2[step] = right_of<T>([&](int i) {
        return lane.has(from + i) ? mapping.w2[row * S::R + from + i] : 0.0f;
      });
    }
  }

  __device__ void load_w1(const Lane<S>& lane, const Mapping& mapping) {
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step)
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int row = kChannels * lane.warp + 8 * n + lane.group;
        const int from = kChannels * step;
        w1[step][n] = right_of<T>([&](int i) {
          return lane.has(row) && lane.has(from + i)
                     ? mapping.w1[row * S::R + from + i]
                     : 0.0f;
        });
      }
  }

  // hidden += w1 a, of the relation that the team has put.
  template <typename E>
  __device__ void add_hidden(const Lane<S>& lane, const E& exchange, int stage,
                             Share& hidden) const {
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step) {
      const Left<T> a = exchange.get(lane, stage, step);
      multiply<T>(hidden[0], a, w1[step][0]);
      multiply<T>(hidden[1], a, w1[step][1]);
    }
  }

  // logits += w2 z.
  template <typename E>
  __device__ void add_logits(const Lane<S>& lane, const E& exchange, int stage,
                             float (&logits)[4]) const {
#pragma unroll
    for (int step = 0; step < S::kSteps; ++step)
      multiply<T>(logits, exchange.get(lane, stage, step), w2[step]);
  }

  Right<T> w1[S::kSteps][2], w2[S::kSteps];
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_MAPPING_H_
