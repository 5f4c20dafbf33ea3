// The hidden layer of the patchwise mapping, on the CPU.
//
// Idea. A 1x1 convolution of unfolded patches is a convolution whose input is
// scaled, shifted and rectified anew for every tap: a matrix product that reads
// the taps from the padded image instead of unfolding it (patchwise_band.h).
//
// Who owns what. Forward: a job is (band, some weight channels). Backward: a
// job is (some relation channels, some images); it goes through its bands one
// after another, so that a band may add to the rows of the one before. The
// gradients of the parameters are summed per job and then over the jobs, in a
// fixed order: the same bits for every number of threads.
//
// Memory per thread: the planes of a few channels and some hidden runs of a
// band; backward the planes of a channel and of its gradient, and G + K runs.
#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/band.h"
#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {
namespace {

constexpr int64_t kRelationBlock = 4;
constexpr int64_t kWeightBlock = 32;
constexpr int64_t kMostJobs = 32;

// scratch holds the sums of `rows` weight channels from g on, then planes.
template <typename A>
void forward_band(const PatchwiseHiddenForward& task, const Band<A>& band,
                  int64_t g, int64_t rows, const A* weight, A* sum, A* planes) {
  const int64_t R = task.relation_channels, G = task.weight_channels;
  const int64_t K = task.window.taps(), P = task.window.pixels();
  const auto* scale = static_cast<const A*>(task.scale);
  const auto* shift = static_cast<const A*>(task.shift);
  std::vector<int64_t> runs, taps;
  for (int64_t c = 0; c < kRelationBlock; ++c) {
    runs.push_back(c * band.run());
    for (const int64_t offset : band.tap_offsets())
      taps.push_back(c * band.planes() + offset);
  }
  std::fill_n(sum, rows * band.run(), A(0));
  // Adds what `terms` entries of the relation from `first` on contribute.
  const auto add = [&](int64_t first, const std::vector<int64_t>& offsets,
                       int64_t terms) {
    patchwise_kernels<A>().mix(
        {weight + first * G + g, nullptr, planes, scale + first, shift + first,
         sum, offsets.data(), rows, terms, band.columns(), G, band.run()});
  };
  for (int64_t r = 0; r < R; r += kRelationBlock) {
    const int64_t channels = std::min(kRelationBlock, R - r);
    for (int64_t c = 0; c < channels; ++c)
      band.fill_run(static_cast<const A*>(task.phi) + (r + c) * P, R * P,
                    planes + runs[c]);
    add(r, runs, channels);
    for (int64_t c = 0; c < channels; ++c)
      band.fill_planes(static_cast<const A*>(task.psi) + (r + c) * P, R * P,
                       planes + c * band.planes());
    add(R + r * K, taps, channels * K);
  }
  for (int64_t row = 0; row < rows; ++row)
    band.store_run(sum + row * band.run(),
                   static_cast<A*>(task.hidden) + (g + row) * P, G * P);
}

template <typename A>
void forward(const PatchwiseHiddenForward& task) {
  const int64_t G = task.weight_channels;
  const int64_t S = task.relation_channels * (task.window.taps() + 1);
  const Bands bands(task.batch, task.window);
  const Band<A> largest(task.window, bands);
  std::vector<A> weight(G * S);
  cpu::transpose(static_cast<const A*>(task.weight), G, S, weight.data());
  const int64_t blocks = (G + kWeightBlock - 1) / kWeightBlock;
  const int64_t sums = std::min(G, kWeightBlock) * largest.run();
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t at = index / blocks, g = index % blocks * kWeightBlock;
    forward_band(task,
                 Band<A>(task.window, bands, task.batch, at / bands.row_bands,
                         at % bands.row_bands),
                 g, std::min(kWeightBlock, G - g), weight.data(), scratch,
                 scratch + sums);
  };
  cpu::for_each_job<A>(bands.image_bands * bands.row_bands * blocks,
                       sums + kRelationBlock * largest.planes(), job);
}

// Backward, what a job adds to, and where it works.
template <typename A>
struct Job {
  A *grad_scale, *grad_shift, *grad_weight;         // [S], [S], [G, S]
  A *grad_hidden, *grad_taps, *image, *grad_image;  // scratch
};

// Backward through the scale, shift and ReLU of `terms` entries of the relation
// from `first` on.
template <typename A>
void rectify_terms(const PatchwiseHiddenForward& f, const Band<A>& band,
                   const Job<A>& job, int64_t first, int64_t terms,
                   const int64_t* offsets) {
  const auto& kernels = patchwise_kernels<A>();
  Rectified<A> all = {job.image,
                      static_cast<const A*>(f.scale) + first,
                      static_cast<const A*>(f.shift) + first,
                      job.grad_taps,
                      job.grad_image,
                      job.grad_scale + first,
                      job.grad_shift + first,
                      offsets,
                      terms,
                      band.columns(),
                      band.run()};
  if (!kernels.has_nan(job.image, offsets[terms - 1] + band.run()))
    return kernels.rectified(all);
  // No gradients come from columns that are no pixels, but 0 * NaN is NaN: they
  // are taken out of a copy of what each term shows.
  std::vector<A> seen(band.run());
  const int64_t start = 0;
  for (int64_t t = 0; t < terms; ++t) {
    std::copy_n(job.image + offsets[t], band.run(), seen.data());
    band.clear_unused(seen.data());
    kernels.rectified({seen.data(), all.scale + t, all.shift + t,
                       all.grad + t * all.stride, all.grad_x + offsets[t],
                       all.grad_scale + t, all.grad_shift + t, &start, 1,
                       all.columns, all.stride});
  }
}

// The gradients of `terms` entries of the relation from `first` on; image and
// grad_image hold the pixels that they show, at `offsets`, the largest last.
template <typename A>
void backward_terms(const PatchwiseHiddenForward& f, const Band<A>& band,
                    const Job<A>& job, int64_t first, int64_t terms,
                    const int64_t* offsets, const int64_t* runs,
                    const A* zeros) {
  const int64_t G = f.weight_channels;
  const int64_t S = f.relation_channels * (f.window.taps() + 1);
  const auto& kernels = patchwise_kernels<A>();
  kernels.mix({static_cast<const A*>(f.weight) + first, zeros, job.grad_hidden,
               nullptr, nullptr, job.grad_taps, runs, terms, G, band.columns(),
               S, band.run()});
  rectify_terms(f, band, job, first, terms, offsets);
  kernels.gram({job.grad_hidden, job.grad_taps, job.grad_weight + first, G,
                terms, band.columns(), band.run(), band.run(), S, 1});
}

template <typename A>
void backward_band(const PatchwiseHiddenBackward& task, const Band<A>& band,
                   int64_t first, int64_t last, const Job<A>& job) {
  const PatchwiseHiddenForward& f = task.forward;
  const int64_t R = f.relation_channels, G = f.weight_channels;
  const int64_t K = f.window.taps(), P = f.window.pixels();
  std::vector<int64_t> runs;
  for (int64_t i = 0; i < std::max(G, kRelationBlock); ++i)
    runs.push_back(i * band.run());
  for (int64_t g = 0; g < G; ++g)
    band.fill_run(static_cast<const A*>(task.grad_hidden) + g * P, G * P,
                  job.grad_hidden + runs[g]);
  const std::vector<A> zeros(std::max(K, kRelationBlock));
  for (int64_t r = first; r < last; ++r)
    band.fill_run(static_cast<const A*>(f.phi) + r * P, R * P,
                  job.image + runs[r - first]);
  std::fill_n(job.grad_image, (last - first) * band.run(), A(0));
  backward_terms(f, band, job, first, last - first, runs.data(), runs.data(),
                 zeros.data());
  for (int64_t r = first; r < last; ++r)
    band.store_run(job.grad_image + runs[r - first],
                   static_cast<A*>(task.grad_phi) + r * P, R * P);
  for (int64_t r = first; r < last; ++r) {
    band.fill_planes(static_cast<const A*>(f.psi) + r * P, R * P, job.image);
    std::fill_n(job.grad_image, band.planes(), A(0));
    backward_terms(f, band, job, R + r * K, K, band.tap_offsets().data(),
                   runs.data(), zeros.data());
    band.fold_planes(job.grad_image, static_cast<A*>(task.grad_psi) + r * P,
                     R * P);
  }
}

template <typename A>
void backward(const PatchwiseHiddenBackward& task) {
  const PatchwiseHiddenForward& f = task.forward;
  const int64_t R = f.relation_channels, G = f.weight_channels;
  const int64_t K = f.window.taps(), S = R * (K + 1);
  const Bands bands(f.batch, f.window);
  const Band<A> largest(f.window, bands);
  const int64_t blocks = (R + kRelationBlock - 1) / kRelationBlock;
  const int64_t images = Bands::pieces_of(
      bands.image_bands, bands.image_bands * blocks / kMostJobs);
  const int64_t pieces = (bands.image_bands + images - 1) / images;
  cpu::PartialSums<A> scale(pieces, S), shift(pieces, S), weight(pieces, G * S);
  std::fill_n(static_cast<A*>(task.grad_psi), f.batch * R * f.window.pixels(),
              A(0));
  const int64_t taps = std::max(K, kRelationBlock) * largest.run();
  const int64_t image =
      std::max(largest.planes(), kRelationBlock * largest.run());
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t r = index % blocks * kRelationBlock, piece = index / blocks;
    A* grad_taps = scratch + G * largest.run();
    const Job<A> here = {
        scale.of(piece), shift.of(piece),  weight.of(piece),        scratch,
        grad_taps,       grad_taps + taps, grad_taps + taps + image};
    const int64_t end = std::min((piece + 1) * images, bands.image_bands);
    for (int64_t at = piece * images; at < end; ++at)
      for (int64_t row = 0; row < bands.row_bands; ++row)
        backward_band(task, Band<A>(f.window, bands, f.batch, at, row), r,
                      std::min(r + kRelationBlock, R), here);
  };
  if (pieces > 0)
    cpu::for_each_job<A>(pieces * blocks, G * largest.run() + taps + 2 * image,
                         job);
  scale.store(static_cast<A*>(task.grad_scale));
  shift.store(static_cast<A*>(task.grad_shift));
  weight.store(static_cast<A*>(task.grad_weight));
}

}  // namespace

void run_on_cpu(const PatchwiseHiddenForward& task) {
  task.type == ScalarType::kFloat64 ? forward<double>(task)
                                    : forward<float>(task);
}

void run_on_cpu(const PatchwiseHiddenBackward& task) {
  task.forward.type == ScalarType::kFloat64 ? backward<double>(task)
                                            : backward<float>(task);
}

}  // namespace san::patchwise
