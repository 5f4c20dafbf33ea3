// Fast aggregation on the CPU.
//
// Idea. Channels that share a weight channel are computed together, so each
// weight is read once; along a row of outputs every tap is one run of adjacent
// weights times one run of adjacent padded pixels, so the inner loop is vector
// FMAs without index arithmetic or branches (window_sums.h).
//
// N batch, C channels, G weight channels, M = C / G channels that share one
// (c = g, g + G, ...), K taps, H W image, P outputs.
//
// Who owns what. A job is a block of weight channels of an image
// (channel_block.h) and a band of rows, of the outputs or, for the input
// gradient, of the image. Each element has one writer that adds in a fixed
// order: no atomics, the same bits for every number of threads.
//
// Memory plan. Scratch holds for each channel of the block the rows of pixels
// that the band sees, padded on the left and right; rows above and below the
// image are the same rows again. For the input gradient it is one padded row,
// which gathers what all outputs send to a row and is then added to the row of
// the image that the padding mirrors there. What a tensor has in another layout
// or type than scratch passes through it as well. At the sizes of the networks
// all that is in the second cache.
#include "cuda_kernels/window_ops/aggregation.h"

#include <vector>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/window_ops/padded_rows.h"
#include "cuda_kernels/window_ops/row_bands.h"

namespace san::fast {
namespace {

using namespace cpu;

// The sizes that all jobs share.
struct Sizes {
  explicit Sizes(const AggregationShape& shape)
      : window(shape.window),
        blocks(shape.layout, shape.batch, shape.channels,
               shape.weight_channels),
        taps(window.taps()),
        outputs(window.outputs()),
        pixels(window.pixels()),
        width(window.columns.outputs) {}

  // Whether the scratch of the directions over outputs, and of that over the
  // image, is of a sane size.
  static bool fit_outputs(const AggregationShape& shape) {
    const Axis& rows = shape.window.rows;
    if (PaddedRows::span(rows, rows.outputs) > kMostScratch) return false;
    const int64_t count = std::min(kBandRows, rows.outputs);
    return fit(shape, PaddedRows::span(rows, count), count, 0);
  }
  static bool fit_image(const AggregationShape& shape) {
    const Axis& rows = shape.window.rows;
    if (PaddedRows::span(rows, rows.outputs) > kMostScratch) return false;
    const int64_t outputs = most_outputs(image_bands(rows));
    return fit(shape, 1, outputs, std::min(kBandRows, rows.size));
  }

  // The weights of a block's group, or their gradients.
  template <typename T>
  T* weights(T* tensor, const ChannelBlock& block, int64_t group) const {
    const int64_t plane = block.image * blocks.groups + block.first + group;
    return tensor + plane * taps * outputs;
  }

  // From the weight of an output to one that is needed soon: later in the run
  // of its tap or, from the end of that, in the run of the next group. The runs
  // are more than the hardware follows.
  template <typename T>
  int64_t ahead(int64_t output) const {
    const int64_t distance = std::min<int64_t>(512 / sizeof(T), outputs);
    const bool stays = output + distance < outputs;
    return distance + (stays ? 0 : (taps - 1) * outputs);
  }

  Window window;
  ChannelBlocks blocks;
  int64_t taps, outputs, pixels, width;

 private:
  // For each plane: rows of the padded image, of the outputs and of the image.
  static bool fit(const AggregationShape& shape, __int128 padded_rows,
                  __int128 output_rows, __int128 image_rows) {
    if (shape.channels == 0) return false;
    const ChannelBlocks blocks(shape.layout, 1, shape.channels,
                               shape.weight_channels);
    const Axis& columns = shape.window.columns;
    const __int128 plane = padded_rows * PaddedRows::pitch(shape.window) +
                           output_rows * columns.outputs +
                           (image_rows + 1) * columns.size;
    return blocks.planes() * plane <= kMostScratch;
  }
};

// A group's planes in scratch that holds those of a block.
template <typename A>
Members<A> members(A* scratch, int64_t plane, const ChannelBlock& block,
                   int64_t group) {
  return {scratch + group * plane, block.width * plane};
}

// What the directions over outputs share: for each job f(block, band, pixels,
// plane, scratch), with the rows that the band sees, `plane` elements for each
// channel, and room for its outputs.
template <typename T, typename F>
void for_each_output_band(const Sizes& sizes, const PaddedRows& padded,
                          const T* input, F f) {
  using A = Accumulator<T>;
  std::vector<OutputBand> bands = output_bands(sizes.window.rows);
  const int64_t pitch = padded.pitch(), planes = sizes.blocks.planes();
  int64_t rows = 0;
  for (OutputBand& band : bands) {
    rows = std::max(rows, band.rows_in_scratch());
    for (int64_t& row : band.seen) row *= pitch;
  }
  const int64_t plane = rows * pitch, count = bands.size();
  const int64_t room = padded.staged() + bands[0].count() * sizes.width;
  for_each_job<A>(sizes.blocks.count * count, planes * (plane + room),
                  [&](int64_t job, A* pixels) {
                    const ChannelBlock block = sizes.blocks[job / count];
                    const OutputBand& band = bands[job % count];
                    const BlockView<const T> image(input, sizes.pixels,
                                                   sizes.blocks, block);
                    A* staging = pixels + planes * plane;
                    const auto row_shown = [&](int64_t r) {
                      const int64_t y = band.image_first + r;
                      return y < band.image_end ? y : -1;
                    };
                    padded.fill(image, band.rows_in_scratch(), row_shown,
                                pixels, plane, staging);
                    f(block, band, pixels, plane,
                      staging + planes * padded.staged());
                  });
}

// Calls f(rows, two_rows) for the rows of a band, two at a time where they
// share pixels. `taps` and y begin at the band's first output.
template <typename T, typename Rows, typename Taps, typename Y, typename F>
void for_each_rows(const Sizes& sizes, const OutputBand& band,
                   const std::vector<int64_t>& columns, Taps* taps,
                   Members<const Accumulator<T>> x, Members<Y> y, F f) {
  Rows rows = {taps,
               x.data,
               y.data,
               nullptr,
               columns.data(),
               sizes.window.rows.taps,
               sizes.window.columns.taps,
               sizes.blocks.members,
               sizes.width,
               sizes.outputs,
               x.stride,
               y.stride,
               0};
  for (int64_t r = 0, step; r < band.count(); r += step) {
    const bool two_rows = band.shares_rows && r + 1 < band.count();
    rows.x_rows = &band.seen[r * band.to_next];
    rows.ahead = sizes.ahead<T>((band.first + r) * sizes.width);
    f(rows, two_rows);
    step = two_rows ? 2 : 1;
    rows.taps += step * sizes.width;
    rows.y += step * sizes.width;
  }
}

template <typename T>
void forward(const Sizes& sizes, const T* input, const T* weight, T* output) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const std::vector<int64_t> columns = padded.column_offsets();
  for_each_output_band(
      sizes, padded, input,
      [&](const ChannelBlock& block, const OutputBand& band, const A* pixels,
          int64_t plane, A* scratch) {
        const BlockView<T> to(output, sizes.outputs, sizes.blocks, block);
        const int64_t begin = band.first * sizes.width;
        const int64_t count = band.count() * sizes.width;
        for (int64_t i = 0; i < block.width; ++i) {
          for_each_rows<T, WindowSum<T>>(
              sizes, band, columns, sizes.weights(weight, block, i) + begin,
              members(pixels, plane, block, i),
              to.planes_or(scratch, begin, count, i),
              row_kernels<T>().window_sum);
        }
        to.store_unless_in_place(scratch, begin, count);
      });
}

template <typename T>
void grad_weight(const Sizes& sizes, const T* grad_output, const T* input,
                 T* grad_weight) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const std::vector<int64_t> columns = padded.column_offsets();
  for_each_output_band(sizes, padded, input,
                       [&](const ChannelBlock& block, const OutputBand& band,
                           const A* pixels, int64_t plane, A* scratch) {
                         const BlockView<const T> from(
                             grad_output, sizes.outputs, sizes.blocks, block);
                         const int64_t begin = band.first * sizes.width;
                         const int64_t count = band.count() * sizes.width;
                         from.load_unless_in_place(begin, count, scratch);
                         for (int64_t i = 0; i < block.width; ++i) {
                           for_each_rows<T, WindowProducts<T>>(
                               sizes, band, columns,
                               sizes.weights(grad_weight, block, i) + begin,
                               members(pixels, plane, block, i),
                               from.planes_or(scratch, begin, count, i),
                               row_kernels<T>().window_products);
                         }
                       });
}

// Adds to a padded row of the input gradient, all members, what the outputs
// send there: output row ho reaches padded row r = ho * stride + kh * dilation
// by its tap row kh. `g` begins at the band's first output.
template <typename T>
void gather_row(const Sizes& sizes, const ImageBand& band, int64_t r,
                const std::vector<int64_t>& columns, const T* w,
                Members<const Accumulator<T>> g, Members<Accumulator<T>> row) {
  constexpr int64_t kTerms = 16;  // at a time
  int64_t w_offsets[kTerms], g_offsets[kTerms], terms = 0;
  const Axis& rows = sizes.window.rows;
  const int64_t tap_columns = sizes.window.columns.taps;
  for (int64_t kh = 0; kh < rows.taps; ++kh) {
    const int64_t distance = r - kh * rows.dilation;
    const int64_t ho = distance / rows.stride;
    if (distance >= 0 && distance % rows.stride == 0 && ho < rows.outputs) {
      g_offsets[terms] = (ho - band.output_first) * sizes.width;
      w_offsets[terms++] = kh * tap_columns * sizes.outputs + ho * sizes.width;
    }
    if (terms == kTerms || (kh == rows.taps - 1 && terms > 0)) {
      row_kernels<T>().gather(
          {w, g.data, row.data, w_offsets, g_offsets, columns.data(), terms,
           tap_columns, sizes.blocks.members, sizes.width, sizes.outputs,
           g.stride, row.stride, sizes.ahead<T>(w_offsets[0] % sizes.outputs)});
      terms = 0;
    }
  }
}

template <typename T>
void grad_input(const Sizes& sizes, const T* grad_output, const T* weight,
                T* grad_input) {
  using A = Accumulator<T>;
  const PaddedRows padded(sizes.window);
  const std::vector<int64_t> columns = padded.column_offsets();
  const std::vector<ImageBand> bands = image_bands(sizes.window.rows);
  const Axis& rows = sizes.window.rows;
  const int64_t size = sizes.window.columns.size, count = bands.size();
  const int64_t outputs = most_outputs(bands) * sizes.width;
  const int64_t pixels = bands[0].count() * size;
  const int64_t planes = sizes.blocks.planes();
  for_each_job<A>(
      sizes.blocks.count * count,
      sizes.blocks.members * padded.pitch() + planes * (outputs + pixels),
      [&](int64_t job, A* scratch) {
        const ChannelBlock block = sizes.blocks[job / count];
        const ImageBand& band = bands[job % count];
        const Members<A> row = {scratch, padded.pitch()};
        A* g_scratch = scratch + sizes.blocks.members * row.stride;
        A* image_scratch = g_scratch + planes * outputs;
        const BlockView<const T> from(grad_output, sizes.outputs, sizes.blocks,
                                      block);
        const BlockView<T> to(grad_input, sizes.pixels, sizes.blocks, block);
        const int64_t first_output = band.output_first * sizes.width;
        const int64_t num_outputs = band.outputs() * sizes.width;
        const int64_t first_pixel = band.first * size;
        const int64_t num_pixels = band.count() * size;
        from.load_unless_in_place(first_output, num_outputs, g_scratch);
        for (int64_t i = 0; i < block.width; ++i) {
          const auto g =
              from.planes_or(g_scratch, first_output, num_outputs, i);
          const auto image =
              to.planes_or(image_scratch, first_pixel, num_pixels, i);
          for (int64_t m = 0; m < sizes.blocks.members; ++m)
            std::fill_n(image.data + m * image.stride, num_pixels, A(0));
          for (int64_t r = band.padded_first; r < band.padded_end; ++r) {
            const int64_t y = rows.source(r - rows.padding) - band.first;
            if (y < 0 || y >= band.count()) continue;
            std::fill_n(row.data, sizes.blocks.members * row.stride, A(0));
            gather_row<T>(sizes, band, r, columns,
                          sizes.weights(weight, block, i), g, row);
            for (int64_t m = 0; m < sizes.blocks.members; ++m)
              padded.fold_row(row.data + m * row.stride,
                              image.data + m * image.stride + y * size);
          }
        }
        to.store_unless_in_place(image_scratch, first_pixel, num_pixels);
      });
}

}  // namespace

void run_on_cpu(const AggregationForward& task) {
  if (!Sizes::fit_outputs(task.shape)) return simple::run_on_cpu(task);
  const Sizes sizes(task.shape);
  with_scalar_type(task.type, [&](auto zero) {
    using T = decltype(zero);
    forward(sizes, static_cast<const T*>(task.input),
            static_cast<const T*>(task.weight), static_cast<T*>(task.output));
  });
}

void run_on_cpu(const AggregationBackward& task) {
  if ((task.grad_weight && !Sizes::fit_outputs(task.shape)) ||
      (task.grad_input && !Sizes::fit_image(task.shape)))
    return simple::run_on_cpu(task);
  const Sizes sizes(task.shape);
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
