// The inner loops of the resize, compiled once per instruction set and chosen
// at run time. Grey levels are bytes, weights integers of kPrecision bits after
// the point, as in PIL: sums are exact, whatever the order.
#ifndef CUDA_KERNELS_RESIZE_ROW_LOOPS_H_
#define CUDA_KERNELS_RESIZE_ROW_LOOPS_H_

#include <cstdint>

namespace san::resize {

constexpr int kPrecision = 22;
// Output pixels that `across` makes at once; it writes whole groups.
constexpr int kGroup = 4;
// What the loops may read past the end of a row.
constexpr int kSlackBytes = 64;

struct RowLoops {
  // to[c * pitch + x] = sum over t < taps of
  //     weights[x * taps + t] * from[3 * (first[x] + t) + c]
  // for x < columns, a multiple of kGroup.
  void (*across)(const uint8_t* from, const int64_t* first,
                 const int32_t* weights, int64_t taps, int64_t columns,
                 uint8_t* to, int64_t pitch);
  // to[x] = (level - shift) * factor, level = sum over t < taps of
  //     weights[t] * rows[t][x]
  void (*down)(const uint8_t* const* rows, const int32_t* weights, int64_t taps,
               int64_t columns, float shift, float factor, float* to);
};

// The fastest loops that this processor can run.
const RowLoops& row_loops();

}  // namespace san::resize

#endif  // CUDA_KERNELS_RESIZE_ROW_LOOPS_H_
