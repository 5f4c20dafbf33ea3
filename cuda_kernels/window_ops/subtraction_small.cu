// Fast subtraction2 on CUDA: both gradients of small images
// (cuda_small_images.h).
//
// Memory plan. A unit is a plane. A thread has its 13 sums of b in registers,
// and those of a at the outputs of its own column, which read the same
// gradients again, from the L1 cache; then both go to shared memory.
#include "cuda_kernels/window_ops/cuda_small_images.h"

namespace san::fast {
namespace {

template <int kSide>
using Image = SmallImage<kSide, 224>;

template <int kSide>
constexpr int kUnitFloats = Image<kSide>::kPositions + Image<kSide>::kOutputs;

template <typename T, int kSide>
__global__ void __launch_bounds__(256, 2)
    backward_small(Window window, int units, Divisor<uint32_t> by_width,
                   const T* grad_output, T* grad_a, T* grad_b) {
  using I = Image<kSide>;
  constexpr int kTaps = I::kTaps, kCentre = I::kReach / 2;
  const typename I::Place place;
  const bool active = place.unit < units;
  float* b_sums = reinterpret_cast<float*>(shared_memory()) +
                  place.slot * kUnitFloats<kSide>;
  float* a_sums = b_sums + I::kPositions;
  if (active) {
    const T* plane =
        grad_output + int64_t{place.unit} * I::kAllTaps * I::kOutputs;
    float b[I::kBandRows] = {}, a[kTaps] = {};
    const auto flush = [&](int x) {
#pragma unroll
      for (int j = 0; j < I::kBandRows; ++j) {
        b_sums[place.row(j) * I::kPadded + x] = b[j];
        b[j] = 0;
      }
    };
#pragma unroll 1
    for (int kw = 0; kw < kTaps; ++kw) {
      T values[kTaps][kTaps], own[kTaps][kTaps];
      if (grad_b) I::load(plane, place, kw, place.column(kw), values);
      if (grad_a) I::load(plane, place, kw, place.x, own);
      if (kw == place.x + 1) flush(place.x);
#pragma unroll
      for (int kh = 0; kh < kTaps; ++kh)
#pragma unroll
        for (int r = 0; r < kTaps; ++r) {
          if (grad_b) b[r + kh] -= wide(values[kh][r]);
          if (grad_a) a[r] += wide(own[kh][r]);
        }
    }
    flush(place.x < I::kReach ? place.x + kSide : place.x);
#pragma unroll
    for (int r = 0; r < kTaps; ++r)
      a_sums[(place.band * kTaps + r) * kSide + place.x] = a[r];
  }
  __syncthreads();
  if (!active) return;
  const int64_t first = place.unit * window.pixels();
  float a = 0, b = 0;
  I::for_each_pixel(
      place, window, by_width,
      [&](int v, int u) {
        I::for_each_sum(v, u, [&](int number) { b += b_sums[number]; });
        // The output whose centre this is, if any.
        v -= kCentre, u -= kCentre;
        if (v >= 0 && v < kSide && u >= 0 && u < kSide)
          a += a_sums[v * kSide + u];
      },
      [&](int pixel) {
        if (grad_a) grad_a[first + pixel] = rounded<T>(a);
        if (grad_b) grad_b[first + pixel] = rounded<T>(b);
        a = b = 0;
      });
}

}  // namespace

bool run_small_images(const SubtractionBackward& task, void* stream) {
  const int64_t units = task.shape.planes();
  if (units == 0) return true;
  return with_small_image(task.shape.window, [&](auto side) {
    constexpr int64_t kBytes = kUnitFloats<side> * sizeof(float);
    if (!Image<side>::fits(units, kBytes)) return false;
    bool done = false;
    with_scalar_type(task.type, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, double>) {
        launch(&backward_small<T, side>,
               Image<side>::launch_shape(units, kBytes), stream,
               task.shape.window, static_cast<int>(units),
               Divisor<uint32_t>(
                   static_cast<uint32_t>(task.shape.window.columns.size)),
               static_cast<const T*>(task.grad_output),
               static_cast<T*>(task.grad_a), static_cast<T*>(task.grad_b));
        done = true;
      }
    });
    return done;
  });
}

}  // namespace san::fast
