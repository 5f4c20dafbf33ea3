// How the backward of the fused pairwise attention is split on the CPU. A pixel
// adds to the gradients of the rows around it, so images are cut into bands at
// least as high as a footprint: of each image first all even bands, then all
// odd ones, and no two that run together touch the same row. Sums over the
// batch are taken per band and then in the order of the bands. The bands depend
// on the sizes only, so that results are the same bits for every number of
// threads.
#ifndef CUDA_KERNELS_PAIRWISE_BANDS_H_
#define CUDA_KERNELS_PAIRWISE_BANDS_H_

#include <omp.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/pairwise/rows.h"

namespace san::pairwise {

constexpr int64_t kLeastBandRows = 8;
// The batch is cut into at most so many groups of images, each with sums of its
// own: what they need must not grow with the batch.
constexpr int64_t kMostGroups = 32;

// Bands of rows over groups of images.
struct Bands {
  explicit Bands(const PairwiseShape& s)
      : shape(s),
        rows(std::max(kLeastBandRows, s.kernel_size)),
        per_image((s.height + rows - 1) / rows),
        images(std::max<int64_t>(1, (s.batch + kMostGroups - 1) / kMostGroups)),
        groups((s.batch + images - 1) / images) {}

  int64_t count() const { return groups * per_image; }

  // Calls f(n) for the images of a group.
  template <typename F>
  void for_each_image(int64_t group, F f) const {
    const int64_t last = std::min(shape.batch, (group + 1) * images);
    for (int64_t n = group * images; n < last; ++n) f(n);
  }
  // Calls f(h) for the rows of band number `band` of an image or a group.
  template <typename F>
  void for_each_row(int64_t band, F f) const {
    const int64_t first = band % per_image * rows;
    const int64_t end = std::min(shape.height, first + rows);
    for (int64_t h = first; h < end; ++h) f(h);
  }
  // Calls f(n, h) for the rows of band number `band`, image after image.
  template <typename F>
  void for_each_row_of(int64_t band, F f) const {
    for_each_image(band / per_image, [&](int64_t n) {
      for_each_row(band, [&](int64_t h) { f(n, h); });
    });
  }

  PairwiseShape shape;
  int64_t rows, per_image, images, groups;
};

// The gradient of the features. Of bfloat16 its sums are in float32, elsewhere,
// and rounded at the end.
template <typename T>
struct GradFeatures {
  using A = Accumulator<T>;
  static constexpr bool kRounds = sizeof(T) < sizeof(A);

  // Where the sums of image n are, if those elsewhere are in `memory`.
  A* sums(A* memory, int64_t n) const {
    if constexpr (kRounds)
      return memory;
    else
      return data + n * image;
  }
  void clear(A* sums) const { std::fill_n(sums, image, A(0)); }
  void round(const A* sums, int64_t n) const {
    if constexpr (kRounds)
      pairwise_rows<T>().round(sums, image, data + n * image);
  }

  T* data;
  int64_t image;  // elements of one
};

// Image after image: what is added to stays in the caches. Calls add(group,
// number of a band in it, n, scratch, sums).
template <typename T, typename F, typename A = Accumulator<T>>
void for_each_image(const Bands& bands, const GradFeatures<T>& grad,
                    int64_t scratch_elements, F add) {
  const auto job = [&](int64_t group, A* scratch) {
    bands.for_each_image(group, [&](int64_t n) {
      A* sums = grad.sums(scratch + scratch_elements, n);
      grad.clear(sums);
      for (const int64_t parity : {0, 1})
        for (int64_t i = parity; i < bands.per_image; i += 2)
          add(group, i, n, scratch, sums);
      grad.round(sums, n);
    });
  };
  cpu::for_each_job<A>(bands.groups,
                       scratch_elements + grad.kRounds * grad.image, job);
}

// Band beside band, likewise.
template <typename T, typename F, typename A = Accumulator<T>>
void for_each_band(const Bands& bands, const GradFeatures<T>& grad,
                   int64_t scratch_elements, F add) {
  const int64_t batch = bands.shape.batch;
  const std::unique_ptr<A[]> memory(new A[grad.kRounds * batch * grad.image]);
  const auto sums = [&](int64_t n) {
    return grad.sums(memory.get() + n * grad.image, n);
  };
#pragma omp parallel for schedule(dynamic)
  for (int64_t n = 0; n < batch; ++n) grad.clear(sums(n));
  for (int64_t parity = 0; parity < std::min<int64_t>(2, bands.per_image);
       ++parity) {
    const int64_t count = (bands.per_image - parity + 1) / 2;
    const auto job = [&](int64_t index, A* scratch) {
      const int64_t group = index / count, i = index % count * 2 + parity;
      bands.for_each_image(
          group, [&](int64_t n) { add(group, i, n, scratch, sums(n)); });
    };
    cpu::for_each_job<A>(bands.groups * count, scratch_elements, job);
  }
#pragma omp parallel for schedule(dynamic)
  for (int64_t n = 0; n < batch; ++n) grad.round(sums(n), n);
}

// Calls f(band, n, h, scratch, sums) for each row of each image, to add to the
// gradient of the features, without ever running neighbouring bands of an image
// together; by images where threads share them evenly. Either way an image's
// bands add in the same order.
template <typename T, typename F>
void for_each_row(const Bands& bands, void* grad_features, F f) {
  using A = Accumulator<T>;
  const PairwiseShape& s = bands.shape;
  const GradFeatures<T> grad = {static_cast<T*>(grad_features),
                                s.height * s.width * s.feature_channels()};
  const int64_t elements = pairwise_rows<T>().scratch_elements(s);
  const auto add = [&](int64_t group, int64_t i, int64_t n, A* scratch,
                       A* sums) {
    bands.for_each_row(i, [&](int64_t h) {
      f(group * bands.per_image + i, n, h, scratch, sums - n * grad.image);
    });
  };
  if (bands.groups == 0) return;
  if (bands.groups % omp_get_max_threads() == 0)
    for_each_image<T>(bands, grad, elements, add);
  else
    for_each_band<T>(bands, grad, elements, add);
}

// One set of sums per band: scale and shift, and `elements` of the table, w1
// and w2 that follow.
template <typename T, typename Sum>
class BandSums {
 public:
  BandSums(const Bands& bands, int64_t elements)
      : pitch_(pairwise_rows<T>().pitch(bands.shape)),
        elements_(2 * pitch_ + elements),
        taps_(bands.shape.taps()),
        channels_(bands.shape.relation_channels),
        memory_(std::max<int64_t>(1, bands.count()) * elements_, Sum(0)) {}

  MappingGradients<Sum> of(int64_t band) {
    Sum* begin = memory_.data() + band * elements_;
    Sum* table = begin + 2 * pitch_;
    Sum* w1 = table + taps_ * pitch_;
    return {begin, begin + pitch_, table, w1, w1 + channels_ * pitch_};
  }
  // Adds all bands to the first, in order.
  MappingGradients<Sum> total() {
#pragma omp parallel for
    for (int64_t i = 0; i < elements_; ++i)
      for (int64_t j = i + elements_; j < int64_t(memory_.size());
           j += elements_)
        memory_[i] += memory_[j];
    return of(0);
  }

 private:
  int64_t pitch_, elements_, taps_, channels_;
  std::vector<Sum> memory_;
};

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_BANDS_H_
