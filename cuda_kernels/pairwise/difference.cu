// The differences of the fused pairwise attention on CUDA: sums of phi - psi
// and its squares over all pixels and taps, and their gradient.
//
// R relation channels, K taps, k of a line, P pixels of a tile.
//
// Nothing goes over the K taps. With box(x)[p], the sum of x over the footprint
// of p, mirrored taps and all, the sums over the taps of p are
//
//   sum of phi - psi        = K phi - box(psi)
//   sum of (phi - psi)^2    = K phi^2 - 2 phi box(psi) + box(psi^2)
//
// and their gradients need box(psi) and the transpose of box of phi. A box is a
// sum over k rows and then one over k columns. Each is taken anew for each
// pixel: sums that run along a line would carry the error of a large pixel, and
// a NaN, to all that follow. Everything is summed in float64, psi about `level`
// and phi about centre + level, so that no digits cancel.
//
// Memory plan: a block takes P columns of a band of rows, one row after the
// other, and some channels: of each row P + k - 1 sums over rows, of two
// quantities. A thread owns a (column, channel). Read are phi and psi, for each
// row of a footprint, from a cache.
#include <type_traits>

#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/pairwise/sums.h"
#include "cuda_kernels/pairwise/tile.h"
#include "cuda_kernels/window.h"

namespace san::pairwise {
namespace {

// Rows of a band: more share the mirrored columns, fewer give more blocks.
constexpr int kBandRows = 16;
// Registers for two blocks: float64 takes two for a number.
constexpr int kBlocks = 2;

// P columns of a band by some channels: as many threads.
struct Line {
  Line(const PairwiseShape& s, int channel_bits)
      : height(s.height),
        width(s.width),
        features(s.feature_channels()),
        k(static_cast<int>(s.kernel_size)),
        R(static_cast<int>(s.relation_channels)),
        channel_bits(channel_bits),
        segments((s.width + pixels() - 1) / pixels()),
        bands((s.height + kBandRows - 1) / kBandRows),
        tiles(s.batch * bands * segments) {}

  SAN_HOST_DEVICE int channels() const { return 1 << channel_bits; }
  SAN_HOST_DEVICE int pixels() const { return kThreads >> channel_bits; }
  // Columns and rows that the footprints of a tile reach.
  SAN_HOST_DEVICE int columns() const { return pixels() + k - 1; }
  SAN_HOST_DEVICE int rows() const { return kBandRows + k - 1; }
  SAN_HOST_DEVICE Axis axis(int64_t size) const {
    return {size, size, k, 1, k / 2, 1, PaddingMode::kReflect};
  }
  int64_t shared_bytes() const {
    const int64_t counts = int64_t(pixels() + kBandRows) * k;
    const int64_t lines = 2 * int64_t(columns()) * channels();
    return 8 * (lines + 2 * kThreads + rows() + columns()) + 4 * counts;
  }
  dim3 grid(int64_t blocks) const {
    return dim3(static_cast<unsigned>(blocks),
                static_cast<unsigned>((R + channels() - 1) >> channel_bits));
  }

  int64_t height, width;
  int64_t features;  // channels of a pixel, F
  int k, R;
  int channel_bits;
  int64_t segments, bands;  // of an image
  int64_t tiles;
};

// As many channels side by side as leave room for the columns of a footprint.
Line choose_line(const PairwiseShape& s) {
  const auto limit = static_cast<int64_t>(most_shared_bytes());
  int bits = 0;
  while (bits < 5 && int64_t(1) << bits < s.relation_channels) ++bits;
  for (; bits >= 0; --bits) {
    const Line line(s, bits);
    if (line.shared_bytes() <= limit) return line;
  }
  fail_for_room(s);
}

// Where a thread's tile lies, and what the block keeps of it. kSize is k, or 0
// for one that is not known when this is compiled.
template <typename T, int kSize>
struct LineBlock {
  __device__ LineBlock(const Line& line, const T* features)
      : t(line), features(features) {
    lines[0] = reinterpret_cast<double*>(shared_memory());
    lines[1] = lines[0] + t.columns() * t.channels();
    totals = lines[1] + t.columns() * t.channels();
    rows = reinterpret_cast<int64_t*>(totals + 2 * kThreads);
    columns = rows + t.rows();
    row_counts = reinterpret_cast<int*>(columns + t.columns());
    column_counts = row_counts + kBandRows * k();
    lane = static_cast<int>(threadIdx.x) & (t.channels() - 1);
    column = static_cast<int>(threadIdx.x) >> t.channel_bits;
    channel = static_cast<int>(blockIdx.y) * t.channels() + lane;
  }

  __device__ int k() const { return kSize > 0 ? kSize : t.k; }

  // Calls f() for each row of a tile, between barriers, with the pixels that
  // its taps show and, if asked for, how many taps of the pixels at each
  // distance show its own: the row, [rows, k], and the columns, [P, k]; 0
  // outside the image.
  template <bool kCounts, typename F>
  __device__ void for_each_row(int64_t tile, F f) {
    const int64_t segment = tile % t.segments, bands = tile / t.segments;
    const int64_t first = bands % t.bands * kBandRows;
    const int64_t end =
        first + kBandRows < t.height ? first + kBandRows : t.height;
    x0 = segment * t.pixels();
    image = bands / t.bands * t.height * t.width;
    inside = x0 + column < t.width && channel < t.R;
    const Axis down = t.axis(t.height), across = t.axis(t.width);
    for (int i = threadIdx.x; i < t.columns(); i += kThreads)
      columns[i] = across.source(x0 - k() / 2 + i) * t.features;
    const int count = static_cast<int>(end - first);
    for (int i = threadIdx.x; i < count + k() - 1; i += kThreads)
      rows[i] =
          (image + down.source(first - k() / 2 + i) * t.width) * t.features;
    for (int i = threadIdx.x; kCounts && i < (t.pixels() + count) * k();
         i += kThreads) {
      const int at = i / k(), distance = i - at * k();
      if (at < t.pixels())
        column_counts[i] = shown(across, x0 + at, distance);
      else
        row_counts[i - t.pixels() * k()] =
            shown(down, first + at - t.pixels(), distance);
    }
    __syncthreads();
#pragma unroll 1
    for (row = 0; row < count; ++row) {
      start = image + (first + row) * t.width + x0;
      f();
      __syncthreads();
    }
  }
  __device__ int shown(const Axis& axis, int64_t q, int distance) const {
    const int64_t from = q - k() / 2 + distance;
    int times = 0;
    if (q < axis.size && from >= 0 && from < axis.size)
      for (int64_t tap = 0; tap < k(); ++tap)
        times += axis.source(axis.position(from, tap)) == q;
    return times;
  }

  // Of the pixel that begins at an element.
  __device__ double phi(int64_t at) const {
    return wide(features[at + channel]);
  }
  __device__ double psi(int64_t at) const {
    return wide(features[at + t.R + channel]);
  }

  // Calls f(column, place) for the columns that a thread sums over rows.
  template <typename F>
  __device__ void for_each_column(F f) const {
    if (channel >= t.R) return;
    for (int j = column; j < t.columns(); j += t.pixels())
      f(j, (j << t.channel_bits) + lane);
  }
  __device__ int64_t own() const { return (start + column) * t.features; }
  __device__ int place(int tap) const {
    return ((column + tap) << t.channel_bits) + lane;
  }

  const Line& t;
  const T* features;
  double *lines[2],
      *totals;              // [P + k - 1, channels] twice, and [threads] twice
  int64_t *rows, *columns;  // of the taps, the first elements
  int *row_counts, *column_counts;
  int lane, column, channel, row = 0;
  int64_t image = 0, x0 = 0, start = 0;  // first pixels, and column
  bool inside = false;
};

// Calls f(k) with a footprint that kernels are compiled for, or 0.
template <typename F>
void with_size(int k, F f) {
  if (k == 3)
    f(std::integral_constant<int, 3>());
  else if (k == 7)
    f(std::integral_constant<int, 7>());
  else
    f(std::integral_constant<int, 0>());
}

// ---- Sums of d = phi - psi - centre and its squares.

template <typename T, typename A = Accumulator<T>>
struct Differences {
  Line line;
  Parts parts;
  const T* features;
  const A *centre, *level;
};

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sum_differences(Differences<T> problem) {
  const Line& t = problem.line;
  LineBlock<T, kSize> block(t, problem.features);
  double phi_centre = 0, psi_centre = 0, first = 0, second = 0;
  if (block.channel < t.R) {
    psi_centre = problem.level[block.channel];
    phi_centre = problem.centre[block.channel] + psi_centre;
  }
  const auto add_row = [&] {
    block.for_each_column([&](int j, int place) {
      double sum = 0, squares = 0;
#pragma unroll
      for (int i = 0; i < block.k(); ++i) {
        const double x =
            block.psi(block.rows[block.row + i] + block.columns[j]) -
            psi_centre;
        sum += x;
        squares += x * x;
      }
      block.lines[0][place] = sum;
      block.lines[1][place] = squares;
    });
    __syncthreads();
    if (block.inside) {
      double sum = 0, squares = 0;
#pragma unroll
      for (int i = 0; i < block.k(); ++i) {
        sum += block.lines[0][block.place(i)];
        squares += block.lines[1][block.place(i)];
      }
      const double x = block.phi(block.own()) - phi_centre;
      const double taps = block.k() * block.k();
      first += taps * x - sum;
      second += x * (taps * x - 2 * sum) + squares;
    }
  };
  for (int64_t tile = blockIdx.x; tile < t.tiles; tile += gridDim.x)
    block.template for_each_row<false>(tile, add_row);
  block.totals[threadIdx.x] = first;
  block.totals[kThreads + threadIdx.x] = second;
  __syncthreads();
  if (block.column > 0 || block.channel >= t.R) return;
  for (int i = 1; i < t.pixels(); ++i) {
    first += block.totals[(i << t.channel_bits) + block.lane];
    second += block.totals[kThreads + (i << t.channel_bits) + block.lane];
  }
  double* part = problem.parts.part(blockIdx.x);
  part[problem.parts.at.first + block.channel] = first;
  part[problem.parts.at.second + block.channel] = second;
}

template <typename T>
void difference(const PairwiseDifference& task, const Parts& parts,
                void* stream) {
  const Differences<T> problem = {
      choose_line(task.shape), parts, static_cast<const T*>(task.features),
      static_cast<const Accumulator<T>*>(task.centre),
      static_cast<const Accumulator<T>*>(task.level)};
  const Line& line = problem.line;
  with_size(line.k, [&](auto k) {
    launch(&sum_differences<T, decltype(k)::value>,
           {line.grid(parts.count), kThreads,
            static_cast<size_t>(line.shared_bytes())},
           stream, problem);
  });
}

// ---- The gradient of those: constant + slope * (phi - psi).

template <typename T, typename A = Accumulator<T>>
struct DifferenceGradients {
  Line line;
  int M;
  const T* features;
  const A *constant, *slope;
  T* grad_features;
};

// The gradients of phi and psi of a block's pixels.
template <typename T, int kSize>
__device__ void write_gradients(const LineBlock<T, kSize>& block,
                                const DifferenceGradients<T>& problem) {
  const Line& t = block.t;
  const double constant = problem.constant[block.channel];
  const double slope = problem.slope[block.channel];
  double seen = 0, seeing = 0;
  int rows = 0, columns = 0;
#pragma unroll
  for (int i = 0; i < block.k(); ++i) {
    const int times = block.column_counts[block.column * block.k() + i];
    seen += block.lines[0][block.place(i)];
    if (times > 0) seeing += times * block.lines[1][block.place(i)];
    rows += block.row_counts[block.row * block.k() + i];
    columns += times;
  }
  const double taps = block.k() * block.k(), times = double(rows) * columns;
  const double phi = block.phi(block.own()), psi = block.psi(block.own());
  using A = Accumulator<T>;
  T* to = problem.grad_features + block.own() + block.channel;
  to[0] =
      rounded<T>(static_cast<A>(taps * constant + slope * (taps * phi - seen)));
  to[t.R] = rounded<T>(
      static_cast<A>(slope * (times * psi - seeing) - times * constant));
}

// Zeros for the value of a tile's pixels, after its rows, which the blocks of a
// tile share: 16 bytes at a time where all pixels begin on a boundary.
template <typename T, int kSize>
__device__ void clear_value(const LineBlock<T, kSize>& block, int M, T* to) {
  constexpr int kEach = 16 / sizeof(T);
  const Line& t = block.t;
  const bool vectors = M % kEach == 0 && 2 * t.R % kEach == 0 &&
                       reinterpret_cast<uintptr_t>(to) % 16 == 0;
  const int each = vectors ? kEach : 1, count = M / each;
  const int begin = static_cast<int>(int64_t(count) * blockIdx.y / gridDim.y);
  const int end =
      static_cast<int>(int64_t(count) * (blockIdx.y + 1) / gridDim.y);
  const int64_t left = t.width - block.x0;
  const int pixels = left < t.pixels() ? static_cast<int>(left) : t.pixels();
  const int wide = end - begin;
  const int64_t first = block.start - int64_t(block.row - 1) * t.width;
#pragma unroll 1
  for (int i = threadIdx.x; i < pixels * wide; i += kThreads) {
    const int p = i / wide, at = begin + i - p * wide;
    T* zero = to + (first + p) * t.features + 2 * t.R + at * each;
#pragma unroll 4
    for (int y = 0; y < block.row; ++y, zero += t.width * t.features)
      if (vectors)
        *reinterpret_cast<uint4*>(zero) = {};
      else
        *zero = rounded<T>(Accumulator<T>(0));
  }
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, kBlocks)
    spread_differences(DifferenceGradients<T> problem) {
  const Line& t = problem.line;
  LineBlock<T, kSize> block(t, problem.features);
  const auto write_row = [&] {
    block.for_each_column([&](int j, int place) {
      const int64_t x = block.x0 - block.k() / 2 + j;
      const bool exists = x >= 0 && x < t.width;
      double seen = 0, seeing = 0;
#pragma unroll
      for (int i = 0; i < block.k(); ++i) {
        const int64_t at = block.rows[block.row + i] + block.columns[j];
        seen += block.psi(at);
        // Taps of pixels outside the image do not exist.
        const int times = block.row_counts[block.row * block.k() + i];
        if (exists && times > 0) seeing += times * block.phi(at);
      }
      block.lines[0][place] = seen;
      block.lines[1][place] = seeing;
    });
    __syncthreads();
    if (block.inside) write_gradients(block, problem);
  };
  for (int64_t tile = blockIdx.x; tile < t.tiles; tile += gridDim.x) {
    block.template for_each_row<true>(tile, write_row);
    clear_value(block, problem.M, problem.grad_features);
  }
}

template <typename T>
void difference_backward(const PairwiseDifferenceBackward& task, void* stream) {
  using A = Accumulator<T>;
  constexpr int64_t kMostBlocks = 0x7fffffff;
  const DifferenceGradients<T> problem = {
      choose_line(task.shape),
      static_cast<int>(task.shape.value_channels),
      static_cast<const T*>(task.features),
      static_cast<const A*>(task.constant),
      static_cast<const A*>(task.slope),
      static_cast<T*>(task.grad_features)};
  const Line& line = problem.line;
  with_size(line.k, [&](auto k) {
    launch(&spread_differences<T, decltype(k)::value>,
           {line.grid(line.tiles < kMostBlocks ? line.tiles : kMostBlocks),
            kThreads, static_cast<size_t>(line.shared_bytes())},
           stream, problem);
  });
}

}  // namespace

void run_on_cuda(const PairwiseDifference& task, void* workspace,
                 void* stream) {
  const Parts parts(task, workspace);
  if (parts.count > 0)
    with_scalar_type(task.type, [&](auto zero) {
      difference<decltype(zero)>(task, parts, stream);
    });
  const int R = static_cast<int>(task.shape.relation_channels);
  add_parts(parts,
            {{parts.at.first, 1, R, false, false, task.first},
             {parts.at.second, 1, R, false, false, task.second}},
            ScalarType::kFloat64, stream);
}

void run_on_cuda(const PairwiseDifferenceBackward& task, void* stream) {
  if (task.shape.batch == 0) return;
  with_scalar_type(task.type, [&](auto zero) {
    difference_backward<decltype(zero)>(task, stream);
  });
}

}  // namespace san::pairwise
