// What a pixel of the fused pairwise attention sees, and the buffers that its
// steps share. In an unnamed namespace: one copy per instruction set.
//
// Memory plan, per thread, all in the first two caches: for every tap a row of
// `pitch` elements for the relation a, the hidden z and their gradients, and
// Gp = padded(G) elements, dense, for the weights and their gradients; for
// every two taps a row of pairs for each factor of an outer product.
#ifndef CUDA_KERNELS_PAIRWISE_FOOTPRINT_H_
#define CUDA_KERNELS_PAIRWISE_FOOTPRINT_H_

#include "cuda_kernels/cpu/product.h"
#include "cuda_kernels/pairwise/rows.h"

namespace san::pairwise {
namespace {

using cpu::kStep;
using cpu::kWide;
using cpu::multiply;
using cpu::pack;
using cpu::padded;
using cpu::pair_rows;
using cpu::panel_width;
using cpu::pitch_of;
using cpu::Product;
using cpu::relu;
using cpu::round_up;
using cpu::Vector;
using cpu::with_panel;

// The pixels [y0, y1) x [x0, x1) that pixel (h, w) sees, row by row.
struct Footprint {
  Footprint(const PairwiseShape& s, int64_t h, int64_t w)
      : kernel_size(s.kernel_size), width(s.width) {
    const int64_t reach = kernel_size / 2;
    y0 = h < reach ? 0 : h - reach;
    x0 = w < reach ? 0 : w - reach;
    const int64_t y1 = h + reach < s.height ? h + reach + 1 : s.height;
    const int64_t x1 = w + reach < s.width ? w + reach + 1 : s.width;
    rows = y1 - y0;
    columns = x1 - x0;
    first_row = y0 - h + reach;
    first_column = x0 - w + reach;
  }

  int64_t taps() const { return rows * columns; }
  // Whether it is not cut off; if so every tap shows a pixel of its own.
  bool whole() const { return rows == kernel_size && columns == kernel_size; }

  // Calls f(tap, pixel, offset) for each; they go up together along a row.
  template <typename F>
  inline __attribute__((always_inline)) void for_each(F f) const {
    int64_t tap = 0;
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t pixel = (y0 + y) * width + x0;
      const int64_t offset = (first_row + y) * kernel_size + first_column;
      for (int64_t x = 0; x < columns; ++x) f(tap++, pixel + x, offset + x);
    }
  }

  int64_t kernel_size, width;
  int64_t y0, x0, rows, columns;
  int64_t first_row, first_column;  // the tap that the first pixel is
};

// Hands out pieces of scratch that begin on cache lines.
template <typename A>
class Arena {
 public:
  explicit Arena(A* begin) : next_(reinterpret_cast<uintptr_t>(begin)) {}

  A* take(int64_t elements) {
    next_ = (next_ + 63) / 64 * 64;
    A* piece = reinterpret_cast<A*>(next_);
    next_ += elements * sizeof(A);
    return piece;
  }
  uintptr_t end() const { return next_; }

 private:
  uintptr_t next_;
};

// Vectors may be read and written past the last element of a buffer.
constexpr int64_t kSlack = 32;

template <typename T>
struct Buffers {
  using A = Accumulator<T>;

  Buffers(const PairwiseShape& s, A* scratch) : arena(scratch) {
    const int64_t taps = s.taps();
    groups = padded<A>(s.weight_channels);
    pitch = pitch_of(padded<A>(s.relation_channels > s.weight_channels
                                   ? s.relation_channels
                                   : s.weight_channels));
    for (T** buffer : {&a, &z, &grad_logits})
      *buffer = reinterpret_cast<T*>(arena.take(taps * pitch + kSlack));
    grad_a = arena.take(taps * pitch + kSlack);
    for (T** buffer : {&left, &right})
      *buffer = reinterpret_cast<T*>(
          arena.take(kStep<T> == 1 ? 0 : (taps + 1) / 2 * pitch + kSlack));
    for (A** buffer : {&weights, &grad_weights, &group_counts})
      *buffer = arena.take(taps * groups + kSlack);
    counts = arena.take(taps);
    inverse = arena.take(groups + kSlack);
    group_sums = arena.take(groups + kSlack);
  }

  Arena<A> arena;
  int64_t groups, pitch;
  T *a, *z, *grad_logits;
  A* grad_a;
  T *left, *right;  // pairs of taps, where there are pairs
  A *weights, *grad_weights, *group_counts;
  A *counts, *inverse, *group_sums;
};

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_FOOTPRINT_H_
