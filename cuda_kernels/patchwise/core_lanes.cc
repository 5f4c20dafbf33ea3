// The fused patchwise core where weight channels fill vectors, on the CPU: who
// computes what. The loops are in lanes.h.
//
// Who owns what. Forward: a job is (some neighbouring pixels, kColumns weight
// channels). Backward: a job is (some images, kColumns weight channels); what
// the weight channels add to the gradient of hidden, and the images to those of
// the parameters, is summed over the jobs in a fixed order: the same bits for
// every number of threads.
//
// Memory per thread: the weights of kLanePixels pixels, backward also their
// gradients and that of an image's value.
#include <algorithm>
#include <vector>

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/cpu/ordered_sums.h"
#include "cuda_kernels/patchwise/lane_jobs.h"

namespace san::patchwise {
namespace {

// Sizes, kernels and packed weights of a task.
template <typename T>
class Lanes {
 public:
  using A = Accumulator<T>;

  Lanes(const PatchwiseCoreForward& task, bool backward)
      : G(task.weight_channels),
        K(task.window.taps()),
        row(lane_row(K)),
        members(task.channels / G),
        blocks(G / kColumns),
        in_pairs_(in_pairs<T>(K)),
        task_(task),
        weight_(G * blocks * row),
        turned_(backward ? G * K * G : 0),
        bias_(blocks * row) {
    std::vector<A> scratch(G * row);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t at = block * kColumns * K;
      kernels().pack({static_cast<const A*>(task.weight) + at * G,
                      static_cast<const A*>(task.bias) + at, G, K,
                      weight(block), backward ? turned(block) : nullptr,
                      bias_.data() + block * row, scratch.data()});
    }
  }

  const LaneKernels<T>& kernels() const {
    const auto& table = patchwise_kernels<T>();
    return in_pairs_ ? table.lanes_in_pairs : table.lanes;
  }
  A* weight(int64_t block) { return weight_.data() + block * G * row; }
  A* turned(int64_t block) { return turned_.data() + block * kColumns * K * G; }

  // Pixels of the batch, whose taps are counted from pixel `from` of it.
  LaneForward<T> forward(int64_t block, int64_t first, int64_t count,
                         int64_t from, const int64_t* sources, A* scratch) {
    const int64_t channel = block * kColumns;
    return {count,
            G,
            K,
            members,
            static_cast<const A*>(task_.hidden) + first * G,
            weight(block),
            bias_.data() + block * row,
            static_cast<const T*>(task_.value.data) + from * task_.value.pitch +
                channel,
            task_.value.pitch,
            sources,
            static_cast<T*>(task_.output.data) + first * task_.output.pitch +
                channel,
            task_.output.pitch,
            scratch};
  }

  const int64_t G, K, row, members, blocks;

 private:
  const bool in_pairs_;
  const PatchwiseCoreForward& task_;
  std::vector<A> weight_, turned_, bias_;  // room for A, pairs take half
};

template <typename T>
void forward(const PatchwiseCoreForward& task) {
  using A = Accumulator<T>;
  Lanes<T> lanes(task, false);
  const Sources sources(task.window);
  const int64_t pixels = task.batch * task.window.pixels();
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t first = index / lanes.blocks * kJobPixels;
    const int64_t count = std::min(kJobPixels, pixels - first);
    std::vector<int64_t> taps(count * lanes.K);
    sources.find(first, count, 0, taps.data());
    lanes.kernels().forward(lanes.forward(index % lanes.blocks, first, count, 0,
                                          taps.data(), scratch));
  };
  cpu::for_each_job<A>((pixels + kJobPixels - 1) / kJobPixels * lanes.blocks,
                       lane_scratch(lanes.G, lanes.K), job);
}

template <typename T>
void backward(const PatchwiseCoreBackward& task) {
  using A = Accumulator<T>;
  const PatchwiseCoreForward& f = task.forward;
  Lanes<T> lanes(f, true);
  const int64_t G = lanes.G, K = lanes.K, P = f.window.pixels();
  const int64_t pieces = lane_pieces(f.batch, lanes.blocks);
  cpu::PartialSums<A> hidden(lanes.blocks, f.batch * P * G);
  cpu::PartialSums<A> weight(pieces, G * K * G), bias(pieces, G * K);
  const Sources sources(f.window);
  const int64_t scratch_elements = lane_backward_scratch(G, K);
  const auto job = [&](int64_t index, A* scratch) {
    const int64_t block = index % lanes.blocks, piece = index / lanes.blocks;
    const int64_t channel = block * kColumns;
    A* const grad_value = scratch + scratch_elements;
    const int64_t used = K * kColumns, end = (piece + 1) * f.batch / pieces;
    std::vector<int64_t> taps(kJobPixels * K);
    for (int64_t n = piece * f.batch / pieces; n < end; ++n) {
      const int64_t image = n * P;
      std::fill_n(grad_value, P * lanes.members * kColumns, A(0));
      for (int64_t first = image; first < image + P; first += kJobPixels) {
        const int64_t count = std::min(kJobPixels, image + P - first);
        sources.find(first, count, image, taps.data());
        lanes.kernels().backward(
            {lanes.forward(block, first, count, image, taps.data(), scratch),
             lanes.turned(block),
             static_cast<const T*>(task.grad_output.data) +
                 first * task.grad_output.pitch + channel,
             task.grad_output.pitch, hidden.of(block) + first * G, grad_value,
             weight.of(piece) + block * used * G,
             bias.of(piece) + block * used});
      }
      store_lanes<T>(grad_value, P, lanes.members, G,
                     static_cast<T*>(task.grad_value.data) +
                         image * task.grad_value.pitch + channel,
                     task.grad_value.pitch);
    }
  };
  if (f.batch > 0)
    cpu::for_each_job<A>(pieces * lanes.blocks,
                         scratch_elements + P * lanes.members * kColumns, job);
  hidden.store(static_cast<A*>(task.grad_hidden));
  // From [block, K, lane, ...] to [block, lane, K, ...].
  const auto store = [&](const cpu::PartialSums<A>& sums, int64_t count,
                         void* to) {
    std::vector<A> all(G * K * count);
    sums.store(all.data());
    for (int64_t g = 0; g < G; ++g)
      for (int64_t t = 0; t < K; ++t) {
        const int64_t from = (g / kColumns * K + t) * kColumns + g % kColumns;
        std::copy_n(all.data() + from * count, count,
                    static_cast<A*>(to) + (g * K + t) * count);
      }
  };
  store(weight, G, task.grad_weight);
  store(bias, 1, task.grad_bias);
}

bool fill_lanes(const PatchwiseCoreForward& task) {
  return fills_lanes(task.weight_channels);
}

}  // namespace

bool run_in_lanes(const PatchwiseCoreForward& task) {
  if (!fill_lanes(task)) return false;
  with_scalar_type(task.type,
                   [&](auto element) { forward<decltype(element)>(task); });
  return true;
}

bool run_in_lanes(const PatchwiseCoreBackward& task) {
  if (!fill_lanes(task.forward) || !stays_in_cache(task.forward.window))
    return false;
  with_scalar_type(task.forward.type,
                   [&](auto element) { backward<decltype(element)>(task); });
  return true;
}

}  // namespace san::patchwise
