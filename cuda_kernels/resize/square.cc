// PIL's bilinear resize, of the square that is needed only, and normalisation.
//
// The filter is a triangle around an output pixel's centre, as wide to each
// side as an output pixel but at least one pixel of the window; what lies
// outside the window has no weight, and the weights sum to one. As PIL does,
// the rows are resized first and rounded to bytes, then the columns; with
// PIL's own integer weights, every grey level is PIL's.
//
// Memory: a ring of the last resized rows, as many as a column's filter has
// taps, one byte per element, colours apart: [taps, colour, pitch]. It stays in
// the L1 cache. The window is read once and the square written once.
#include "cuda_kernels/resize/square.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/resize/row_loops.h"

namespace san::resize {

// Defined by the three compilations of row_loops.cc.
RowLoops row_loops_baseline();
RowLoops row_loops_avx2();
RowLoops row_loops_avx512();

const RowLoops& row_loops() {
  static const RowLoops tables[] = {SAN_TABLES(row_loops, ())};
  return tables[instruction_set()];
}

namespace {

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// The weights of every output pixel along one axis: those of pixel i are
// weights[i * taps] on, for the window's pixels first[i] on.
struct Filter {
  int64_t taps;
  std::vector<int64_t> first;
  std::vector<int32_t> weights;
};

// To the bit as PIL: the same operations on the same doubles.
Filter filter_along(const Axis& axis, int64_t side, int64_t padded_side,
                    bool mirrored) {
  const double width = std::max(axis.scale, 1.0), inverse = 1 / width;
  Filter filter;
  filter.taps = static_cast<int64_t>(
      std::min(std::ceil(2 * width), static_cast<double>(axis.size)));
  filter.first.resize(padded_side);
  filter.weights.resize(padded_side * filter.taps);
  std::vector<double> exact(filter.taps);
  for (int64_t i = 0; i < side; ++i) {
    const double centre = (axis.corner + i + 0.5) * axis.scale;
    const int64_t first =
        std::max<int64_t>(static_cast<int64_t>(centre - width + 0.5), 0);
    const int64_t end = std::min({static_cast<int64_t>(centre + width + 0.5),
                                  axis.size, first + filter.taps});
    double total = 0;
    for (int64_t t = 0; t < end - first; ++t) {
      exact[t] =
          std::max(0.0, 1 - std::abs((t + first - centre + 0.5) * inverse));
      total += exact[t];
    }
    const int64_t place = mirrored ? side - 1 - i : i;
    // So near the end that all taps lie in the window: the others are zero.
    const int64_t start = std::min(first, axis.size - filter.taps);
    filter.first[place] = start;
    for (int64_t t = 0; t < end - first; ++t)
      filter.weights[place * filter.taps + first - start + t] =
          static_cast<int32_t>(exact[t] / total * (1 << kPrecision) + 0.5);
  }
  return filter;
}

}  // namespace

void run_on_cpu(const Square& task) {
  const RowLoops& loops = row_loops();
  const int64_t S = task.side, padded = round_up(S, kGroup);
  const Filter across = filter_along(task.columns, S, padded, task.mirrored);
  const Filter down = filter_along(task.rows, S, S, false);
  const int64_t pitch = 3 * padded, row_bytes = 3 * task.columns.size;
  std::vector<uint8_t> row(row_bytes + kSlackBytes);
  std::vector<uint8_t> ring(down.taps * pitch + kSlackBytes);
  std::vector<const uint8_t*> rows(down.taps);
  int64_t next = down.first.front();
  for (int64_t y = 0; y < S; ++y) {
    for (; next < down.first[y] + down.taps; ++next) {
      memcpy(row.data(), task.window + next * row_bytes, row_bytes);
      loops.across(row.data(), across.first.data(), across.weights.data(),
                   across.taps, padded, ring.data() + next % down.taps * pitch,
                   padded);
    }
    for (int c = 0; c < 3; ++c) {
      for (int64_t t = 0; t < down.taps; ++t)
        rows[t] =
            ring.data() + (down.first[y] + t) % down.taps * pitch + c * padded;
      loops.down(rows.data(), down.weights.data() + y * down.taps, down.taps, S,
                 task.shift[c], task.factor[c], task.square + (c * S + y) * S);
    }
  }
}

}  // namespace san::resize
