// Fast aggregation on the CPU.
//
// Idea. Channels that share a weight channel are computed together, so each
// weight is read once; along a row of outputs every tap is one run of adjacent
// weights times one run of adjacent padded pixels, so the inner loop is vector
// FMAs without index arithmetic or branches (row_kernels.cc).
//
// N batch, C channels, G weight channels, M = C / G channels that share one
// (c = g, g + G, ...), K taps, H W image, P outputs.
//
// Who owns what. Output and weight gradient: a job is (image, weight channel,
// strip of output rows); it copies the padded rows it needs to scratch, M
// planes. Input gradient: a job is (image, weight channel); it goes down the
// padded rows, gathers what all outputs send to a row, and adds that to the
// image row which the padding mirrors there. Each output element has one writer
// that adds in a fixed order: no atomics, the same bits for every number of
// threads.
#include "cuda_kernels/aggregation.h"

#include <type_traits>

#include "cuda_kernels/fast/jobs.h"
#include "cuda_kernels/fast/padded_rows.h"

namespace san::fast {
namespace {

constexpr int64_t kStripRows = 16;

// Whether accumulators are a type of their own, so that tensors pass through
// scratch on their way in and out.
template <typename T>
constexpr bool kConverts = !std::is_same_v<T, Accumulator<T>>;

// The channels that share a weight channel, in some tensor or in scratch: the
// first one's elements and the distance to the next one's.
template <typename T>
struct Members {
  T* data;
  int64_t stride;
  Members from(int64_t element) const { return {data + element, stride}; }
};

// The sizes that all jobs share.
struct Sizes {
  explicit Sizes(const AggregationShape& shape)
      : window(shape.window),
        groups(shape.weight_channels),
        members(shape.channels / groups),
        planes(shape.batch * groups),
        taps(window.taps()),
        outputs(window.outputs()),
        pixels(window.pixels()),
        strip_rows(std::min(kStripRows, window.rows.outputs)),
        strips((window.rows.outputs - 1) / strip_rows + 1),
        strip_outputs(strip_rows * window.columns.outputs),
        padded_rows(PaddedRows::span(window.rows, strip_rows)) {}

  // The members of plane = (image, weight channel) in a tensor that has `size`
  // elements a channel.
  template <typename T>
  Members<T> members_of(int64_t plane, T* tensor, int64_t size) const {
    const int64_t n = plane / groups, g = plane % groups;
    return {tensor + (n * groups * members + g) * size, groups * size};
  }

  // Whether every direction's scratch is of a sane size.
  bool fit() const {
    const __int128 pitch = PaddedRows::pitch(window);
    const __int128 strip = padded_rows * pitch + strip_outputs;
    const __int128 image = pitch + outputs + pixels;
    return members > 0 && members * std::max(strip, image) <= kMostScratch;
  }

  Window window;
  int64_t groups, members, planes, taps, outputs, pixels;
  int64_t strip_rows, strips, strip_outputs, padded_rows;
};

// `count` elements of each member as accumulators: in place if the tensor's
// type is that already, else (to be) converted in scratch.
template <typename T>
Members<const Accumulator<T>> loaded(Members<const T> from, int64_t members,
                                     int64_t count, Accumulator<T>* scratch) {
  if constexpr (kConverts<T>) {
    for (int64_t m = 0; m < members; ++m)
      row_kernels<T>().load(from.data + m * from.stride, scratch + m * count,
                            count);
    return {scratch, count};
  } else {
    return from;
  }
}

template <typename T>
Members<Accumulator<T>> staged(Members<T> to, int64_t count,
                               Accumulator<T>* scratch) {
  if constexpr (kConverts<T>)
    return {scratch, count};
  else
    return to;
}

template <typename T>
void store_staged(Members<Accumulator<T>> from, Members<T> to, int64_t members,
                  int64_t count) {
  if constexpr (kConverts<T>)
    for (int64_t m = 0; m < members; ++m)
      row_kernels<T>().store(from.data + m * from.stride,
                             to.data + m * to.stride, count);
}

// A job of the strip-wise directions.
struct Strip {
  Strip(const Sizes& sizes, int64_t job)
      : plane(job / sizes.strips),
        first(job % sizes.strips * sizes.strip_rows),
        end(std::min(first + sizes.strip_rows, sizes.window.rows.outputs)),
        begin_output(first * sizes.window.columns.outputs),
        outputs((end - first) * sizes.window.columns.outputs) {}

  int64_t plane;       // (image, weight channel)
  int64_t first, end;  // output rows
  int64_t begin_output, outputs;
};

// What the strip-wise directions share: for each strip, f(strip, x, scratch)
// with its members' padded rows x and room for strip_outputs of each member.
template <typename T, typename F>
void for_each_strip(const Sizes& sizes, const PaddedRows& padded,
                    const T* input, F f) {
  using A = Accumulator<T>;
  const int64_t plane = sizes.padded_rows * padded.pitch();
  const int64_t room = kConverts<T> ? sizes.strip_outputs : 0;
  for_each_job<A>(sizes.planes * sizes.strips, sizes.members * (plane + room),
                  [&](int64_t job, A* scratch) {
                    const Strip strip(sizes, job);
                    const auto image =
                        sizes.members_of(strip.plane, input, sizes.pixels);
                    const int64_t rows = PaddedRows::span(
                        sizes.window.rows, strip.end - strip.first);
                    padded.fill(image.data, image.stride, sizes.members,
                                strip.first, rows, scratch, plane);
                    f(strip, Members<const A>{scratch, plane},
                      scratch + sizes.members * plane);
                  });
}

std::vector<int64_t> multiples(int64_t step, int64_t count) {
  std::vector<int64_t> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = i * step;
  return result;
}

template <typename T>
void forward(const Sizes& sizes, const T* input, const T* weight, T* output) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const auto x_offsets = padded.tap_offsets();
  const auto w_offsets = multiples(sizes.outputs, sizes.taps);
  const int64_t out_offset = 0;
  const int64_t x_step = sizes.window.rows.stride * padded.pitch();
  const int64_t columns = sizes.window.columns.outputs;
  for_each_strip(
      sizes, padded, input,
      [&](const Strip& strip, Members<const A> x, A* scratch) {
        const auto to = sizes.members_of(strip.plane, output, sizes.outputs)
                            .from(strip.begin_output);
        const Members<A> out = staged<T>(to, strip.outputs, scratch);
        const T* w = weight + strip.plane * sizes.taps * sizes.outputs +
                     strip.begin_output;
        for (int64_t row = 0; row < strip.end - strip.first; ++row)
          row_kernels<T>().weighted_sum(
              {w + row * columns, x.data + row * x_step,
               out.data + row * columns, w_offsets.data(), x_offsets.data(),
               &out_offset, 1, sizes.taps, sizes.members, columns, 0, x.stride,
               out.stride, false});
        store_staged<T>(out, to, sizes.members, strip.outputs);
      });
}

template <typename T>
void grad_weight(const Sizes& sizes, const T* grad_output, const T* input,
                 T* grad_weight) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const auto x_offsets = padded.tap_offsets();
  const int64_t x_step = sizes.window.rows.stride * padded.pitch();
  const int64_t columns = sizes.window.columns.outputs;
  for_each_strip(
      sizes, padded, input,
      [&](const Strip& strip, Members<const A> x, A* scratch) {
        const auto from =
            sizes.members_of(strip.plane, grad_output, sizes.outputs)
                .from(strip.begin_output);
        const Members<const A> g =
            loaded<T>(from, sizes.members, strip.outputs, scratch);
        T* out = grad_weight + strip.plane * sizes.taps * sizes.outputs +
                 strip.begin_output;
        for (int64_t row = 0; row < strip.end - strip.first; ++row)
          row_kernels<T>().channel_sum(
              {g.data + row * columns, x.data + row * x_step,
               out + row * columns, x_offsets.data(), sizes.taps, sizes.members,
               columns, g.stride, x.stride, sizes.outputs});
      });
}

// Adds to a padded row of the input gradient, all members, what the outputs
// send there: output row ho reaches padded row r = ho * stride + kh * dilation
// by its tap row kh.
template <typename T>
void gather_row(const Sizes& sizes, const std::vector<int64_t>& columns,
                int64_t r, const T* w, Members<const Accumulator<T>> g,
                Members<Accumulator<T>> row) {
  constexpr int64_t kTerms = 16;  // at a time
  int64_t w_offsets[kTerms], g_offsets[kTerms], terms = 0;
  const Axis& rows = sizes.window.rows;
  const int64_t width = sizes.window.columns.outputs;
  for (int64_t kh = 0; kh < rows.taps; ++kh) {
    const int64_t distance = r - kh * rows.dilation;
    const int64_t ho = distance / rows.stride;
    if (distance >= 0 && distance % rows.stride == 0 && ho < rows.outputs) {
      g_offsets[terms] = ho * width;
      w_offsets[terms++] =
          kh * sizes.window.columns.taps * sizes.outputs + ho * width;
    }
    if (terms == kTerms || (kh == rows.taps - 1 && terms > 0)) {
      row_kernels<T>().weighted_sum({w, g.data, row.data, w_offsets, g_offsets,
                                     columns.data(), sizes.window.columns.taps,
                                     terms, sizes.members, width, sizes.outputs,
                                     g.stride, row.stride, true});
      terms = 0;
    }
  }
}

template <typename T>
void grad_input(const Sizes& sizes, const T* grad_output, const T* weight,
                T* grad_input) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const auto columns = padded.column_offsets();
  const Axis& rows = sizes.window.rows;
  const int64_t members = sizes.members;
  const int64_t room = kConverts<T> ? sizes.outputs + sizes.pixels : 0;
  for_each_job<A>(
      sizes.planes, members * (padded.pitch() + room),
      [&](int64_t plane, A* row) {
        A* g_scratch = row + members * padded.pitch();
        A* image_scratch = g_scratch + members * sizes.outputs;
        const T* w = weight + plane * sizes.taps * sizes.outputs;
        const Members<const A> g =
            loaded<T>(sizes.members_of(plane, grad_output, sizes.outputs),
                      members, sizes.outputs, g_scratch);
        const auto to = sizes.members_of(plane, grad_input, sizes.pixels);
        const Members<A> image = staged<T>(to, sizes.pixels, image_scratch);
        for (int64_t m = 0; m < members; ++m)
          std::fill_n(image.data + m * image.stride, sizes.pixels, A(0));
        for (int64_t r = 0; r < PaddedRows::span(rows, rows.outputs); ++r) {
          const int64_t y = rows.source(r - rows.padding);
          if (y < 0) continue;
          std::fill_n(row, members * padded.pitch(), A(0));
          gather_row<T>(sizes, columns, r, w, g, {row, padded.pitch()});
          for (int64_t m = 0; m < members; ++m)
            padded.fold_row(
                row + m * padded.pitch(),
                image.data + m * image.stride + y * sizes.window.columns.size);
        }
        store_staged<T>(image, to, members, sizes.pixels);
      });
}

}  // namespace

void run_on_cpu(const AggregationForward& task) {
  const Sizes sizes(task.shape);
  if (!sizes.fit()) return simple::run_on_cpu(task);
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    forward(sizes, static_cast<const T*>(task.input),
            static_cast<const T*>(task.weight), static_cast<T*>(task.output));
  });
}

void run_on_cpu(const AggregationBackward& task) {
  const Sizes sizes(task.shape);
  if (!sizes.fit()) return simple::run_on_cpu(task);
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    const T* g = static_cast<const T*>(task.grad_output);
    if (task.grad_input)
      grad_input(sizes, g, static_cast<const T*>(task.weight),
                 static_cast<T*>(task.grad_input));
    if (task.grad_weight)
      grad_weight(sizes, g, static_cast<const T*>(task.input),
                  static_cast<T*>(task.grad_weight));
  });
}

}  // namespace san::fast
