// The fused pairwise attention on the CPU: who does which rows, and how sums
// that belong to the whole batch are put together.
//
// Forward: a job is a few rows of one image. For backward see bands.h.
#include <algorithm>
#include <vector>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/pairwise/bands.h"
#include "cuda_kernels/pairwise/rows.h"

namespace san::pairwise {

SAN_CHOOSE_TABLE(PairwiseRows, pairwise_rows)

namespace {

// How many taps of output i show pixel i + j - k / 2, for each j: [size, k].
template <typename A>
std::vector<A> tap_counts(int64_t size, int64_t kernel_size) {
  const int64_t reach = kernel_size / 2;
  const Axis axis = {size,  size, kernel_size,          1,
                     reach, 1,    PaddingMode::kReflect};
  std::vector<A> counts(size * kernel_size, A(0));
  for (int64_t i = 0; i < size; ++i)
    for (int64_t tap = 0; tap < kernel_size; ++tap)
      ++counts[i * kernel_size + axis.source(axis.position(i, tap)) - i +
               reach];
  return counts;
}

// The problem and the memory that it points to.
template <typename T, typename A = Accumulator<T>>
class Problem : public PairwiseProblem<T> {
 public:
  Problem(const PairwiseShape& shape, const void* features, const void* scale,
          const void* shift)
      : PairwiseProblem<T>{},
        rows_(tap_counts<A>(shape.height, shape.kernel_size)),
        columns_(tap_counts<A>(shape.width, shape.kernel_size)) {
    this->shape = shape;
    this->features = static_cast<const T*>(features);
    this->scale = static_cast<const A*>(scale);
    this->shift = static_cast<const A*>(shift);
    this->row_counts = rows_.data();
    this->column_counts = columns_.data();
  }

  // [columns, depth] as the right factor of a product, or its transpose.
  const void* packed(const void* matrix, int64_t columns, int64_t depth,
                     bool attention = true) {
    return pack(matrix, depth, columns, 1, depth, attention);
  }
  const void* packed_transposed(const void* matrix, int64_t columns,
                                int64_t depth) {
    return pack(matrix, columns, depth, depth, 1, true);
  }

  const A* pitched(const void* first, const void* second, int64_t columns) {
    std::vector<A> rows(2 * columns);
    std::copy_n(static_cast<const A*>(first), columns, rows.data());
    std::copy_n(static_cast<const A*>(second), columns, rows.data() + columns);
    return pitched(rows.data(), 2, columns);
  }

  // Rows of `columns` elements with the pitch of the kernels' buffers.
  const A* pitched(const void* matrix, int64_t rows, int64_t columns) {
    const int64_t pitch = pairwise_rows<T>().pitch(this->shape);
    const A* from = static_cast<const A*>(matrix);
    A* to = allocate(rows * pitch);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(from + i * columns, columns, to + i * pitch);
    return to;
  }

 private:
  A* allocate(int64_t elements) {
    memory_.emplace_back(elements, A(0));
    return memory_.back().data();
  }
  const void* pack(const void* matrix, int64_t depth, int64_t columns,
                   int64_t step, int64_t column_step, bool attention) {
    const PairwiseRows<T>& rows = pairwise_rows<T>();
    A* to = allocate(rows.packed_elements(depth, columns));
    rows.pack(this->shape, attention, static_cast<const A*>(matrix), depth,
              columns, step, column_step, to);
    return to;
  }

  std::vector<A> rows_, columns_;
  std::vector<std::vector<A>> memory_;
};

template <typename T>
Problem<T> mapped_problem(const PairwiseShape& shape,
                          const PairwiseInputs& in) {
  Problem<T> problem(shape, in.features, in.scale, in.shift);
  const int64_t R = shape.relation_channels, G = shape.weight_channels;
  problem.table = problem.pitched(in.table, shape.taps(), R);
  problem.w1 = problem.packed(in.w1, R, R);
  problem.w2 = problem.packed(in.w2, G, R);
  return problem;
}

template <typename T>
void forward(const PairwiseForward& task) {
  using A = Accumulator<T>;
  const PairwiseShape& shape = task.shape;
  const Problem<T> problem = mapped_problem<T>(shape, task.inputs);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  const int64_t step = rows.forward_rows(shape);
  const int64_t bands = (shape.height + step - 1) / step;
  cpu::for_each_job<A>(
      shape.batch * bands, rows.forward_scratch_elements(shape),
      [&](int64_t job, A* scratch) {
        const int64_t h = job % bands * step;
        rows.forward(problem, job / bands, h, std::min(shape.height, h + step),
                     scratch, static_cast<T*>(task.output),
                     static_cast<A*>(task.log_sum_exp));
      });
}

template <typename T, typename A = Accumulator<T>>
void backward(const PairwiseBackward& task) {
  const PairwiseShape& shape = task.shape;
  const int64_t R = shape.relation_channels, G = shape.weight_channels;
  Problem<T> problem = mapped_problem<T>(shape, task.inputs);
  problem.w1_transposed = problem.packed_transposed(task.inputs.w1, R, R);
  problem.w2_transposed = problem.packed_transposed(task.inputs.w2, G, R);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  const int64_t pitch = rows.pitch(shape);
  const Attended<T> attended = {static_cast<const T*>(task.grad_output),
                                static_cast<const T*>(task.output),
                                static_cast<const A*>(task.log_sum_exp)};
  const Bands bands(shape);
  BandSums<T, A> sums(bands, (shape.taps() + 2 * R) * pitch);
  for_each_row<T>(
      bands, task.grad_features,
      [&](int64_t band, int64_t n, int64_t h, A* scratch, A* grad_features) {
        rows.backward(problem, n, h, scratch, attended, grad_features,
                      sums.of(band));
      });
  const MappingGradients<A> total = sums.total();
  std::copy_n(total.scale, R, static_cast<A*>(task.grad_scale));
  std::copy_n(total.shift, R, static_cast<A*>(task.grad_shift));
  for (int64_t o = 0; o < shape.taps(); ++o)
    std::copy_n(total.table + o * pitch, R,
                static_cast<A*>(task.grad_table) + o * R);
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t i = 0; i < R; ++i)
      static_cast<A*>(task.grad_w1)[i * R + r] = total.w1[r * pitch + i];
    for (int64_t g = 0; g < G; ++g)
      static_cast<A*>(task.grad_w2)[g * R + r] = total.w2[r * pitch + g];
  }
}

// Calls add(n, h, scratch, row_sums) for each row, and adds up the first `used`
// elements of what it leaves: in A within a row, in double from row to row.
template <typename T, typename F, typename A = Accumulator<T>>
MappingGradients<double> sum_of_rows(const Bands& bands, int64_t used,
                                     BandSums<T, double>& sums, F add) {
  const PairwiseShape& shape = bands.shape;
  const int64_t elements = pairwise_rows<T>().scratch_elements(shape);
  const int64_t pitch = pairwise_rows<T>().pitch(shape);
  if (bands.count() == 0) return sums.total();
  cpu::for_each_job<A>(
      bands.count(), elements + used, [&](int64_t job, A* scratch) {
        A* row = scratch + elements;
        double* total = sums.of(job).table;
        bands.for_each_row_of(job, [&](int64_t n, int64_t h) {
          std::fill_n(row, used, A(0));
          add(n, h, scratch,
              MappingGradients<A>{nullptr, nullptr, row,
                                  row + shape.taps() * pitch, nullptr});
          for (int64_t i = 0; i < used; ++i) total[i] += row[i];
        });
      });
  return sums.total();
}

template <typename T, typename A = Accumulator<T>>
void difference(const PairwiseDifference& task) {
  const PairwiseShape& shape = task.shape;
  const int64_t R = shape.relation_channels;
  Problem<T> problem(shape, task.features, nullptr, nullptr);
  problem.centre = static_cast<const A*>(task.centre);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  const int64_t pitch = rows.pitch(shape);
  const Bands bands(shape);
  BandSums<T, double> sums(bands, 2 * pitch);
  const double* total =
      sum_of_rows<T>(bands, 2 * pitch, sums,
                     [&](int64_t n, int64_t h, A* scratch, const auto& row) {
                       rows.difference(problem, n, h, scratch, row);
                     })
          .table;
  std::copy_n(total, R, task.first);
  std::copy_n(total + pitch, R, task.second);
}

template <typename T, typename A = Accumulator<T>>
void difference_backward(const PairwiseDifferenceBackward& task) {
  const PairwiseShape& shape = task.shape;
  const int64_t R = shape.relation_channels;
  Problem<T> problem(shape, task.features, nullptr, nullptr);
  problem.table = problem.pitched(task.constant, task.slope, R);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  for_each_row<T>(
      Bands(shape), task.grad_features,
      [&](int64_t, int64_t n, int64_t h, A* scratch, A* grad_features) {
        rows.difference_backward(problem, n, h, scratch, grad_features);
      });
}

template <typename T, typename A = Accumulator<T>>
void moments(const PairwiseMoments& task) {
  const PairwiseShape& shape = task.shape;
  const int64_t R = shape.relation_channels;
  Problem<T> problem(shape, task.features, task.scale, task.shift);
  problem.centre = problem.pitched(task.centre, 1, R);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  const int64_t pitch = rows.pitch(shape);
  const Bands bands(shape);
  BandSums<T, double> sums(bands, (shape.taps() + R) * pitch);
  const MappingGradients<double> total =
      sum_of_rows<T>(bands, (shape.taps() + R) * pitch, sums,
                     [&](int64_t n, int64_t h, A* scratch, const auto& row) {
                       rows.moments(problem, n, h, scratch, row);
                     });
  for (int64_t o = 0; o < shape.taps(); ++o)
    std::copy_n(total.table + o * pitch, R, task.first + o * R);
  for (int64_t r = 0; r < R; ++r)
    for (int64_t i = r; i < R; ++i)
      task.second[r * R + i] = task.second[i * R + r] = total.w1[r * pitch + i];
}

template <typename T, typename A = Accumulator<T>>
void moments_backward(const PairwiseMomentsBackward& task) {
  const PairwiseShape& shape = task.shape;
  const int64_t R = shape.relation_channels;
  Problem<T> problem(shape, task.features, task.scale, task.shift);
  problem.table = problem.pitched(task.grad_first, shape.taps(), R);
  problem.w1 = problem.packed(task.grad_second, R, R, false);
  const PairwiseRows<T>& rows = pairwise_rows<T>();
  const Bands bands(shape);
  BandSums<T, A> sums(bands, 0);
  for_each_row<T>(
      bands, task.grad_features,
      [&](int64_t band, int64_t n, int64_t h, A* scratch, A* grad_features) {
        rows.moments_backward(problem, n, h, scratch, grad_features,
                              sums.of(band));
      });
  const MappingGradients<A> total = sums.total();
  std::copy_n(total.scale, R, static_cast<A*>(task.grad_scale));
  std::copy_n(total.shift, R, static_cast<A*>(task.grad_shift));
}

}  // namespace

void run_on_cpu(const PairwiseForward& task) {
  if (task.type == ScalarType::kBfloat16) return forward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? forward<double>(task)
                                    : forward<float>(task);
}
void run_on_cpu(const PairwiseBackward& task) {
  if (task.type == ScalarType::kBfloat16) return backward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? backward<double>(task)
                                    : backward<float>(task);
}
void run_on_cpu(const PairwiseDifference& task) {
  if (task.type == ScalarType::kBfloat16) return difference<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? difference<double>(task)
                                    : difference<float>(task);
}
void run_on_cpu(const PairwiseDifferenceBackward& task) {
  if (task.type == ScalarType::kBfloat16)
    return difference_backward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? difference_backward<double>(task)
                                    : difference_backward<float>(task);
}
void run_on_cpu(const PairwiseMoments& task) {
  if (task.type == ScalarType::kBfloat16) return moments<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? moments<double>(task)
                                    : moments<float>(task);
}
void run_on_cpu(const PairwiseMomentsBackward& task) {
  if (task.type == ScalarType::kBfloat16)
    return moments_backward<bfloat16>(task);
  task.type == ScalarType::kFloat64 ? moments_backward<double>(task)
                                    : moments_backward<float>(task);
}

}  // namespace san::pairwise
