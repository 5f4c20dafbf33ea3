// Bands of rows as jobs share them, of the outputs or of the image, and which
// rows of the other side they need.
#ifndef CUDA_KERNELS_WINDOW_OPS_ROW_BANDS_H_
#define CUDA_KERNELS_WINDOW_OPS_ROW_BANDS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda_kernels/window.h"

namespace san::fast {

constexpr int64_t kBandRows = 16;

// A band of output rows, and the rows of the image that its taps see. In
// scratch those lie one below the other, with a row of zeros after the last if
// a tap sees zeros.
struct OutputBand {
  OutputBand(const Axis& rows, int64_t first)
      : first(first),
        end(std::min(first + kBandRows, rows.outputs)),
        shares_rows(rows.stride == rows.dilation),
        image_first(rows.size),
        image_end(0),
        sees_zeros(false) {
    to_next = shares_rows ? 1 : rows.taps;
    for (int64_t r = 0; r < count(); ++r)
      for (int64_t kh = 0; kh < rows.taps; ++kh) {
        // Rows that the row before sees too are there already.
        if (r * to_next + kh < static_cast<int64_t>(seen.size())) continue;
        const int64_t y = rows.source(rows.position(first + r, kh));
        seen.push_back(y);
        if (y < 0) sees_zeros = true;
        if (y >= 0) image_first = std::min(image_first, y);
        image_end = std::max(image_end, y + 1);
      }
    image_first = std::min(image_first, image_end);
    for (int64_t& y : seen) y = (y < 0 ? image_end : y) - image_first;
  }

  int64_t count() const { return end - first; }
  int64_t rows_in_scratch() const {
    return image_end - image_first + sees_zeros;
  }
  int64_t first, end;  // output rows
  // Whether a row sees by tap row kh what the row before sees by kh + 1.
  bool shares_rows;
  int64_t image_first, image_end;  // rows of the image
  bool sees_zeros;
  // Which row in scratch tap row kh of output row first + r sees:
  // seen[r * to_next + kh].
  std::vector<int64_t> seen;
  int64_t to_next;
};

// A band of rows of the image, and which rows reach it: padded rows that show
// one of its rows lie in [padded_first, padded_end), and the outputs that see
// those in [output_first, output_end).
struct ImageBand {
  int64_t count() const { return end - first; }
  int64_t outputs() const {
    return std::max<int64_t>(output_end - output_first, 0);
  }

  int64_t first, end;
  int64_t padded_first, padded_end;
  int64_t output_first, output_end;
};

inline std::vector<OutputBand> output_bands(const Axis& rows) {
  std::vector<OutputBand> bands;
  for (int64_t first = 0; first < rows.outputs; first += kBandRows)
    bands.emplace_back(rows, first);
  return bands;
}

inline std::vector<ImageBand> image_bands(const Axis& rows) {
  const int64_t reach = (rows.taps - 1) * rows.dilation;
  const int64_t padded_rows = (rows.outputs - 1) * rows.stride + reach + 1;
  std::vector<ImageBand> bands;
  for (int64_t first = 0; first < rows.size; first += kBandRows)
    bands.push_back({first, std::min(first + kBandRows, rows.size), padded_rows,
                     0, rows.outputs, 0});
  for (int64_t r = 0; r < padded_rows; ++r) {
    const int64_t y = rows.source(r - rows.padding);
    if (y < 0) continue;
    ImageBand& band = bands[y / kBandRows];
    band.padded_first = std::min(band.padded_first, r);
    band.padded_end = r + 1;
    const int64_t before = std::max<int64_t>(r - reach, 0);
    band.output_first =
        std::min(band.output_first, (before + rows.stride - 1) / rows.stride);
    band.output_end = std::min(r / rows.stride + 1, rows.outputs);
  }
  return bands;
}

// The most rows of outputs that reach one band.
inline int64_t most_outputs(const std::vector<ImageBand>& bands) {
  int64_t most = 0;
  for (const ImageBand& band : bands) most = std::max(most, band.outputs());
  return most;
}

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_ROW_BANDS_H_
