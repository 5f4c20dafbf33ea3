// How the fused patchwise attention lays pixels out in scratch memory.
//
// A band is a few rows of one image, or several whole small images. Its pixels
// become the columns of matrices, row after row and in each row image after
// image, so that small images share vectors. Channels are stored twice over:
//  - a run holds one column per pixel;
//  - planes hold the padded pixels, such that tap t of all pixels is one run at
//    tap_offsets()[t]. Wide images have one plane, whose rows end in padding
//    that every run carries along as unused columns; narrow ones have a plane
//    per horizontal tap and carry none.
// Both are filled from rows of a strip (strip.h): a channel of some pixels, one
// after another as in the batch.
#ifndef CUDA_KERNELS_PATCHWISE_BAND_H_
#define CUDA_KERNELS_PATCHWISE_BAND_H_

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_kernels/patchwise/kernels.h"
#include "cuda_kernels/patchwise/tasks.h"
#include "cuda_kernels/window.h"

namespace san::patchwise {

// Columns of a band, about: long enough for the ends of loops not to matter,
// short enough for the cache.
constexpr int64_t kBandColumns = 1024;

// Images from this width on have one plane, whatever the footprint.
constexpr int64_t kNarrow = 32;

// Rows of small images are too short to call memmove for.
template <int kFloats, typename A>
inline void copy_fixed(const A* from, A* to) {
  memcpy(to, from, kFloats * sizeof(A));
}

// Copies `count` elements between arrays that do not overlap.
template <typename A>
inline void copy_row(const A* from, int64_t count, A* to) {
  if (count >= 32) {
    std::copy_n(from, count, to);
  } else if (count >= 16) {
    for (int64_t i = 0; i + 16 <= count; i += 16)
      copy_fixed<16>(from + i, to + i);
    copy_fixed<16>(from + count - 16, to + count - 16);
  } else if (count >= 4) {
    for (int64_t i = 0; i + 4 <= count; i += 4) copy_fixed<4>(from + i, to + i);
    copy_fixed<4>(from + count - 4, to + count - 4);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// Pixels of a batch, which are numbered image after image, row by row.
struct Range {
  int64_t first, count;

  int64_t end() const { return first + count; }
};

// Splits a batch into bands, by sizes alone.
struct Bands {
  Bands(int64_t batch, const Window& window)
      : rows(pieces_of(window.rows.size, kBandColumns / window.columns.size)),
        images(rows < window.rows.size
                   ? 1
                   : pieces_of(batch, kBandColumns / window.pixels())),
        row_bands((window.rows.size + rows - 1) / rows),
        image_bands((batch + images - 1) / images),
        own(images * rows * window.columns.size),
        seen(images * window.columns.size *
             std::min(window.rows.size, rows + 2 * window.rows.padding)) {}

  // The length of equal pieces, each of at most `most` (at least 1).
  static int64_t pieces_of(int64_t length, int64_t most) {
    const int64_t limit = std::max<int64_t>(most, 1);
    const int64_t pieces = (length + limit - 1) / limit;
    return pieces == 0 ? 1 : (length + pieces - 1) / pieces;
  }

  int64_t rows, images;            // of a band, at most
  int64_t row_bands, image_bands;  // how many there are
  int64_t own, seen;               // pixels of a band, at most
};

template <typename A>
class Band {
 public:
  // The images and rows of the given bands. Cut off where the batch ends.
  Band(const Window& window, const Bands& bands, int64_t batch,
       int64_t image_band, int64_t row_band)
      : Band(window, image_band * bands.images, row_band * bands.rows,
             std::min(bands.images, batch - image_band * bands.images),
             std::min(bands.rows, window.rows.size - row_band * bands.rows)) {}

  // A band as large as any of `bands`, to size scratch memory with.
  Band(const Window& window, const Bands& bands)
      : Band(window, 0, 0, bands.images, bands.rows) {}

  int64_t columns() const { return columns_; }  // of a run, all
  int64_t run() const { return run_; }          // elements of a run
  int64_t planes() const { return planes_; }    // elements of a channel
  int64_t copies() const { return copies_; }    // planes of a channel
  int64_t plane() const { return plane_; }      // elements of a plane
  // Tap t begins at plane_offsets()[t / copies()] in plane t % copies().
  const std::vector<int64_t>& plane_offsets() const { return plane_offsets_; }
  const std::vector<int64_t>& tap_offsets() const { return tap_offsets_; }

  // Its pixels, and all that their taps show.
  Range own() const { return rows_from(first_row_, rows_); }
  Range seen() const { return rows_from(low_, high_ - low_); }

  // `from` has its own pixels.
  void fill_run(const A* from, A* to) const {
    for_each_row([&](int64_t pixel_row, int64_t column) {
      copy_row(from + pixel_row, width_, to + column);
    });
    clear_unused(to);
  }

  // Zeros the columns of a run that are no pixels.
  void clear_unused(A* run) const {
    for_each_row([&](int64_t, int64_t column) {
      for (int64_t x = width_; x < pitch_; ++x) run[column + x] = 0;
    });
    std::fill_n(run + columns_, run_ - columns_, A(0));
  }

  void store_run(const A* from, A* to) const {
    for_each_row([&](int64_t pixel_row, int64_t column) {
      copy_row(from + column, width_, to + pixel_row);
    });
  }

  // `from` has the pixels that it sees.
  void fill_planes(const A* from, A* to) const {
    const int64_t length = images_ * pitch_;
    for (int64_t y = 0; y < rows_ + 2 * padding_(); ++y) {
      if (same_row_[y] == y) {
        for_each_image(y, [&](int64_t pixel_row, int64_t row) {
          fill_row(from + pixel_row, to + row);
        });
        continue;
      }
      for (int64_t copy = 0; copy < copies_; ++copy)
        std::copy_n(to + copy * plane_ + same_row_[y] * length, length,
                    to + copy * plane_ + y * length);
    }
    for (int64_t copy = 0; copy < copies_; ++copy)
      std::fill_n(to + (copy + 1) * plane_ - slack_, slack_, A(0));
  }

  // Adds each padded pixel to the pixel that it shows.
  void fold_planes(const A* from, A* to) const {
    for (int64_t y = 0; y < rows_ + 2 * padding_(); ++y)
      for_each_image(y, [&](int64_t pixel_row, int64_t row) {
        for (int64_t copy = 0; copy < copies_; ++copy)
          fold_row(from + copy * plane_ + row, copy, to + pixel_row);
      });
  }

 private:
  Band(const Window& window, int64_t first_image, int64_t first_row,
       int64_t images, int64_t rows)
      : window_(window),
        first_image_(first_image),
        first_row_(first_row),
        images_(images),
        rows_(rows),
        width_(window.columns.size),
        low_(first_row),
        high_(first_row + rows) {
    const int64_t taps = window.columns.taps, padding = 2 * padding_();
    const bool narrow = width_ < std::min(kNarrow, 4 * padding);
    copies_ = narrow ? taps : 1;
    pitch_ = narrow ? width_ : width_ + padding;
    const int64_t row = images_ * pitch_;
    columns_ = rows_ * row;
    run_ = (columns_ + kColumns - 1) / kColumns * kColumns;
    slack_ = padding + kColumns;
    plane_ = (rows_ + padding) * row + slack_;
    planes_ = copies_ * plane_;
    for (int64_t t = 0; t < window.taps() / copies_; ++t)
      plane_offsets_.push_back(narrow ? t * row : t / taps * row + t % taps);
    for (int64_t t = 0; t < window.taps(); ++t)
      tap_offsets_.push_back(plane_offsets_[t / copies_] +
                             t % copies_ * plane_);
    for (int64_t y = 0; y < rows_ + padding; ++y) {
      int64_t same = std::max<int64_t>(0, y - 2 * window.rows.size);
      while (source_row(same) != source_row(y)) ++same;
      same_row_.push_back(same);
      low_ = std::min(low_, source_row(y));
      high_ = std::max(high_, source_row(y) + 1);
    }
    for (int64_t x = 0; x < width_ + padding; ++x)
      sources_.push_back(window.columns.source(x - padding_()));
  }

  int64_t padding_() const { return window_.columns.padding; }

  Range rows_from(int64_t row, int64_t rows) const {
    return {first_image_ * window_.pixels() + row * width_,
            (images_ - 1) * window_.pixels() + rows * width_};
  }

  // Calls f(which of its pixels is the first, first column) for each row.
  template <typename F>
  void for_each_row(F f) const {
    for (int64_t y = 0; y < rows_; ++y)
      for (int64_t n = 0; n < images_; ++n)
        f(n * window_.pixels() + y * width_, (y * images_ + n) * pitch_);
  }

  // Likewise for each image's part of a padded row, with pixels that it sees.
  template <typename F>
  void for_each_image(int64_t y, F f) const {
    const int64_t source = source_row(y) - low_;
    for (int64_t n = 0; n < images_; ++n)
      f(n * window_.pixels() + source * width_, (y * images_ + n) * pitch_);
  }

  int64_t source_row(int64_t y) const {
    return window_.rows.source(first_row_ + y - padding_());
  }

  // The first row that is filled is a row of the padded image; the others are
  // cut out of it.
  void fill_row(const A* from, A* to) const {
    const int64_t padding = padding_(), end = padding + width_;
    const auto mirror = [&](A* row) {
      for (int64_t x = 0; x < padding; ++x) row[x] = from[sources_[x]];
      copy_row(from, width_, row + padding);
      for (int64_t x = end; x < end + padding; ++x) row[x] = from[sources_[x]];
    };
    if (copies_ == 1) return mirror(to);
    A padded[kNarrow + kLargestFootprint];
    mirror(padded);
    for (int64_t copy = 0; copy < copies_; ++copy)
      copy_row(padded + copy, width_, to + copy * plane_);
  }

  void fold_row(const A* from, int64_t copy, A* to) const {
    const auto [begin, end] = inner(copy);
    for (int64_t x = 0; x < begin; ++x) to[sources_[copy + x]] += from[x];
    for (int64_t x = begin; x < end; ++x) to[x + copy - padding_()] += from[x];
    for (int64_t x = end; x < pitch_; ++x) to[sources_[copy + x]] += from[x];
  }

  // The columns of a row of plane `copy` that are no padding.
  std::pair<int64_t, int64_t> inner(int64_t copy) const {
    const int64_t begin = std::clamp<int64_t>(padding_() - copy, 0, pitch_);
    const int64_t end =
        std::clamp<int64_t>(padding_() - copy + width_, begin, pitch_);
    return {begin, end};
  }

  Window window_;
  int64_t first_image_, first_row_, images_, rows_, width_;
  int64_t low_, high_;  // the rows that it sees
  int64_t copies_, pitch_, columns_, run_, slack_, plane_, planes_;
  std::vector<int64_t> plane_offsets_, tap_offsets_;
  std::vector<int64_t> same_row_;  // first padded row with the same pixels
  std::vector<int64_t> sources_;   // pixel column of a padded column
};

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_BAND_H_
