// Norm, ReLU and pooling on the CPU: who does which rows, and how sums over all
// pixels are put together.
//
// A job is a band of rows of windows. The bands depend on the sizes only, and
// sums are taken within a row in the accumulator, from row to row and from band
// to band in double, in order: the same bits for every number of threads.
#include <algorithm>
#include <vector>

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/norm_relu/rows.h"
#include "cuda_kernels/norm_relu/tasks.h"

namespace san::norm_relu {

SAN_CHOOSE_TABLE(NormReluRows, norm_relu_rows)
SAN_CHOOSE_TABLE(StemRows, stem_rows)

namespace {

constexpr int64_t kMostBands = 64;

// All rows of windows of a batch, one image after the other.
struct Bands {
  explicit Bands(int64_t rows)
      : rows(rows),
        height((rows + kMostBands - 1) / kMostBands),
        count(height == 0 ? 0 : (rows + height - 1) / height) {}

  // Calls f(band, row, scratch) for each row.
  template <typename A, typename F>
  void for_each_row(int64_t scratch_elements, F f) const {
    cpu::for_each_job<A>(count, scratch_elements, [&](int64_t band, A* own) {
      const int64_t end = std::min(rows, (band + 1) * height);
      for (int64_t row = band * height; row < end; ++row) f(band, row, own);
    });
  }

  // Calls add(row, sums) for each row, which adds to `elements` sums, and
  // returns the total.
  template <typename A, typename F>
  std::vector<double> sum(int64_t elements, F add) const {
    cpu::PartialSums<double> partial(count, elements);
    for_each_row<A>(elements, [&](int64_t band, int64_t row, A* sums) {
      std::fill_n(sums, elements, A(0));
      add(row, sums);
      double* to = partial.of(band);
      for (int64_t i = 0; i < elements; ++i) to[i] += sums[i];
    });
    std::vector<double> total(elements);
    partial.store(total.data());
    return total;
  }

  int64_t rows, height, count;
};

template <typename T>
const T* read(const void* data) {
  return static_cast<const T*>(data);
}

// Deviations are taken from a value near the mean, that of the first row, so
// that their squares do not cancel.
template <typename T>
void moments(const ChannelMoments& task) {
  using A = Accumulator<T>;
  const ImageShape& s = task.shape;
  const int64_t C = s.channels, row_elements = s.width * C;
  const T* x = read<T>(task.x);
  std::vector<A> centre(2 * C);
  norm_relu_rows<T>().add_moments(x, std::vector<A>(C).data(), s.width, C,
                                  centre.data());
  for (A& sum : centre) sum /= s.width;
  const std::vector<double> sums =
      Bands(s.batch * s.height).sum<A>(2 * C, [&](int64_t row, A* to) {
        norm_relu_rows<T>().add_moments(x + row * row_elements, centre.data(),
                                        s.width, C, to);
      });
  const double pixels = static_cast<double>(s.batch * s.height * s.width);
  for (int64_t c = 0; c < C; ++c) {
    const double first = sums[c] / pixels, second = sums[C + c] / pixels;
    task.mean[c] = centre[c] + first;
    task.variance[c] = std::max(second - first * first, 0.0);
  }
}

// Rows of windows, and where their pixels and outputs are.
template <typename T>
struct Windows {
  using A = Accumulator<T>;

  explicit Windows(const NormRelu& norm)
      : norm(norm),
        shape(norm.shape),
        k(norm.pool),
        rows(shape.height / k),
        columns(shape.width / k),
        bands(shape.batch * rows) {}

  // Where in x the windows of a row begin.
  int64_t first(int64_t row) const {
    return (row / rows * shape.height + row % rows * k) * x_row();
  }
  int64_t output(int64_t row) const { return row * columns * shape.channels; }
  int64_t x_row() const { return shape.width * shape.channels; }
  WindowRow<T> at(int64_t row) const {
    return {columns,
            shape.channels,
            x_row(),
            read<T>(norm.x) + first(row),
            read<A>(norm.scale),
            read<A>(norm.shift)};
  }

  NormRelu norm;
  ImageShape shape;
  int64_t k, rows, columns;
  Bands bands;
};

template <typename T>
void forward(const NormReluForward& task) {
  const Windows<T> windows(task.norm);
  T* output = static_cast<T*>(task.output);
  windows.bands.template for_each_row<T>(0, [&](int64_t, int64_t row, T*) {
    norm_relu_rows<T>().forward[windows.k - 1](windows.at(row),
                                               output + windows.output(row));
  });
}

template <typename T>
void sums(const NormReluSums& task) {
  using A = Accumulator<T>;
  const Windows<T> windows(task.norm);
  const int64_t C = windows.shape.channels;
  T* output = static_cast<T*>(task.output);
  const std::vector<double> total =
      windows.bands.template sum<A>(2 * C, [&](int64_t row, A* to) {
        const int64_t at = windows.output(row);
        norm_relu_rows<T>().add_sums[windows.k - 1](
            windows.at(row), read<T>(task.grad_output) + at, read<A>(task.mean),
            to, output ? output + at : nullptr);
      });
  std::copy_n(total.data(), C, task.sum);
  std::copy_n(total.data() + C, C, task.moment);
}

// Images, not rows of windows, are what is left over belongs to.
template <typename T>
void backward(const NormReluBackward& task) {
  using A = Accumulator<T>;
  const Windows<T> windows(task.norm);
  const ImageShape& s = windows.shape;
  const NormReluRows<T>& rows = norm_relu_rows<T>();
  const T* x = read<T>(task.norm.x);
  T* grad_x = static_cast<T*>(task.grad_x);
  const A *constant = read<A>(task.constant), *slope = read<A>(task.slope);
  const int64_t x_row = windows.x_row(), k = windows.k;
  const auto fill = [&](int64_t begin, int64_t pixels) {
    rows.fill(x + begin, constant, slope, pixels, s.channels, grad_x + begin);
  };
  windows.bands.template for_each_row<T>(0, [&](int64_t, int64_t row, T*) {
    const int64_t begin = windows.first(row);
    rows.backward[k - 1](windows.at(row),
                         read<T>(task.grad_output) + windows.output(row),
                         constant, slope, grad_x + begin);
    const int64_t used = windows.columns * k;
    for (int64_t i = 0; i < k; ++i)
      fill(begin + i * x_row + used * s.channels, s.width - used);
  });
  const int64_t left = s.height - windows.rows * k;
  for (int64_t n = 0; n < s.batch; ++n)
    fill(((n + 1) * s.height - left) * x_row, left * s.width);
}

// The stem's rows of windows; its weight as [I, C].
template <typename A>
struct StemWindows {
  explicit StemWindows(const Stem& stem)
      : stem(stem),
        I(stem.shape.channels),
        C(stem.channels),
        rows(stem.shape.height / 2),
        columns(stem.shape.width / 2),
        bands(stem.shape.batch * rows),
        weight(I * C) {
    cpu::transpose(read<A>(stem.weight), C, I, weight.data());
  }

  int64_t first(int64_t row) const {
    const int64_t pixel = row / rows * stem.shape.height + row % rows * 2;
    return pixel * stem.shape.width * I;
  }
  int64_t output(int64_t row) const { return row * columns * C; }
  StemRow<A> at(int64_t row) const {
    return {columns,
            I,
            C,
            stem.shape.width * I,
            read<A>(stem.x) + first(row),
            weight.data(),
            read<A>(stem.shift)};
  }

  Stem stem;
  int64_t I, C, rows, columns;
  Bands bands;
  std::vector<A> weight;
};

template <typename A>
void forward(const StemForward& task) {
  const StemWindows<A> windows(task.stem);
  windows.bands.template for_each_row<A>(0, [&](int64_t, int64_t row, A*) {
    stem_rows<A>().forward(windows.at(row),
                           static_cast<A*>(task.output) + windows.output(row));
  });
}

template <typename A>
void backward(const StemBackward& task) {
  const StemWindows<A> windows(task.stem);
  const int64_t I = windows.I, C = windows.C;
  const ImageShape& s = task.stem.shape;
  A* grad_x = static_cast<A*>(task.grad_x);
  // What is left over at the border has no gradient.
  if (grad_x && (s.height % 2 || s.width % 2 || windows.bands.rows == 0))
    std::fill_n(grad_x, s.batch * s.height * s.width * I, A(0));
  const std::vector<double> total =
      windows.bands.template sum<A>((I + 1) * C, [&](int64_t row, A* to) {
        stem_rows<A>().backward(
            windows.at(row), read<A>(task.grad_output) + windows.output(row),
            to, grad_x ? grad_x + windows.first(row) : nullptr);
      });
  cpu::transpose(total.data(), I, C, task.grad_weight);
  std::copy_n(total.data() + I * C, C, task.grad_shift);
}

}  // namespace

void run_on_cpu(const ChannelMoments& task) {
  with_scalar_type(task.type,
                   [&](auto zero) { moments<decltype(zero)>(task); });
}
void run_on_cpu(const NormReluForward& task) {
  with_scalar_type(task.norm.type,
                   [&](auto zero) { forward<decltype(zero)>(task); });
}
void run_on_cpu(const NormReluSums& task) {
  with_scalar_type(task.norm.type,
                   [&](auto zero) { sums<decltype(zero)>(task); });
}
void run_on_cpu(const NormReluBackward& task) {
  with_scalar_type(task.norm.type,
                   [&](auto zero) { backward<decltype(zero)>(task); });
}
void run_on_cpu(const StemForward& task) {
  task.stem.type == ScalarType::kFloat64 ? forward<double>(task)
                                         : forward<float>(task);
}
void run_on_cpu(const StemBackward& task) {
  task.stem.type == ScalarType::kFloat64 ? backward<double>(task)
                                         : backward<float>(task);
}

}  // namespace san::norm_relu
