// Compiled once per instruction set, with that set's compiler flags. Only the
// table at the end is visible outside.
#include "cuda_kernels/window_ops/row_kernels.h"

#include <algorithm>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/transposition.h"
#include "cuda_kernels/cpu/vectors.h"
#include "cuda_kernels/window_ops/window_sums.h"

namespace san::fast {
namespace {

using namespace cpu;

template <typename T>
void load_row(const T* from, Accumulator<T>* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(from + i));
  });
}

template <typename T>
void store_row(const Accumulator<T>* from, T* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(from + i));
  });
}

template <typename T>
void add(const T* from, Accumulator<T>* to, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i));
  });
}

template <typename A>
void gather_rows(const A* from, int64_t pitch, A* to, int64_t rows,
                 int64_t columns) {
  for (int64_t r = 0; r < rows; ++r, from += pitch, to += columns)
    for_each_vector<A>(columns, [&](auto lanes, int64_t i) {
      lanes.store(to + i, lanes.load(from + i));
    });
}

template <typename A>
void scatter_rows(const A* from, A* to, int64_t pitch, int64_t rows,
                  int64_t columns) {
  for (int64_t r = 0; r < rows; ++r, from += columns, to += pitch)
    for_each_vector<A>(columns, [&](auto lanes, int64_t i) {
      lanes.store(to + i, lanes.load(to + i) + lanes.load(from + i));
    });
}

template <typename T>
void subtract(const Accumulator<T>* a, const Accumulator<T>* b, T* out,
              int64_t count, bool streamed) {
  const auto subtract_lanes = [&](auto lanes, int64_t i) {
    return lanes.load(a + i) - lanes.load(b + i);
  };
  const auto subtract_plainly = [&](auto lanes, int64_t i) {
    lanes.store(out + i, subtract_lanes(lanes, i));
  };
  if (!streamed)
    return for_each_vector<Accumulator<T>>(count, subtract_plainly);
  const int64_t head = std::min(count, unaligned_elements(out));
  for_each_vector<Accumulator<T>>(head, subtract_plainly);
  a += head, b += head, out += head;
  for_each_vector<Accumulator<T>>(count - head, [&](auto lanes, int64_t i) {
    lanes.stream(out + i, subtract_lanes(lanes, i));
  });
}

template <typename T>
void spread(const T* g, Accumulator<T>* a, Accumulator<T>* b, int64_t count) {
  for_each_vector<Accumulator<T>>(count, [&](auto lanes, int64_t i) {
    const auto gradient = lanes.load(g + i);
    lanes.store(a + i, lanes.load(a + i) + gradient);
    lanes.store(b + i, lanes.load(b + i) - gradient);
  });
}

}  // namespace

template <typename T>
RowKernels<T> SAN_TABLE(row_kernels)() {
  using A = Accumulator<T>;
  return {load_row<T>,
          store_row<T>,
          transpose<true, T, A>,
          transpose<false, A, T>,
          window_sum<T>,
          window_products<T>,
          gather<T>,
          add<T>,
          gather_rows<A>,
          scatter_rows<A>,
          subtract<T>,
          end_stream,
          spread<T>};
}

template RowKernels<float> SAN_TABLE(row_kernels)();
template RowKernels<double> SAN_TABLE(row_kernels)();
template RowKernels<float16> SAN_TABLE(row_kernels)();
template RowKernels<bfloat16> SAN_TABLE(row_kernels)();

}  // namespace san::fast
