// The fused patchwise hidden layer where relation and weight channels fill
// vectors, on the CPU: who computes what. The loops are in relation_lanes.h.
//
// Who owns what. Forward: a job is some neighbouring pixels, to which the
// relation channels add kColumns at a time. Backward: a job is (some images,
// kColumns relation channels); what the images add to the gradients of the
// parameters is summed over the jobs in a fixed order: the same bits for every
// number of threads.
//
// Memory per thread: the rectified relation of kLanePixels pixels, backward
// also its gradient and that of an image's psi.
#include <algorithm>
#include <vector>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/lane_jobs.h"

namespace san::patchwise {
namespace {

// Sizes, kernels and packed parameters of a task.
template <typename T>
class Relation {
 public:
  using A = Accumulator<T>;

  Relation(const PatchwiseHiddenForward& task, bool backward)
      : R(task.relation_channels),
        G(task.weight_channels),
        K(task.window.taps()),
        S(R * (K + 1)),
        used((K + 1) * kColumns),
        row(lane_row(K + 1)),
        blocks(R / kColumns),
        in_pairs_(in_pairs<T>(G)),
        task_(task),
        turned_(S * G),
        packed_(backward ? blocks * G * row : 0),
        scale_(S),
        shift_(S) {
    const A* const weight = static_cast<const A*>(task.weight);
    std::vector<A> transposed(S * G), scratch(backward ? G * row : 0);
    patchwise_kernels<A>().load({weight, transposed.data(), G, S, S, G});
    for (int64_t block = 0; block < blocks; ++block)
      kernels().pack_relation(
          {weight, transposed.data(), static_cast<const A*>(task.scale),
           static_cast<const A*>(task.shift), block * kColumns, R, G, K,
           turned(block), backward ? packed(block) : nullptr,
           scale_.data() + block * used, shift_.data() + block * used,
           scratch.data()});
  }

  const LaneKernels<T>& kernels() const {
    const auto& table = patchwise_kernels<T>();
    return in_pairs_ ? table.lanes_in_pairs : table.lanes;
  }
  A* turned(int64_t block) { return turned_.data() + block * used * G; }
  A* packed(int64_t block) { return packed_.data() + block * G * row; }

  // Pixels of the batch, whose taps are counted from pixel `from` of it.
  RelationForward<T> forward(int64_t block, int64_t first, int64_t count,
                             int64_t from, const int64_t* sources, A* scratch) {
    const int64_t channel = block * kColumns;
    return {count,
            G,
            K,
            static_cast<const T*>(task_.phi.data) + first * task_.phi.pitch +
                channel,
            static_cast<const T*>(task_.psi.data) + from * task_.psi.pitch +
                channel,
            task_.phi.pitch,
            task_.psi.pitch,
            sources,
            scale_.data() + block * used,
            shift_.data() + block * used,
            turned(block),
            static_cast<A*>(task_.hidden) + first * G,
            block > 0,
            scratch};
  }

  const int64_t R, G, K, S, used, row, blocks;

 private:
  const bool in_pairs_;
  const PatchwiseHiddenForward& task_;
  std::vector<A> turned_, packed_;  // room for A, pairs take half
  std::vector<A> scale_, shift_;
};

template <typename T>
void forward(const PatchwiseHiddenForward& task) {
  using A = Accumulator<T>;
  Relation<T> relation(task, false);
  const Sources sources(task.window);
  const int64_t pixels = task.batch * task.window.pixels();
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t first = index * kJobPixels;
    const int64_t count = std::min(kJobPixels, pixels - first);
    std::vector<int64_t> taps(count * relation.K);
    sources.find(first, count, 0, taps.data());
    for (int64_t block = 0; block < relation.blocks; ++block)
      relation.kernels().relation_forward(
          relation.forward(block, first, count, 0, taps.data(), scratch));
  };
  cpu::for_each_job<A>((pixels + kJobPixels - 1) / kJobPixels, kChunk, job);
}

template <typename T>
void backward(const PatchwiseHiddenBackward& task) {
  using A = Accumulator<T>;
  const PatchwiseHiddenForward& f = task.forward;
  Relation<T> relation(f, true);
  const int64_t R = relation.R, G = relation.G, K = relation.K;
  const int64_t S = relation.S, used = relation.used, P = f.window.pixels();
  const int64_t pieces = lane_pieces(f.batch, relation.blocks);
  cpu::PartialSums<A> scale(pieces, S), shift(pieces, S), weight(pieces, S * G);
  const Sources sources(f.window);
  const int64_t scratch_elements = relation_backward_scratch(G, K);
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t block = index % relation.blocks;
    const int64_t piece = index / relation.blocks, channel = block * kColumns;
    A* const grad_psi = scratch + scratch_elements;
    const int64_t end = (piece + 1) * f.batch / pieces;
    std::vector<int64_t> taps(kJobPixels * K);
    for (int64_t n = piece * f.batch / pieces; n < end; ++n) {
      const int64_t image = n * P;
      std::fill_n(grad_psi, P * kColumns, A(0));
      for (int64_t first = image; first < image + P; first += kJobPixels) {
        const int64_t count = std::min(kJobPixels, image + P - first);
        sources.find(first, count, image, taps.data());
        relation.kernels().relation_backward(
            {relation.forward(block, first, count, image, taps.data(), scratch),
             relation.packed(block),
             static_cast<const A*>(task.grad_hidden) + first * G,
             static_cast<T*>(task.grad_phi.data) + first * task.grad_phi.pitch +
                 channel,
             task.grad_phi.pitch, grad_psi, scale.of(piece) + block * used,
             shift.of(piece) + block * used,
             weight.of(piece) + block * used * G});
      }
      store_lanes<T>(grad_psi, P, 1, 0,
                     static_cast<T*>(task.grad_psi.data) +
                         image * task.grad_psi.pitch + channel,
                     task.grad_psi.pitch);
    }
  };
  if (f.batch > 0)
    cpu::for_each_job<A>(pieces * relation.blocks,
                         scratch_elements + P * kColumns, job);
  // From [block, T, lane, ...] to [..., S].
  const auto store = [&](const cpu::PartialSums<A>& sums, int64_t count,
                         void* to) {
    std::vector<A> all(S * count), sorted(S * count);
    sums.store(all.data());
    const A* from = all.data();
    for (int64_t block = 0; block < relation.blocks; ++block)
      for (int64_t t = 0; t <= K; ++t)
        for (int64_t lane = 0; lane < kColumns; ++lane, from += count) {
          const int64_t r = block * kColumns + lane;
          const int64_t s = t == 0 ? r : R + r * K + t - 1;
          std::copy_n(from, count, sorted.data() + s * count);
        }
    patchwise_kernels<A>().load(
        {sorted.data(), static_cast<A*>(to), S, count, count, S});
  };
  store(scale, 1, task.grad_scale);
  store(shift, 1, task.grad_shift);
  store(weight, G, task.grad_weight);
}

bool fill_lanes(const PatchwiseHiddenForward& task) {
  return fills_lanes(task.weight_channels) &&
         task.relation_channels % kColumns == 0;
}

}  // namespace

bool run_in_lanes(const PatchwiseHiddenForward& task) {
  if (!fill_lanes(task)) return false;
  with_scalar_type(task.type,
                   [&](auto element) { forward<decltype(element)>(task); });
  return true;
}

bool run_in_lanes(const PatchwiseHiddenBackward& task) {
  if (!fill_lanes(task.forward) || !stays_in_cache(task.forward.window))
    return false;
  with_scalar_type(task.forward.type,
                   [&](auto element) { backward<decltype(element)>(task); });
  return true;
}

}  // namespace san::patchwise
