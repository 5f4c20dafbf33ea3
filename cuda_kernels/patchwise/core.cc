// From the hidden layer of the patchwise mapping to the output, on the CPU: the
// weights of the footprint and the sum that they weigh. Where weight channels
// fill vectors core_lanes.cc takes the task.
//
// Idea. The weights of one weight channel at a few pixels are a small matrix
// product that stays in the first cache until the channels that share them have
// been summed. Backward makes them again.
//
// Who owns what. Forward: a job is (band, some weight channels). Backward: a
// job is (some weight channels, some images), as in patchwise_hidden.cc; what
// the weight channels add to the gradient of hidden is summed per job and then
// over the jobs in a fixed order: the same bits for every number of threads.
//
// Memory per thread: G hidden runs, the value planes and output runs of one
// weight channel; backward as much again for the gradients, and 2 K runs of a
// band.
#include <type_traits>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/lane_jobs.h"
#include "cuda_kernels/patchwise/strip.h"
#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {
namespace {

constexpr int64_t kTile = 3 * kColumns;
constexpr int64_t kWeightBlock = 4;
constexpr int64_t kMostJobs = 32;
constexpr int64_t kMostParts = 8;

// 0, step, 2 * step, ...
std::vector<int64_t> multiples(int64_t count, int64_t step) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < count; ++i) result.push_back(i * step);
  return result;
}

// Columns whose weights are made at once: few, to stay in the first cache; all
// where a channel has several planes, each of which fits there but not
// together.
template <typename A>
int64_t tile_of(const Band<A>& band) {
  return band.copies() == 1 ? kTile : band.run();
}

// The channels that the weight channels from `first` on weigh. Those of a
// member lie side by side.
struct Block {
  int64_t G, first, count, members;

  // Where a channel of weight channel first + i is in a strip.
  int64_t row(int64_t member, int64_t i) const { return member * count + i; }
  int64_t rows() const { return members * count; }
  // Calls f(channel, channels, row of the first) for those side by side.
  template <typename F>
  void for_each_piece(F f) const {
    if (count == G) return f(0, rows(), 0);
    for (int64_t m = 0; m < members; ++m) f(m * G + first, count, m * count);
  }
};

template <typename T>
void load_block(const Pixels& image, const Block& block, const Range& range,
                int64_t stride, Accumulator<T>* rows) {
  block.for_each_piece([&](int64_t channel, int64_t channels, int64_t row) {
    load_strip<T>(image, channel, channels, range, stride, rows + row * stride);
  });
}

template <typename T>
void store_block(const Accumulator<T>* rows, int64_t stride, const Range& range,
                 const WritablePixels& image, const Block& block) {
  block.for_each_piece([&](int64_t channel, int64_t channels, int64_t row) {
    store_strip<T>(rows + row * stride, stride, range, image, channel,
                   channels);
  });
}

// The weight [G, K, G'] as [G, G', K], or with terms in pairs.
template <typename A>
struct Weight {
  Weight(const PatchwiseCoreForward& task, bool in_pairs) {
    const int64_t G = task.weight_channels, K = task.window.taps();
    const A* from = static_cast<const A*>(task.weight);
    if constexpr (std::is_same_v<A, float>) {
      for (int64_t g = 0; in_pairs && g < G; ++g)
        append_pairs(from + g * K * G, K, G, G, 1, pairs);
      if (in_pairs) return;
    }
    rows.resize(G * K * G);
    for (int64_t g = 0; g < G; ++g)
      cpu::transpose(from + g * K * G, K, G, rows.data() + g * G * K);
  }

  std::vector<A> rows;
  std::vector<bfloat16> pairs;  // empty if they are not
};

// Where the forward pass works: runs of hidden, planes and runs of a weight
// channel's members, weights of a tile, strips of value and output.
template <typename A>
struct Scratch {
  A *hidden, *planes, *output, *weights, *value, *strip, *pairs;
};

// Weight channel `block.first + i` of a band.
template <typename A>
void forward_channel(const PatchwiseCoreForward& task, const Band<A>& band,
                     const Block& block, int64_t i, const Weight<A>& weight,
                     const Scratch<A>& scratch) {
  const int64_t G = task.weight_channels, members = block.members;
  const int64_t K = task.window.taps(), g = block.first + i;
  const Range own = band.own(), seen = band.seen();
  const A* hidden = scratch.hidden;
  A *planes = scratch.planes, *output = scratch.output;
  A* weights = scratch.weights;
  const auto& kernels = patchwise_kernels<A>();
  for (int64_t m = 0; m < members; ++m)
    band.fill_planes(scratch.value + block.row(m, i) * seen.count,
                     planes + m * band.planes());
  const std::vector<int64_t> runs = multiples(G, band.run());
  const int64_t tile = tile_of(band);
  std::fill_n(output, members * band.run(), A(0));
  for (int64_t x = 0; x < band.run(); x += tile) {
    const int64_t columns = std::min(tile, band.run() - x);
    const A* bias = static_cast<const A*>(task.bias) + g * K;
    if (weight.pairs.empty())
      kernels.mix({weight.rows.data() + g * G * K, bias, hidden + x, nullptr,
                   nullptr, weights, runs.data(), K, G, columns, K, tile});
    else if constexpr (std::is_same_v<A, float>)
      kernels.mix_pairs({weight.pairs.data() + g * ((G + 1) / 2 * 2) * K, bias,
                         hidden + x, nullptr, nullptr, weights, runs.data(), K,
                         G, columns, K, tile, scratch.pairs});
    for (int64_t copy = 0; copy < band.copies(); ++copy)
      kernels.weigh({weights + copy * tile, planes + copy * band.plane() + x,
                     output + x, band.plane_offsets().data(), K / band.copies(),
                     members, columns, band.copies() * tile, band.planes(),
                     band.run()});
  }
  for (int64_t m = 0; m < members; ++m)
    band.store_run(output + m * band.run(),
                   scratch.strip + block.row(m, i) * own.count);
}

template <typename T>
void forward(const PatchwiseCoreForward& task) {
  using A = Accumulator<T>;
  const int64_t G = task.weight_channels, members = task.channels / G;
  const int64_t K = task.window.taps();
  const Bands bands(task.batch, task.window);
  const Band<A> largest(task.window, bands);
  const Weight<A> weight(task, in_pairs<T>(K));
  const int64_t pairs = weight.pairs.empty() ? 0 : pair_elements(G);
  const int64_t blocks = (G + kWeightBlock - 1) / kWeightBlock;
  const int64_t channels = std::min(kWeightBlock, G) * members;
  const int64_t own = std::max(kStripChannels, channels) * bands.own;
  const auto job = [&](int64_t index, A* memory) {
    const int64_t at = index / blocks, first = index % blocks * kWeightBlock;
    const Band<A> band(task.window, bands, task.batch, at / bands.row_bands,
                       at % bands.row_bands);
    const Block block = {G, first, std::min(kWeightBlock, G - first), members};
    const Range range = band.own(), seen = band.seen();
    Scratch<A> scratch = {};
    scratch.hidden = memory;
    scratch.output = scratch.hidden + G * largest.run();
    scratch.planes = scratch.output + members * largest.run();
    scratch.weights = scratch.planes + members * largest.planes();
    scratch.strip = scratch.weights + K * tile_of(largest);
    scratch.value = scratch.strip + own;
    scratch.pairs = scratch.value + channels * bands.seen;
    load_runs<A>(band, {task.hidden, G}, 0, G, scratch.strip, scratch.hidden);
    load_block<T>(task.value, block, seen, seen.count, scratch.value);
    for (int64_t i = 0; i < block.count; ++i)
      forward_channel(task, band, block, i, weight, scratch);
    store_block<T>(scratch.strip, range.count, range, task.output, block);
  };
  cpu::for_each_job<A>(bands.image_bands * bands.row_bands * blocks,
                       (G + members) * largest.run() +
                           members * largest.planes() + K * tile_of(largest) +
                           own + channels * bands.seen + pairs,
                       job);
}

// The gradients that one job of the backward pass adds to.
template <typename A>
struct CoreSums {
  A* hidden;  // [N, P, G]
  A* weight;  // [G, K, G]
  A* bias;    // [G, K]
};

// Strips of value and of grad_output.
template <typename A>
struct Strips {
  A *value, *grad_output;
};

template <typename T, typename A>
void backward_band(const PatchwiseCoreBackward& task, const Band<A>& band,
                   const Block& block, const A* transposed_weight,
                   const CoreSums<A>& sums, const Strips<A>& strips,
                   MovingRows<A>& grad_value, A* scratch) {
  const PatchwiseCoreForward& f = task.forward;
  const int64_t G = f.weight_channels, members = block.members;
  const int64_t K = f.window.taps(), run = band.run();
  const Range own = band.own(), seen = band.seen();
  A* hidden = scratch;
  A* grad_hidden = hidden + G * run;
  A* ones = grad_hidden + G * run;
  A* weights = ones + run;
  A* grad_weights = weights + K * run;
  A* grad_output = grad_weights + K * run;
  A* planes = grad_output + members * run;
  A* grad_planes = planes + members * band.planes();
  const auto& kernels = patchwise_kernels<A>();
  const std::vector<int64_t> runs = multiples(std::max(G, K), run);
  load_runs<A>(band, {f.hidden, G}, 0, G, strips.grad_output, hidden);
  load_block<T>(f.value, block, seen, seen.count, strips.value);
  load_block<T>(task.grad_output, block, own, own.count, strips.grad_output);
  std::fill_n(grad_hidden, G * run, A(0));
  std::fill_n(ones, run, A(1));
  for (int64_t i = 0; i < block.count; ++i) {
    const int64_t g = block.first + i;
    const A* weight = static_cast<const A*>(f.weight) + g * K * G;
    for (int64_t m = 0; m < members; ++m) {
      const int64_t row = block.row(m, i);
      band.fill_planes(strips.value + row * seen.count,
                       planes + m * band.planes());
      band.fill_run(strips.grad_output + row * own.count,
                    grad_output + m * run);
    }
    std::fill_n(grad_planes, members * band.planes(), A(0));
    kernels.mix({transposed_weight + g * G * K,
                 static_cast<const A*>(f.bias) + g * K, hidden, nullptr,
                 nullptr, weights, runs.data(), K, G, run, K, run});
    kernels.weigh_gradients({weights, planes, grad_output, grad_weights,
                             grad_planes, band.tap_offsets().data(), K, members,
                             run, run, band.planes(), run});
    // No gradients come from columns that are no pixels, but 0 * NaN is NaN.
    if (kernels.has_nan(planes, members * band.planes()))
      for (int64_t t = 0; t < K; ++t) band.clear_unused(grad_weights + t * run);
    kernels.mix({weight, nullptr, grad_weights, nullptr, nullptr, grad_hidden,
                 runs.data(), G, K, run, G, run});
    kernels.gram({grad_weights, hidden, sums.weight + g * K * G, K, G, run, run,
                  run, G, 1});
    kernels.gram(
        {grad_weights, ones, sums.bias + g * K, K, 1, run, run, run, 1, 0});
    for (int64_t m = 0; m < members; ++m)
      band.fold_planes(grad_planes + m * band.planes(),
                       grad_value.row(block.row(m, i)));
  }
  store_runs<A>(band, grad_hidden, strips.grad_output, {sums.hidden, G}, 0, G);
}

template <typename T>
void backward(const PatchwiseCoreBackward& task) {
  using A = Accumulator<T>;
  const PatchwiseCoreForward& f = task.forward;
  const int64_t G = f.weight_channels, members = f.channels / G;
  const int64_t K = f.window.taps(), P = f.window.pixels();
  const Bands bands(f.batch, f.window);
  const Band<A> largest(f.window, bands);
  const int64_t block =
      std::max<int64_t>(kWeightBlock, (G + kMostParts - 1) / kMostParts);
  const int64_t parts = (G + block - 1) / block;
  const int64_t images = Bands::pieces_of(
      bands.image_bands, bands.image_bands * parts / kMostJobs);
  const int64_t pieces = (bands.image_bands + images - 1) / images;
  cpu::PartialSums<A> hidden(parts, f.batch * G * P);
  cpu::PartialSums<A> weight(pieces, G * K * G), bias(pieces, G * K);
  const Weight<A> turned(f, false);
  const int64_t channels = std::min(block, G) * members;
  const int64_t own = std::max(kStripChannels, channels) * bands.own;
  const int64_t seen = channels * bands.seen;
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t part = index % parts, piece = index / parts;
    const Block here = {G, part * block, std::min(block, G - part * block),
                        members};
    const CoreSums<A> sums = {hidden.of(part), weight.of(piece),
                              bias.of(piece)};
    const Strips<A> strips = {scratch, scratch + seen};
    MovingRows<A> grad_value(strips.grad_output + own, here.rows(), bands.seen);
    A* const rest = strips.grad_output + own + seen;
    const int64_t end = std::min((piece + 1) * images, bands.image_bands);
    for_each_band<A>(f.window, bands, f.batch, piece * images, end,
                     [&](const Band<A>& band, const Range& complete) {
                       grad_value.move_to(band.seen());
                       backward_band<T>(task, band, here, turned.rows.data(),
                                        sums, strips, grad_value, rest);
                       store_block<T>(grad_value.row(0), bands.seen, complete,
                                      task.grad_value, here);
                     });
  };
  if (pieces > 0)
    cpu::for_each_job<A>(pieces * parts,
                         (2 * G + 1 + 2 * K + members) * largest.run() +
                             2 * members * largest.planes() + own + 2 * seen,
                         job);
  hidden.store(static_cast<A*>(task.grad_hidden));
  weight.store(static_cast<A*>(task.grad_weight));
  bias.store(static_cast<A*>(task.grad_bias));
}

}  // namespace

void run_on_cpu(const PatchwiseCoreForward& task) {
  if (run_in_lanes(task)) return;
  with_scalar_type(task.type,
                   [&](auto element) { forward<decltype(element)>(task); });
}

void run_on_cpu(const PatchwiseCoreBackward& task) {
  if (run_in_lanes(task)) return;
  with_scalar_type(task.forward.type,
                   [&](auto element) { backward<decltype(element)>(task); });
}

}  // namespace san::patchwise
