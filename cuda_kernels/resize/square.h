// From a decoded window of an image to a normalised square, on the CPU.
#ifndef CUDA_KERNELS_RESIZE_SQUARE_H_
#define CUDA_KERNELS_RESIZE_SQUARE_H_

#include <cstdint>

namespace san::resize {

// One axis: the square begins at pixel `corner` of the resized window, which
// has a pixel for each `scale` of the window's `size`.
struct Axis {
  int64_t size;
  double scale;
  int64_t corner;
};

// square[c, y, x] = (level[y, x, c] - shift[c]) * factor[c], with the grey
// levels of PIL's bilinear resize: to the bit where PIL takes rows first, else
// within one level. `mirrored` turns x round.
struct Square {
  Axis rows, columns;
  bool mirrored;
  int64_t side;
  float shift[3], factor[3];
  const uint8_t* window;  // [rows.size, columns.size, 3]
  float* square;          // [3, side, side]
};

void run_on_cpu(const Square& task);

}  // namespace san::resize

#endif  // CUDA_KERNELS_RESIZE_SQUARE_H_
