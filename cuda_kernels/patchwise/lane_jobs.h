// What the patchwise attention on the CPU does where channels fill vectors:
// which tasks it takes, and what their jobs share. The loops are in lanes.h and
// relation_lanes.h.
#ifndef CUDA_KERNELS_PATCHWISE_LANE_JOBS_H_
#define CUDA_KERNELS_PATCHWISE_LANE_JOBS_H_

#include <algorithm>
#include <vector>

#include "cuda_kernels/patchwise/kernels.h"
#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {

constexpr int64_t kJobPixels = 4 * kLanePixels;

// Pieces of a batch whose images are differentiated one after another.
inline int64_t lane_pieces(int64_t batch, int64_t blocks) {
  constexpr int64_t kMostJobs = 32;
  return std::min(batch, kMostJobs / blocks + 1);
}

// Whether gradients of an image do, in the second cache or about.
inline bool stays_in_cache(const Window& window) {
  return window.pixels() <= 64 * 64;
}

// Which pixel of its image each tap of a pixel shows.
class Sources {
 public:
  explicit Sources(const Window& window) : window_(window) {
    for (int64_t y = 0; y < window.rows.size + 2 * window.rows.padding; ++y)
      rows_.push_back(window.rows.source(y - window.rows.padding) *
                      window.columns.size);
    for (int64_t x = 0; x < window.columns.size + 2 * window.columns.padding;
         ++x)
      columns_.push_back(window.columns.source(x - window.columns.padding));
  }

  // Of some pixels of the batch, counted from pixel `from` of it.
  void find(int64_t first, int64_t count, int64_t from, int64_t* to) const {
    const int64_t width = window_.columns.size, pixels = window_.pixels();
    for (int64_t p = first; p < first + count; ++p) {
      const int64_t image = p / pixels * pixels - from, at = p % pixels;
      const int64_t* const columns = columns_.data() + at % width;
      for (int64_t kh = 0; kh < window_.rows.taps; ++kh) {
        const int64_t row = image + rows_[at / width + kh];
        for (int64_t kw = 0; kw < window_.columns.taps; ++kw)
          *to++ = row + columns[kw];
      }
    }
  }

 private:
  Window window_;
  std::vector<int64_t> rows_, columns_;
};

// An image [pixel, member, lane] as T where its members lie `step` apart.
template <typename T>
void store_lanes(const Accumulator<T>* image, int64_t pixels, int64_t members,
                 int64_t step, T* to, int64_t pitch) {
  for (int64_t p = 0; p < pixels; ++p, to += pitch)
    for (int64_t m = 0; m < members; ++m)
      for (int64_t i = 0; i < kColumns; ++i)
        to[m * step + i] = rounded<T>(*image++);
}

// Computes the task if its channels fill vectors and, backward, an image stays
// in the cache; returns whether it did.
bool run_in_lanes(const PatchwiseHiddenForward& task);
bool run_in_lanes(const PatchwiseHiddenBackward& task);
bool run_in_lanes(const PatchwiseCoreForward& task);
bool run_in_lanes(const PatchwiseCoreBackward& task);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_LANE_JOBS_H_
