// Fast aggregation on CUDA: the gradient of the input of small images
// (cuda_small_images.h).
//
// Memory plan. A unit is (image, weight channel, eight of the channels that
// share it). The gradients of its outputs are in shared memory, and so are the
// sums in the end; a thread has its 13 sums of eight channels in registers and
// the weights of a column of taps in use, those of the next one under way.
#include "cuda_kernels/window_ops/cuda_aggregation.h"
#include "cuda_kernels/window_ops/cuda_small_images.h"

namespace san::fast {
namespace {

template <int kSide>
using Image = SmallImage<kSide, 112>;

// kMembers values for each of kPositions, in pieces of 16 bytes: the first
// pieces of all positions, then the second ones.
template <int kPositions>
struct Values {
  static constexpr int kPieces = kMembers / 4;
  static constexpr int kBytes = kPositions * kMembers * sizeof(float);
  float4* pieces;

  __device__ void load(int position, float (&values)[kMembers]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const float4 piece = pieces[i * kPositions + position];
      values[4 * i] = piece.x, values[4 * i + 1] = piece.y;
      values[4 * i + 2] = piece.z, values[4 * i + 3] = piece.w;
    }
  }
  __device__ void store(int position, const float (&values)[kMembers]) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      pieces[i * kPositions + position] = {values[4 * i], values[4 * i + 1],
                                           values[4 * i + 2],
                                           values[4 * i + 3]};
  }
};

template <int kSide>
constexpr int kUnitBytes = Values<Image<kSide>::kPositions>::kBytes +
                           Values<Image<kSide>::kOutputs>::kBytes;

template <typename T, int kSide>
__global__ void __launch_bounds__(128, 2)
    grad_input_small(AggregationShape shape, UnitSizes sizes, int units,
                     Divisor<uint32_t> by_width, const T* grad_output,
                     const T* weight, T* result) {
  using I = Image<kSide>;
  constexpr int kTaps = I::kTaps;
  const typename I::Place place;
  const bool active = place.unit < units;
  const Unit unit(shape, sizes, active ? place.unit : 0);
  unsigned char* memory = shared_memory() + place.slot * kUnitBytes<kSide>;
  const Values<I::kOutputs> grads = {reinterpret_cast<float4*>(memory)};
  const Values<I::kPositions> sums = {
      reinterpret_cast<float4*>(memory + Values<I::kOutputs>::kBytes)};
  if (active) {
    const T* from = grad_output + unit.plane * I::kOutputs;
    const int64_t stride = shape.weight_channels * I::kOutputs;
#pragma unroll 1
    for (int i = place.thread; i < I::kOutputs; i += I::kUnitThreads) {
      float values[kMembers];
      const T* at = from + i;
#pragma unroll
      for (int m = 0; m < kMembers; ++m, at += stride)
        values[m] = m < unit.members ? wide(*at) : 0.0f;
      grads.store(i, values);
    }
  }
  __syncthreads();
  if (active) {
    const T* plane = weight + unit.weight_plane * I::kAllTaps * I::kOutputs;
    float column[I::kBandRows][kMembers] = {};
    const auto flush = [&](int x) {
#pragma unroll
      for (int j = 0; j < I::kBandRows; ++j) {
        sums.store(place.row(j) * I::kPadded + x, column[j]);
#pragma unroll
        for (int m = 0; m < kMembers; ++m) column[j][m] = 0;
      }
    };
    T next[kTaps][kTaps];
    I::load(plane, place, 0, place.column(0), next);
#pragma unroll 1
    for (int kw = 0; kw < kTaps; ++kw) {
      float weights[kTaps][kTaps];
      widen(next, weights);
      if (kw < kTaps - 1)
        I::load(plane, place, kw + 1, place.column(kw + 1), next);
      if (kw == place.x + 1) flush(place.x);
      const int first = place.band * kTaps * kSide + place.column(kw);
#pragma unroll
      for (int r = 0; r < kTaps; ++r) {
        float g[kMembers];
        grads.load(first + r * kSide, g);
#pragma unroll
        for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
          for (int m = 0; m < kMembers; ++m)
            column[r + kh][m] += weights[kh][r] * g[m];
      }
    }
    flush(place.x < I::kReach ? place.x + kSide : place.x);
  }
  __syncthreads();
  if (!active) return;
  const int64_t pixels = shape.window.pixels();
  T* to = result + unit.plane * pixels;
  const int64_t stride = shape.weight_channels * pixels;
  float total[kMembers] = {};
  I::for_each_pixel(
      place, shape.window, by_width,
      [&](int v, int u) {
        I::for_each_sum(v, u, [&](int number) {
          float sum[kMembers];
          sums.load(number, sum);
#pragma unroll
          for (int m = 0; m < kMembers; ++m) total[m] += sum[m];
        });
      },
      [&](int pixel) {
        T* at = to + pixel;
#pragma unroll
        for (int m = 0; m < kMembers; ++m, at += stride) {
          if (m < unit.members) *at = rounded<T>(total[m]);
          total[m] = 0;
        }
      });
}

}  // namespace

bool run_small_images(const AggregationBackward& task, void* stream) {
  const AggregationShape& shape = task.shape;
  const int64_t units = shape.batch * shape.weight_channels * chunks(shape);
  if (units == 0) return true;
  return with_small_image(shape.window, [&](auto side) {
    if (!Image<side>::fits(units, kUnitBytes<side>)) return false;
    bool done = false;
    with_scalar_type(task.type, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, double>) {
        launch(
            &grad_input_small<T, side>,
            Image<side>::launch_shape(units, kUnitBytes<side>), stream, shape,
            UnitSizes(shape, chunks(shape)), static_cast<int>(units),
            Divisor<uint32_t>(static_cast<uint32_t>(shape.window.columns.size)),
            static_cast<const T*>(task.grad_output),
            static_cast<const T*>(task.weight),
            static_cast<T*>(task.grad_input));
        done = true;
      }
    });
    return done;
  });
}

}  // namespace san::fast
