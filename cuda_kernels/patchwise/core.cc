// From the hidden layer of the patchwise mapping to the output, on the CPU: the
// weights of the footprint and the sum that they weigh.
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
#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/band.h"
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

// One weight channel of a band. scratch holds the runs of hidden.
template <typename A>
void forward_channel(const PatchwiseCoreForward& task, const Band<A>& band,
                     int64_t g, const A* weight, A* scratch) {
  const int64_t G = task.weight_channels, C = task.channels, members = C / G;
  const int64_t K = task.window.taps(), P = task.window.pixels();
  const A* hidden = scratch;
  A* planes = scratch + G * band.run();
  A* output = planes + members * band.planes();
  A* weights = output + members * band.run();
  const auto& kernels = patchwise_kernels<A>();
  for (int64_t m = 0; m < members; ++m)
    band.fill_planes(static_cast<const A*>(task.value) + (g + m * G) * P, C * P,
                     planes + m * band.planes());
  const std::vector<int64_t> runs = multiples(G, band.run());
  const int64_t tile = tile_of(band);
  std::fill_n(output, members * band.run(), A(0));
  for (int64_t i = 0; i < band.run(); i += tile) {
    const int64_t columns = std::min(tile, band.run() - i);
    kernels.mix({weight, static_cast<const A*>(task.bias) + g * K, hidden + i,
                 nullptr, nullptr, weights, runs.data(), K, G, columns, K,
                 tile});
    for (int64_t copy = 0; copy < band.copies(); ++copy)
      kernels.weigh({weights + copy * tile, planes + copy * band.plane() + i,
                     output + i, band.plane_offsets().data(), K / band.copies(),
                     members, columns, band.copies() * tile, band.planes(),
                     band.run()});
  }
  for (int64_t m = 0; m < members; ++m)
    band.store_run(output + m * band.run(),
                   static_cast<A*>(task.output) + (g + m * G) * P, C * P);
}

// [G, K, G'] to [G, G', K].
template <typename A>
std::vector<A> transposed_weight(const PatchwiseCoreForward& task) {
  const int64_t G = task.weight_channels, K = task.window.taps();
  std::vector<A> result(G * K * G);
  for (int64_t g = 0; g < G; ++g)
    cpu::transpose(static_cast<const A*>(task.weight) + g * K * G, K, G,
                   result.data() + g * G * K);
  return result;
}

template <typename A>
void forward(const PatchwiseCoreForward& task) {
  const int64_t G = task.weight_channels, members = task.channels / G;
  const int64_t K = task.window.taps(), P = task.window.pixels();
  const Bands bands(task.batch, task.window);
  const Band<A> largest(task.window, bands);
  const std::vector<A> weight = transposed_weight<A>(task);
  const int64_t blocks = (G + kWeightBlock - 1) / kWeightBlock;
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t at = index / blocks, first = index % blocks * kWeightBlock;
    const Band<A> band(task.window, bands, task.batch, at / bands.row_bands,
                       at % bands.row_bands);
    for (int64_t c = 0; c < G; ++c)
      band.fill_run(static_cast<const A*>(task.hidden) + c * P, G * P,
                    scratch + c * band.run());
    for (int64_t g = first; g < std::min(first + kWeightBlock, G); ++g)
      forward_channel(task, band, g, weight.data() + g * G * K, scratch);
  };
  cpu::for_each_job<A>(bands.image_bands * bands.row_bands * blocks,
                       (G + members) * largest.run() +
                           members * largest.planes() + K * tile_of(largest),
                       job);
}

// The gradients that one job of the backward pass adds to.
template <typename A>
struct CoreSums {
  A* hidden;  // [N, G, P]
  A* weight;  // [G, K, G]
  A* bias;    // [G, K]
};

template <typename A>
void backward_band(const PatchwiseCoreBackward& task, const Band<A>& band,
                   int64_t first, int64_t last, const A* transposed_weight,
                   const CoreSums<A>& sums, A* scratch) {
  const PatchwiseCoreForward& f = task.forward;
  const int64_t G = f.weight_channels, C = f.channels, members = C / G;
  const int64_t K = f.window.taps(), P = f.window.pixels();
  const int64_t run = band.run();
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
  for (int64_t c = 0; c < G; ++c)
    band.fill_run(static_cast<const A*>(f.hidden) + c * P, G * P,
                  hidden + c * run);
  std::fill_n(grad_hidden, G * run, A(0));
  std::fill_n(ones, run, A(1));
  for (int64_t g = first; g < last; ++g) {
    const A* weight = static_cast<const A*>(f.weight) + g * K * G;
    for (int64_t m = 0; m < members; ++m) {
      const int64_t c = (g + m * G) * P;
      band.fill_planes(static_cast<const A*>(f.value) + c, C * P,
                       planes + m * band.planes());
      band.fill_run(static_cast<const A*>(task.grad_output) + c, C * P,
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
                       static_cast<A*>(task.grad_value) + (g + m * G) * P,
                       C * P);
  }
  for (int64_t c = 0; c < G; ++c)
    band.store_run(grad_hidden + c * run, sums.hidden + c * P, G * P);
}

template <typename A>
void backward(const PatchwiseCoreBackward& task) {
  const PatchwiseCoreForward& f = task.forward;
  const int64_t G = f.weight_channels, C = f.channels, members = C / G;
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
  const std::vector<A> turned = transposed_weight<A>(f);
  std::fill_n(static_cast<A*>(task.grad_value), f.batch * C * P, A(0));
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t part = index % parts, piece = index / parts;
    const CoreSums<A> sums = {hidden.of(part), weight.of(piece),
                              bias.of(piece)};
    const int64_t end = std::min((piece + 1) * images, bands.image_bands);
    for (int64_t image = piece * images; image < end; ++image)
      for (int64_t row = 0; row < bands.row_bands; ++row)
        backward_band(task, Band<A>(f.window, bands, f.batch, image, row),
                      part * block, std::min((part + 1) * block, G),
                      turned.data(), sums, scratch);
  };
  if (pieces > 0)
    cpu::for_each_job<A>(pieces * parts,
                         (2 * G + 1 + 2 * K + members) * largest.run() +
                             2 * members * largest.planes(),
                         job);
  hidden.store(static_cast<A*>(task.grad_hidden));
  weight.store(static_cast<A*>(task.grad_weight));
  bias.store(static_cast<A*>(task.grad_bias));
}

}  // namespace

void run_on_cpu(const PatchwiseCoreForward& task) {
  task.type == ScalarType::kFloat64 ? forward<double>(task)
                                    : forward<float>(task);
}

void run_on_cpu(const PatchwiseCoreBackward& task) {
  task.forward.type == ScalarType::kFloat64 ? backward<double>(task)
                                            : backward<float>(task);
}

}  // namespace san::patchwise
