// The panels of a weight. In an unnamed namespace: one copy per instruction
// set.
#ifndef CUDA_KERNELS_POINTWISE_PANELS_H_
#define CUDA_KERNELS_POINTWISE_PANELS_H_

#include <algorithm>

#include "cuda_kernels/cpu/transposition.h"
#include "cuda_kernels/pointwise/tile.h"

namespace san::pointwise {
namespace {

// One by one, where rows do not come in whole steps or a step is several rows.
template <typename T>
void pack_elements(const T* weight, int64_t row_step, int64_t column_step,
                   int64_t rows, int64_t columns, T* to) {
  for (int64_t c = 0; c < columns; c += kStep<T>)
    for (int64_t r = 0; r < kPanel; ++r)
      for (int i = 0; i < kStep<T>; ++i)
        *to++ = r < rows && c + i < columns
                    ? weight[r * row_step + (c + i) * column_step]
                    : T();
}

template <typename T>
void pack(const PointwisePanels& task, int64_t first, int64_t last) {
  const int64_t C = task.inputs, O = task.outputs;
  const int64_t steps = (C + kStep<T> - 1) / kStep<T>;
  const T* weight = static_cast<const T*>(task.weight);
  for (int64_t panel = first; panel < last; ++panel) {
    const int64_t row = panel * kPanel, rows = std::min(kPanel, O - row);
    T* to = static_cast<T*>(task.panels) + panel * steps * kStep<T> * kPanel;
    if (task.transposed && kStep<T> == 1) {
      for (int64_t c = 0; c < C; ++c, to += kPanel)
        std::fill(std::copy_n(weight + c * O + row, rows, to), to + kPanel,
                  T());
    } else if (task.transposed) {
      pack_elements(weight + row, 1, O, rows, C, to);
    } else if (kStep<T> == 1 && rows == kPanel) {
      cpu::transpose<false>(weight + row * C, C, to, kPanel, kPanel, C);
    } else {
      pack_elements(weight + row * C, C, 1, rows, C, to);
    }
  }
}

}  // namespace
}  // namespace san::pointwise

#endif  // CUDA_KERNELS_POINTWISE_PANELS_H_
