// Rows of the padded image in scratch memory, laid out so that each tap of
// adjacent outputs is a run of adjacent elements.
//
// A row of the padded image is stored as `stride` phases (columns x, x +
// stride,
// ... side by side), so output column o finds tap kw at column_offsets[kw] + o
// for any stride and dilation; with stride 1 it is simply the padded row.
// Positions that no output reads are left out.
#ifndef CUDA_KERNELS_WINDOW_OPS_PADDED_ROWS_H_
#define CUDA_KERNELS_WINDOW_OPS_PADDED_ROWS_H_

#include <algorithm>
#include <vector>

#include "cuda_kernels/window_ops/channel_block.h"

namespace san::fast {

class PaddedRows {
 public:
  // Allocates pitch(window) elements: look at that before building one.
  explicit PaddedRows(const Window& window)
      : window_(window),
        pitch_(pitch(window)),
        phase_pitch_(pitch_ / window.columns.stride) {
    const Axis& columns = window.columns;
    if (columns.stride == 1) {
      inner_begin_ = columns.padding;
      inner_end_ = columns.padding + columns.size;
    }
    std::vector<int64_t> shown(pitch_, -1);
    const int64_t width = span(columns, columns.outputs);
    for (int64_t x = 0; x < width; ++x)
      shown[offset_of(x)] = columns.source(x - columns.padding);
    for (int64_t j = 0; j < pitch_; ++j) {
      if (j >= inner_begin_ && j < inner_end_) continue;
      if (shown[j] < 0)
        zeros_.push_back(j);
      else
        copies_.push_back({j, shown[j]});
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
  int64_t pitch() const { return pitch_; }

  // Where the columns of each tap column begin in a row.
  std::vector<int64_t> column_offsets() const {
    std::vector<int64_t> offsets;
    for (int64_t kw = 0; kw < window_.columns.taps; ++kw)
      offsets.push_back(offset_of(kw * window_.columns.dilation));
    return offsets;
  }

  // Elements of scratch that fill needs per plane.
  int64_t staged() const { return is_whole() ? 0 : window_.columns.size; }

  // Fills `count` padded rows of a block's planes, `stride` elements apart: row
  // r shows row row_shown(r) of the image, or zeros if that is negative.
  template <typename T, typename F>
  void fill(const BlockView<const T>& image, int64_t count, F row_shown,
            Accumulator<T>* rows, int64_t stride,
            Accumulator<T>* staging) const {
    using A = Accumulator<T>;
    const int64_t size = window_.columns.size, planes = image.planes();
    const bool in_place = image.template is_in_place<A>();
    const bool later = is_whole() && !in_place;
    for (int64_t r = 0; r < count; ++r, rows += pitch_) {
      const int64_t y = row_shown(r);
      if (y < 0) {
        for (int64_t p = 0; p < planes; ++p)
          std::fill_n(rows + p * stride, pitch_, A(0));
        continue;
      }
      if (is_whole()) image.load(y * size, size, rows + inner_begin_, stride);
      if (in_place) {
        const Members<const A> source = image.template in_place<A>(y * size);
        fill_sides(planes, rows, stride, source.data, source.stride);
      } else if (!is_whole()) {
        image.load(y * size, size, staging, size);
        fill_sides(planes, rows, stride, staging, size);
      }
    }
    // What has just been stored is slow to load: not before all rows are there.
    rows -= count * pitch_;
    for (int64_t r = 0; r < count && later; ++r, rows += pitch_)
      if (row_shown(r) >= 0)
        fill_sides(planes, rows, stride, rows + inner_begin_, stride);
  }

  // Adds a padded row to the image row it shows: the transpose of fill.
  template <typename A>
  void fold_row(const A* row, A* image_row) const {
    row_kernels<A>().add(row + inner_begin_, image_row,
                         inner_end_ - inner_begin_);
    for (const Copy& copy : copies_) image_row[copy.column] += row[copy.to];
  }

 private:
  int64_t offset_of(int64_t x) const {
    const int64_t stride = window_.columns.stride;
    return x % stride * phase_pitch_ + x / stride;
  }

  // Whether a padded row has the image row as one run.
  bool is_whole() const { return inner_end_ > inner_begin_; }

  // Fills what is beside the image row in a padded row of each plane.
  template <typename A>
  void fill_sides(int64_t planes, A* row, int64_t stride, const A* image_row,
                  int64_t image_stride) const {
    for (int64_t p = 0; p < planes; ++p) {
      for (const Copy& copy : copies_) row[copy.to] = image_row[copy.column];
      for (const int64_t j : zeros_) row[j] = 0;
      row += stride;
      image_row += image_stride;
    }
  }

  // An element beside the image row, and the column that it shows.
  struct Copy {
    int64_t to, column;
  };

  Window window_;
  int64_t pitch_, phase_pitch_;
  int64_t inner_begin_ = 0, inner_end_ = 0;  // the image row itself
  std::vector<Copy> copies_;
  std::vector<int64_t> zeros_;
};

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_PADDED_ROWS_H_
