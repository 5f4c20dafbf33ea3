// The gradient of value in the core of the patchwise attention on CUDA; formula
// and shape letters in patchwise.h. M = C / G channels share a weight channel.
//
// Idea. The weights of the footprint are made again, as in patchwise_core.cu,
// and handed to the pixels that they weighed, times grad_output
// (patchwise_gradients.h).
//
// Who owns what. A block: up to 8 of the M channels of up to four weight
// channels and a band of tile rows, tile by tile. A thread: 8 taps of a quad,
// then places of the halo, then pixels.
//
// Shared memory: the matrix of weights, [taps, 64], the channels of
// grad_output, what as many halos receive, and 16 channels of hidden and weight
// at a time: 57 KB for k = 7 in float32. hidden is read once per weight
// channel; each element of grad_value is read and written 3 times, in pieces of
// four channels, all mostly from the second cache.
#include "cuda_kernels/patchwise/gradients.h"

namespace san::patchwise {
namespace {

// From one weight channel's grad_output to the next: off a multiple of 32.
constexpr int kFactors = kTilePixels * kOwned + 4;

template <typename T>
struct ValueGradients {
  Layout layout;
  Bands bands;
  int64_t bands_now, jobs;
  int first_band;       // then every second one
  int C, G, M, blocks;  // blocks of 8 of M channels
  const T *hidden, *weight, *bias;
  Channels<const T> grad_output;
  Channels<T> grad_value;
};

template <typename T>
struct ValueMemory {
  Sources sources;
  MixMemory<T> mix;
  T *matrix, *factors, *places;

  SAN_HOST_DEVICE ValueMemory(const Layout& layout, int M, Arena& arena)
      : sources(layout, arena),
        mix(layout, arena),
        matrix(arena.take<T>(layout.rows() * kTapStride)),
        factors(arena.take<T>(kFactors << layout.group)),
        places(arena.take<T>(((M < kOwned ? M : kOwned) << layout.group) *
                             san::patchwise::places(layout))) {}
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    value_gradients(ValueGradients<T> a) {
  const Layout& layout = a.layout;
  Arena arena(shared_memory());
  const ValueMemory<T> memory(layout, a.M, arena);
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  const int group = layout.group, groups = a.G >> group;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t band = a.first_band + job % a.bands_now * 2;
    const int64_t block = job / a.bands_now, at = block / a.blocks;
    const int64_t g = at % groups << group, n = at / groups;
    const int first = static_cast<int>(block % a.blocks) * kOwned;
    const int members = min(a.M - first, kOwned);
    const int64_t top = n * layout.down() + band * a.bands.height;
    const int64_t end =
        n * layout.down() + min((band + 1) * a.bands.height, layout.down());
    const int64_t channel = g + int64_t{first} * a.G;
    for (int index = 0; index < layout.slabs(); ++index) {
      const Slab slab = layout.slab(index);
      for (int64_t at = top * layout.across(); at < end * layout.across();
           ++at) {
        const Tile tile = layout.tile(at);
        __syncthreads();
        memory.sources.find(layout, tile, slab);
        stage_tile(layout, tile, a.grad_output.from(n * P, channel, a.G, group),
                   members << group, [&](int c, int pixel) -> T& {
                     return memory.factors[c % (1 << group) * kFactors +
                                           pixel * kOwned + (c >> group)];
                   });
        for (int i = 0; i < 1 << group; ++i) {
          const int64_t row = (g + i) * K + slab.first * layout.k();
          make_weights(layout, tile, slab, a.hidden + n * a.G * P,
                       a.weight + row * a.G, a.bias + row, a.G, memory.mix,
                       memory.matrix);
          __syncthreads();
          const int size = places(layout, tile, slab);
          gather_places<true>(layout, tile, slab, memory.matrix,
                              memory.factors + i * kFactors, members,
                              memory.places + i * size, size << group);
        }
        spread(layout, tile, slab, memory.sources, memory.places,
               members << group, a.grad_value.from(n * P, channel, a.G, group));
      }
    }
  }
}

template <typename T>
void run(const PatchwiseCoreBackward& task, void* stream) {
  const PatchwiseCoreForward& f = task.forward;
  const int C = static_cast<int>(f.channels);
  const int G = static_cast<int>(f.weight_channels);
  const auto bytes = [&](const Layout& layout) {
    Arena arena(nullptr);
    ValueMemory<T>(layout, C / G, arena);
    return arena.bytes();
  };
  const Layout layout = grouped_layout(f.window, G, C / G, bytes);
  const int blocks = static_cast<int>(pieces(C / G, kOwned));
  const int64_t groups = f.batch * (G >> layout.group) * blocks;
  const Bands bands(f.window, groups);
  const auto grad_value = channels_of<T>(task.grad_value);
  launch_zeros<T>(
      {grad_value.data, f.batch * f.window.pixels(), C, grad_value.pitch},
      stream);
  // One launch for every second band, so that no two blocks meet.
  for (int first = 0; first < 2; ++first) {
    const int64_t bands_now = (bands.count + 1 - first) / 2;
    const int64_t jobs = groups * bands_now;
    if (jobs > 0)
      launch(&value_gradients<T>,
             {blocks_for(jobs), threads_for(layout), bytes(layout)}, stream,
             ValueGradients<T>{layout, bands, bands_now, jobs, first, C, G,
                               C / G, blocks, static_cast<const T*>(f.hidden),
                               static_cast<const T*>(f.weight),
                               static_cast<const T*>(f.bias),
                               channels_of<T>(task.grad_output), grad_value});
  }
}

}  // namespace

void launch_value_gradients(const PatchwiseCoreBackward& task, void* stream) {
  task.forward.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                            : run<float>(task, stream);
}

}  // namespace san::patchwise
