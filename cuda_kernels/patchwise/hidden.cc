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
#include <type_traits>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/lane_jobs.h"
#include "cuda_kernels/patchwise/strip.h"
#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {
namespace {

constexpr int64_t kRelationBlock = 4;
constexpr int64_t kWeightBlock = 32;
constexpr int64_t kMostJobs = 32;

// Where the forward pass works: sums of weight channels, planes of
// kRelationBlock channels, and strips of phi and psi.
template <typename A>
struct Scratch {
  A *sums, *planes, *phi, *psi, *pairs;
};

// The weight in the order in which forward_band mixes terms: transposed, or,
// if pairs are asked for, these, of some relation channels after the other.
template <typename A>
struct Weight {
  Weight(const PatchwiseHiddenForward& task, bool in_pairs) {
    const int64_t R = task.relation_channels, G = task.weight_channels;
    const int64_t K = task.window.taps(), S = R * (K + 1);
    const A* from = static_cast<const A*>(task.weight);
    if constexpr (std::is_same_v<A, float>) {
      for (int64_t r = 0; in_pairs && r < R; r += kRelationBlock) {
        const int64_t channels = std::min(kRelationBlock, R - r);
        append_pairs(from + r, G, S, channels, 1, pairs);
        append_pairs(from + R + r * K, G, S, channels * K, 1, pairs);
      }
      if (in_pairs) return;
    }
    rows.resize(G * S);
    cpu::transpose(from, G, S, rows.data());
  }

  std::vector<A> rows;          // [S, G]
  std::vector<bfloat16> pairs;  // empty if they are not
};

template <typename T, typename A>
void forward_band(const PatchwiseHiddenForward& task, const Band<A>& band,
                  int64_t g, int64_t rows, const Weight<A>& weight,
                  const Scratch<A>& scratch) {
  const int64_t R = task.relation_channels, G = task.weight_channels;
  const int64_t K = task.window.taps();
  const Range own = band.own(), seen = band.seen();
  A *sum = scratch.sums, *planes = scratch.planes;
  const auto* scale = static_cast<const A*>(task.scale);
  const auto* shift = static_cast<const A*>(task.shift);
  std::vector<int64_t> runs, taps;
  for (int64_t c = 0; c < kRelationBlock; ++c) {
    runs.push_back(c * band.run());
    for (const int64_t offset : band.tap_offsets())
      taps.push_back(c * band.planes() + offset);
  }
  std::fill_n(sum, rows * band.run(), A(0));
  const bfloat16* pairs = weight.pairs.data();
  // Adds what `terms` entries of the relation from `first` on contribute.
  const auto add = [&](int64_t first, const std::vector<int64_t>& offsets,
                       int64_t terms) {
    const auto& kernels = patchwise_kernels<A>();
    if constexpr (std::is_same_v<A, float>)
      if (!weight.pairs.empty()) {
        kernels.mix_pairs({pairs + 2 * g, nullptr, planes, scale + first,
                           shift + first, sum, offsets.data(), rows, terms,
                           band.columns(), G, band.run(), scratch.pairs});
        pairs += (terms + 1) / 2 * 2 * G;
        return;
      }
    kernels.mix({weight.rows.data() + first * G + g, nullptr, planes,
                 scale + first, shift + first, sum, offsets.data(), rows, terms,
                 band.columns(), G, band.run()});
  };
  for (int64_t r = 0; r < R; r += kRelationBlock) {
    const int64_t at = r % kStripChannels;
    if (at == 0) {
      const int64_t loaded = std::min(kStripChannels, R - r);
      load_strip<T>(task.phi, r, loaded, own, own.count, scratch.phi);
      load_strip<T>(task.psi, r, loaded, seen, seen.count, scratch.psi);
    }
    const int64_t channels = std::min(kRelationBlock, R - r);
    for (int64_t c = 0; c < channels; ++c)
      band.fill_run(scratch.phi + (at + c) * own.count, planes + runs[c]);
    add(r, runs, channels);
    for (int64_t c = 0; c < channels; ++c)
      band.fill_planes(scratch.psi + (at + c) * seen.count,
                       planes + c * band.planes());
    add(R + r * K, taps, channels * K);
  }
  store_runs<A>(band, sum, scratch.phi, {task.hidden, G}, g, rows);
}

template <typename T>
void forward(const PatchwiseHiddenForward& task) {
  using A = Accumulator<T>;
  const int64_t G = task.weight_channels;
  const Weight<A> weight(task, in_pairs<T>(G));
  const int64_t pairs =
      weight.pairs.empty() ? 0
                           : pair_elements(kRelationBlock * task.window.taps());
  const Bands bands(task.batch, task.window);
  const Band<A> largest(task.window, bands);
  const int64_t blocks = (G + kWeightBlock - 1) / kWeightBlock;
  const int64_t sums = std::min(G, kWeightBlock) * largest.run();
  const int64_t planes = kRelationBlock * largest.planes();
  const int64_t own = kStripChannels * bands.own;
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t at = index / blocks, g = index % blocks * kWeightBlock;
    A* const strips = scratch + sums + planes;
    A* const psi = strips + own;
    forward_band<T>(task,
                    Band<A>(task.window, bands, task.batch,
                            at / bands.row_bands, at % bands.row_bands),
                    g, std::min(kWeightBlock, G - g), weight,
                    Scratch<A>{scratch, scratch + sums, strips, psi,
                               psi + kStripChannels * bands.seen});
  };
  cpu::for_each_job<A>(
      bands.image_bands * bands.row_bands * blocks,
      sums + planes + own + kStripChannels * bands.seen + pairs, job);
}

// Backward, what a job adds to, and where it works.
template <typename A>
struct Job {
  A *grad_scale, *grad_shift, *grad_weight;         // [S], [S], [G, S]
  A *grad_hidden, *grad_taps, *image, *grad_image;  // scratch
  A *strip, *psi;                                   // of pixels
  int64_t seen;                                     // from row to row of psi
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

template <typename T, typename A>
void backward_band(const PatchwiseHiddenBackward& task, const Band<A>& band,
                   int64_t first, int64_t last, const Job<A>& job,
                   MovingRows<A>& grad_psi) {
  const PatchwiseHiddenForward& f = task.forward;
  const int64_t R = f.relation_channels, G = f.weight_channels;
  const int64_t K = f.window.taps();
  std::vector<int64_t> runs;
  for (int64_t i = 0; i < std::max(G, kRelationBlock); ++i)
    runs.push_back(i * band.run());
  load_runs<A>(band, {task.grad_hidden, G}, 0, G, job.strip, job.grad_hidden);
  const std::vector<A> zeros(std::max(K, kRelationBlock));
  load_runs<T>(band, f.phi, first, last - first, job.strip, job.image);
  std::fill_n(job.grad_image, (last - first) * band.run(), A(0));
  backward_terms(f, band, job, first, last - first, runs.data(), runs.data(),
                 zeros.data());
  store_runs<T>(band, job.grad_image, job.strip, task.grad_phi, first,
                last - first);
  load_strip<T>(f.psi, first, last - first, band.seen(), job.seen, job.psi);
  for (int64_t r = first; r < last; ++r) {
    band.fill_planes(job.psi + (r - first) * job.seen, job.image);
    std::fill_n(job.grad_image, band.planes(), A(0));
    backward_terms(f, band, job, R + r * K, K, band.tap_offsets().data(),
                   runs.data(), zeros.data());
    band.fold_planes(job.grad_image, grad_psi.row(r - first));
  }
}

template <typename T>
void backward(const PatchwiseHiddenBackward& task) {
  using A = Accumulator<T>;
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
  const int64_t taps = std::max(K, kRelationBlock) * largest.run();
  const int64_t image =
      std::max(largest.planes(), kRelationBlock * largest.run());
  const int64_t strip = kStripChannels * bands.own;
  const int64_t psi = kRelationBlock * bands.seen;
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t r = index % blocks * kRelationBlock, piece = index / blocks;
    const int64_t last = std::min(r + kRelationBlock, R);
    A* const grad_taps = scratch + G * largest.run();
    A* const images_at = grad_taps + taps;
    A* const strips = images_at + 2 * image;
    const Job<A> here = {scale.of(piece),   shift.of(piece), weight.of(piece),
                         scratch,           grad_taps,       images_at,
                         images_at + image, strips,          strips + strip,
                         bands.seen};
    MovingRows<A> grad_psi(strips + strip + psi, last - r, bands.seen);
    const int64_t end = std::min((piece + 1) * images, bands.image_bands);
    for_each_band<A>(f.window, bands, f.batch, piece * images, end,
                     [&](const Band<A>& band, const Range& complete) {
                       grad_psi.move_to(band.seen());
                       backward_band<T>(task, band, r, last, here, grad_psi);
                       store_strip<T>(grad_psi.row(0), bands.seen, complete,
                                      task.grad_psi, r, last - r);
                     });
  };
  if (pieces > 0)
    cpu::for_each_job<A>(pieces * blocks,
                         G * largest.run() + taps + 2 * image + strip + 2 * psi,
                         job);
  scale.store(static_cast<A*>(task.grad_scale));
  shift.store(static_cast<A*>(task.grad_shift));
  weight.store(static_cast<A*>(task.grad_weight));
}

}  // namespace

void run_on_cpu(const PatchwiseHiddenForward& task) {
  if (run_in_lanes(task)) return;
  with_scalar_type(task.type,
                   [&](auto element) { forward<decltype(element)>(task); });
}

void run_on_cpu(const PatchwiseHiddenBackward& task) {
  if (run_in_lanes(task)) return;
  with_scalar_type(task.forward.type,
                   [&](auto element) { backward<decltype(element)>(task); });
}

}  // namespace san::patchwise
