// Rows of the padded image in scratch memory, laid out so that each tap of
// adjacent outputs is a run of adjacent elements.
//
// A row of the padded image is stored as `stride` phases (columns x, x +
// stride,
// ... side by side), so output column o finds tap kw at column_offsets[kw] + o
// for any stride and dilation; with stride 1 it is simply the padded row.
// Positions that no output reads are left out.
#ifndef CUDA_KERNELS_FAST_PADDED_ROWS_H_
#define CUDA_KERNELS_FAST_PADDED_ROWS_H_

#include <algorithm>
#include <vector>

#include "cuda_kernels/fast/row_kernels.h"

namespace san::fast {

class PaddedRows {
 public:
  // Allocates pitch(window) elements: look at that before building one.
  explicit PaddedRows(const Window& window)
      : window_(window),
        phase_pitch_(pitch(window) / window.columns.stride),
        sources_(pitch(window), -1) {
    const Axis& columns = window.columns;
    const int64_t width = span(columns, columns.outputs);
    for (int64_t x = 0; x < width; ++x)
      sources_[offset_of(x)] = columns.source(x - columns.padding);
    if (columns.stride == 1) {
      inner_begin_ = std::min(columns.padding, width);
      inner_end_ = std::min(columns.padding + columns.size, width);
    }
  }

  // Padded positions that `outputs` adjacent outputs of an axis read.
  static int64_t span(const Axis& axis, int64_t outputs) {
    return (outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
  }

  // Elements of one row.
  static int64_t pitch(const Window& window) {
    const int64_t stride = window.columns.stride;
    const int64_t last = span(window.columns, window.columns.outputs) - 1;
    return (last / stride + 1) * stride;
  }
  int64_t pitch() const { return static_cast<int64_t>(sources_.size()); }

  // Where the columns of each tap column begin in a row.
  std::vector<int64_t> column_offsets() const {
    std::vector<int64_t> offsets;
    for (int64_t kw = 0; kw < window_.columns.taps; ++kw)
      offsets.push_back(offset_of(kw * window_.columns.dilation));
    return offsets;
  }

  // Where each tap of an output row begins, from its first padded row on.
  std::vector<int64_t> tap_offsets() const {
    std::vector<int64_t> offsets;
    for (int64_t kh = 0; kh < window_.rows.taps; ++kh)
      for (const int64_t column : column_offsets())
        offsets.push_back(kh * window_.rows.dilation * pitch() + column);
    return offsets;
  }

  // Fills `count` padded rows, from the first one that output row `first` reads
  // on, of `members` images: image_stride and rows_stride elements lead from
  // one image or one member's rows to the next.
  template <typename T>
  void fill(const T* images, int64_t image_stride, int64_t members,
            int64_t first, int64_t count, Accumulator<T>* rows,
            int64_t rows_stride) const {
    const RowKernels<T>& kernels = row_kernels<T>();
    const Axis& axis = window_.rows;
    for (int64_t r = 0; r < count; ++r, rows += pitch()) {
      const int64_t y = axis.source(axis.position(first, 0) + r);
      for (int64_t m = 0; m < members; ++m) {
        if (y < 0)
          std::fill_n(rows + m * rows_stride, pitch(), Accumulator<T>(0));
        else
          fill_row(kernels,
                   images + m * image_stride + y * window_.columns.size,
                   rows + m * rows_stride);
      }
    }
  }

  // Adds a padded row to the image row it shows: the transpose of fill.
  template <typename A>
  void fold_row(const A* row, A* image_row) const {
    row_kernels<A>().add(row + inner_begin_, image_row,
                         inner_end_ - inner_begin_);
    for_each_outer([&](int64_t j) {
      if (sources_[j] >= 0) image_row[sources_[j]] += row[j];
    });
  }

 private:
  int64_t offset_of(int64_t x) const {
    const int64_t stride = window_.columns.stride;
    return x % stride * phase_pitch_ + x / stride;
  }

  template <typename T>
  void fill_row(const RowKernels<T>& kernels, const T* image_row,
                Accumulator<T>* row) const {
    kernels.load(image_row, row + inner_begin_, inner_end_ - inner_begin_);
    for_each_outer([&](int64_t j) {
      row[j] = sources_[j] < 0 ? 0 : wide(image_row[sources_[j]]);
    });
  }

  // Calls f for the elements that are not one run of the image row.
  template <typename F>
  void for_each_outer(F f) const {
    for (int64_t j = 0; j < inner_begin_; ++j) f(j);
    for (int64_t j = inner_end_; j < pitch(); ++j) f(j);
  }

  Window window_;
  int64_t phase_pitch_;
  std::vector<int64_t> sources_;  // column of the image, or -1 for zero
  int64_t inner_begin_ = 0, inner_end_ = 0;  // the image row itself
};

}  // namespace san::fast

#endif  // CUDA_KERNELS_FAST_PADDED_ROWS_H_
