// The fused pairwise attention of the first stage, forward: 4 channels of the
// relation, 2 of the weights, 16 of the value.
//
// So few channels leave most of a tensor core's product empty. A thread has a
// pixel instead, and all of it in registers: w1, w2, the softmax of both groups
// and the sums of its 16 channels. Blocks and halos are those of tensor_tile.h;
// nothing is shared but the halo, and float32 is all that is computed with.
#include "cuda_kernels/cuda/pairs.h"
#include "cuda_kernels/pairwise/tensor.h"
#include "cuda_kernels/pairwise/tensor_mapping.h"

namespace san::pairwise {
namespace {

constexpr float kLogOf2 = 0.693147181f;
constexpr float kLowest = -3.40282347e38f;

template <typename Element>
struct Narrow : Sizes<Element, 2> {
  static constexpr int kThreads = 128, kLines = kThreads / kColumns;
};

template <typename S>
struct NarrowProblem {
  using T = typename S::T;
  Tiling tiling;
  const T* features;
  Mapping mapping;
  T* output;
  float* log_sum_exp;  // or null
};

template <typename S>
struct NarrowMemory {
  using T = typename S::T;
  static constexpr int kPitch = pitch_of_bytes<T>(sizeof(T) * (S::R + S::M));

  SAN_HOST_DEVICE NarrowMemory(const Tiling& tiling, Arena& memory)
      : halo(tiling, memory) {}

  Halo<S, Own::kP, kPitch> halo;
};

// kCount elements, a multiple of four, on a boundary of four.
template <typename T, int kCount>
__device__ void read(const void* from, float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const T* at = static_cast<const T*>(from) + i;
    if constexpr (kIsTf32<T>) {
      const float4 x = *reinterpret_cast<const float4*>(at);
      to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
    } else {
      const uint2 x = *reinterpret_cast<const uint2*>(at);
      to[i] = first_of<T>(x.x), to[i + 1] = second_of<T>(x.x);
      to[i + 2] = first_of<T>(x.y), to[i + 3] = second_of<T>(x.y);
    }
  }
}

// The softmaxes of a pixel, and its sums.
template <typename S>
class PixelSoftmax {
 public:
  // Adds a pair that counts so many times.
  __device__ void add(const float (&logits)[S::G], float times,
                      const float (&beta)[S::M]) {
    float above[S::G];
    bool much = false;
#pragma unroll
    for (int g = 0; g < S::G; ++g) {
      above[g] = logits[g] * kLog2OfE - top_[g];
      much |= (times > 0) & (above[g] > 8);
    }
    if (any(much)) raise(logits, times, above);
#pragma unroll
    for (int g = 0; g < S::G; ++g) {
      const float e = times > 0 ? times * power_of_two(above[g]) : 0;
      total_[g] += e;
#pragma unroll
      for (int c = g; c < S::M; c += S::G) value_[c] += e * beta[c];
    }
  }

  template <typename T>
  __device__ void write(int64_t pixel, T* output, float* log_sum_exp) const {
    float factor[S::G];
#pragma unroll
    for (int g = 0; g < S::G; ++g) factor[g] = __fdividef(1, total_[g]);
#pragma unroll
    for (int c = 0; c < S::M; c += 2)
      store_two(output + pixel * S::M + c, value_[c] * factor[0],
                value_[c + 1] * factor[1]);
    if (!log_sum_exp) return;
#pragma unroll
    for (int g = 0; g < S::G; ++g)
      log_sum_exp[pixel * S::G + g] =
          (top_[g] + logarithm_to_two(total_[g])) * kLogOf2;
  }

 private:
  __device__ void raise(const float (&logits)[S::G], float times,
                        float (&above)[S::G]) {
#pragma unroll
    for (int g = 0; g < S::G; ++g) {
      const float x = logits[g] * kLog2OfE;
      const bool higher = times > 0 && above[g] > 0;
      const float keep = higher ? power_of_two(-above[g]) : 1;
      if (higher) {
        top_[g] = x;
        above[g] = x - x;  // NaN for infinity
      }
      total_[g] *= keep;
#pragma unroll
      for (int c = g; c < S::M; c += S::G) value_[c] *= keep;
    }
  }

  float top_[S::G] = {kLowest, kLowest}, total_[S::G] = {};
  float value_[S::M] = {};
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 4)
    attend_narrow(NarrowProblem<S> problem) {
  using T = typename S::T;
  constexpr int R = S::R, G = S::G;
  Arena arena(shared_memory());
  NarrowMemory<S> memory(problem.tiling, arena);
  auto& halo = memory.halo;
  halo.begin(blockIdx.x);
  halo.template copy<0, S::F, R + S::M>(problem.features + R);
  commit_copies();
  const Mapping& mapping = problem.mapping;
  float w1[R][R], w2[G][R], own[R] = {}, factor[R];
#pragma unroll
  for (int i = 0; i < R; ++i) read<float>(mapping.w1 + i * R, w1[i]);
#pragma unroll
  for (int g = 0; g < G; ++g) read<float>(mapping.w2 + g * R, w2[g]);
  const int line = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  wait_copies<0>();
  __syncthreads();
  const int64_t pixel = halo.pixel(line, column);
  if (pixel >= 0) read<T>(problem.features + pixel * S::F, own);
#pragma unroll
  for (int i = 0; i < R; ++i) {
    factor[i] = -mapping.scale[i];
    own[i] = mapping.shift[i] - factor[i] * own[i];
  }
  PixelSoftmax<S> softmax;
  for (Tap tap(halo.first_tap(), problem.tiling.kernel_size);
       tap.y < halo.end_tap(); ++tap) {
    const unsigned char* other = halo.other(line, column, tap);
    float a[R], z[R], logits[G] = {}, beta[S::M];
    read<T>(other, a);
    read<T>(other + sizeof(T) * R, beta);
    read<float>(mapping.table + tap.index * R, z);
#pragma unroll
    for (int i = 0; i < R; ++i) a[i] = relu(own[i] + factor[i] * a[i]);
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int j = 0; j < R; ++j) z[i] += w1[i][j] * a[j];
#pragma unroll
      for (int g = 0; g < G; ++g) logits[g] += w2[g][i] * relu(z[i]);
    }
    softmax.add(logits, halo.times(line, column, tap), beta);
  }
  if (pixel >= 0) softmax.write(pixel, problem.output, problem.log_sum_exp);
}

template <typename S>
bool forward(const PairwiseForward& task, void* stream) {
  using T = typename S::T;
  const PairwiseInputs& in = task.inputs;
  for (const void* data : {in.features, in.table, in.w1, in.w2,
                           static_cast<const void*>(task.output)})
    if (!on_boundary(data)) return false;
  if (!has_tiles<S, NarrowMemory<S>>(task.shape)) return false;
  launch_on_tiles<S, NarrowMemory<S>>(
      &attend_narrow<S>,
      NarrowProblem<S>{{},
                       static_cast<const T*>(in.features),
                       mapping_of(in),
                       static_cast<T*>(task.output),
                       static_cast<float*>(task.log_sum_exp)},
      task.shape, 0, stream);
  return true;
}

}  // namespace

bool run_narrow(const PairwiseForward& task, void* stream) {
  const PairwiseShape& s = task.shape;
  if (s.weight_channels != 2 || s.relation_channels != 4 ||
      s.value_channels != 16)
    return false;
  return with_tensor_type(task.type, true, [&](auto zero) {
    using T = decltype(zero);
    return forward<Narrow<std::conditional_t<kIsSplit<T>, float, T>>>(task,
                                                                      stream);
  });
}

}  // namespace san::pairwise
