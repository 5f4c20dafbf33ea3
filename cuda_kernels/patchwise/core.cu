// From the hidden layer of the patchwise mapping to the output, on CUDA;
// formula and shape letters in patchwise.h. M = C / G channels of value share a
// weight channel.
//
// Idea. The weights of one weight channel at 64 pixels are a matrix product of
// depth G that fits into shared memory; the M channels that share them are
// summed with them at once. No weight is ever in global memory.
//
// Who owns what. A block: a tile of 64 pixels, up to four weight channels, one
// after another, and 8 of their M channels each. A thread: first 8 taps of a
// quad of pixels, then the 8 channels of a quad and every 8th footprint row, or
// 16th; the parts of each sum are added in a fixed order. One writer per
// element, no atomics.
//
// Shared memory: the matrix, [taps, 64], the halos of all channels, which make
// room for what comes out of them, and 16 channels of hidden and weight at a
// time: 60 KB for k = 7 in float32. Per output, 3 halo elements, K / 64 (G / 8)
// weights and G / 8 elements of hidden are read, mostly from the second cache,
// and 1 is written, in pieces of four channels.
#include "cuda_kernels/patchwise/mix.h"
#include "cuda_kernels/patchwise/tensor.h"

namespace san::patchwise {
namespace {

template <typename T>
struct CoreForward {
  Layout layout;
  int64_t jobs;
  int C, G, blocks;  // blocks of 8 channels of each weight channel
  const T *hidden, *weight, *bias;
  Channels<const T> value;
  Channels<T> output;
};

template <typename T>
struct CoreMemory {
  Sources sources;
  MixMemory<T> mix;
  T *matrix, *halos;

  SAN_HOST_DEVICE CoreMemory(const Layout& layout, int members, Arena& arena)
      : sources(layout, arena),
        mix(layout, arena),
        matrix(arena.take<T>(matrix_elements(layout))),
        halos(arena.take<T>(
            ((members < kOwned ? members : kOwned) << layout.group) *
            layout.halo())) {}

  // The matrix, or after it the parts of the sums.
  static SAN_HOST_DEVICE int matrix_elements(const Layout& layout) {
    const int most = kMostThreads / kQuads;
    const int parts = layout.lines < most ? layout.lines : most;
    const int sums = parts * kSumElements;
    const int matrix = layout.rows() * kTapStride;
    return matrix > sums ? matrix : sums;
  }
};

// sums[m, p] += sum over the slab's taps of matrix[tap, p] * halo[m, tap of p]
// for the members of weight channel i of the group.
template <typename T>
__device__ void aggregate(const Layout& layout, const Slab& slab,
                          const CoreMemory<T>& memory, int i, int members,
                          T (&sums)[kOwned][4]) {
  const Place place;
  const int k = layout.k(), stride = layout.stride;
  for (int line = place.slot; line < slab.lines; line += place.slots) {
    const T* weights = memory.matrix + line * k * kTapStride + place.quad * 4;
    slide<kOwned>(
        memory.halos + i * layout.halo() + (place.y + line) * stride + place.x,
        layout.halo() << layout.group, members, k,
        [&](int t, const T(&seen)[kOwned][4]) {
          const Quad<T> weight = quad_at(weights + t * kTapStride);
#pragma unroll
          for (int m = 0; m < kOwned; ++m)
            if (m < members)
#pragma unroll
              for (int j = 0; j < 4; ++j)
                sums[m][j] += weight.at[j] * seen[m][j];
        });
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    core_forward(CoreForward<T> a) {
  const Layout& layout = a.layout;
  Arena arena(shared_memory());
  const CoreMemory<T> memory(layout, a.C / a.G, arena);
  const Place place;
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  const int group = layout.group, groups = a.G >> group;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t at = job / a.blocks;
    const int first = static_cast<int>(job % a.blocks) * kOwned;
    const int g = static_cast<int>(at % groups) << group;
    const int left = a.C / a.G - first;
    const int members = left < kOwned ? left : kOwned;
    const Tile tile = layout.tile(at / groups);
    const int64_t channel = g + int64_t{first} * a.G;
    T sums[kOwned][4];
    for (int index = 0; index < layout.slabs(); ++index) {
      const Slab slab = layout.slab(index);
      __syncthreads();
      memory.sources.find(layout, tile, slab);
      __syncthreads();
      stage_halos(layout, memory.sources,
                  a.value.from(tile.image * P, channel, a.G, group),
                  members << group, memory.halos);
      for (int i = 0; i < 1 << group; ++i) {
        const int64_t row = (g + i) * K + slab.first * layout.k();
        if (index == 0) clear(sums);
        make_weights(layout, tile, slab, a.hidden + tile.image * a.G * P,
                     a.weight + row * a.G, a.bias + row, a.G, memory.mix,
                     memory.matrix);
        __syncthreads();
        aggregate(layout, slab, memory, i, members, sums);
        if (index + 1 < layout.slabs()) continue;
        const int parts = min(place.slots, layout.lines);
        add_parts(sums, parts, 1, memory.matrix, [&](int m, int pixel, T sum) {
          if (m < members)
            memory.halos[((m << group) + i) * layout.halo() + pixel] = sum;
        });
      }
    }
    store_tile(layout, tile, memory.halos, layout.halo(), members << group,
               a.output.from(tile.image * P, channel, a.G, group));
  }
}

template <typename T>
void run(const PatchwiseCoreForward& task, void* stream) {
  const int C = static_cast<int>(task.channels);
  const int G = static_cast<int>(task.weight_channels);
  const auto bytes = [&](const Layout& layout) {
    Arena arena(nullptr);
    CoreMemory<T>(layout, C / G, arena);
    return arena.bytes();
  };
  const Layout layout = grouped_layout(task.window, G, C / G, bytes);
  const int blocks = static_cast<int>(pieces(C / G, kOwned));
  const int64_t jobs = task.batch * layout.down() * layout.across() *
                       (G >> layout.group) * blocks;
  if (jobs == 0) return;
  launch(
      &core_forward<T>, {blocks_for(jobs), threads_for(layout), bytes(layout)},
      stream,
      CoreForward<T>{
          layout, jobs, C, G, blocks, static_cast<const T*>(task.hidden),
          static_cast<const T*>(task.weight), static_cast<const T*>(task.bias),
          channels_of<T>(task.value), channels_of<T>(task.output)});
}

}  // namespace

void run_on_cuda(const PatchwiseCoreForward& task, void* stream) {
  if (task.tensor_cores) return run_on_tensor_cores(task, stream);
  task.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                    : run<float>(task, stream);
}

}  // namespace san::patchwise
