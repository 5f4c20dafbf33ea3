// Sums that several jobs contribute to, added up in an order that does not
// depend on threads.
#ifndef CUDA_KERNELS_CPU_ORDERED_SUMS_H_
#define CUDA_KERNELS_CPU_ORDERED_SUMS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace san::cpu {

// One array of `count` zeros per piece of work.
template <typename A>
class PartialSums {
 public:
  // Without any piece the sums are zero.
  PartialSums(int64_t pieces, int64_t count)
      : pieces_(std::max<int64_t>(pieces, 1)),
        count_(count),
        sums_(pieces_ * count) {}

  A* of(int64_t piece) { return sums_.data() + piece * count_; }

  // Writes the sums over all pieces, in their order.
  void store(A* to) const {
    std::copy_n(sums_.data(), count_, to);
    for (int64_t piece = 1; piece < pieces_; ++piece)
      for (int64_t i = 0; i < count_; ++i) to[i] += sums_[piece * count_ + i];
  }

 private:
  int64_t pieces_, count_;
  std::vector<A> sums_;
};

// Writes a matrix [rows, columns] as [columns, rows].
template <typename A>
void transpose(const A* matrix, int64_t rows, int64_t columns, A* to) {
  constexpr int64_t kRows = 16;  // as many streams as the hardware follows
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t last = std::min(first + kRows, rows);
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t row = first; row < last; ++row)
        to[column * rows + row] = matrix[row * columns + column];
  }
}

}  // namespace san::cpu

#endif  // CUDA_KERNELS_CPU_ORDERED_SUMS_H_
