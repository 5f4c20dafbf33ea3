// The hidden layer of the patchwise mapping on CUDA; formula and shape letters
// in patchwise.h.
//
// Idea. A matrix product with G columns, P rows and depth S whose left side is
// made while it is read: a thread slides along a footprint row of its quad,
// scales, shifts and rectifies the four pixels that a tap shows, and multiplies
// them by the weights of 8 weight channels. Nothing unfolded exists.
//
// Who owns what. A block: a tile of 64 pixels and 8 weight channels. A thread:
// a quad of pixels, the 8 channels, and every 16th footprint row of those at
// hand; the 16 parts of each sum are added in a fixed order. One writer per
// element, no atomics.
//
// Shared memory: for some relation channels at a time the halo, [taps, 8]
// weights and [taps, 2] scales and shifts, 3 KB per channel for k = 7 in
// float32, and at the end 32 KB for the parts. Per pixel, 3 R halo elements
// are read for each 8 weight channels, mostly from the second cache, and G
// written.
#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/patchwise/tile.h"

namespace san::patchwise {
namespace {

constexpr int kMostChannels = 16;
constexpr int64_t kStagedElements = 6144;
// Channels of phi that have room where the parts of sums are later.
constexpr int kCentreRows = 64;

template <typename T>
struct HiddenForward {
  Layout layout;
  int64_t jobs, blocks;  // blocks of 8 weight channels
  int R, G;
  int channels;  // relation channels at a time
  Channels<const T> phi, psi;
  const T *scale, *shift, *weight;
  T* hidden;

  SAN_HOST_DEVICE int64_t S() const { return R * (layout.window.taps() + 1); }
};

template <typename T>
struct HiddenMemory {
  Sources sources;
  T *halo, *weights, *affine, *parts;

  SAN_HOST_DEVICE HiddenMemory(const Layout& layout, int channels, Arena& arena)
      : sources(layout, arena),
        halo(arena.take<T>(channels * layout.halo())),
        weights(arena.take<T>(channels * layout.taps() * kOwned)),
        affine(arena.take<T>(channels * layout.taps() * 2)),
        parts(halo) {}

  static size_t bytes(const Layout& layout, int channels) {
    Arena arena(nullptr), parts(nullptr);
    HiddenMemory(layout, channels, arena);
    Sources(layout, parts);
    parts.take<T>(kMostThreads / kQuads * kSumElements);
    return std::max(arena.bytes(), parts.bytes());
  }
};

// What phi contributes, some of its channels at a time.
template <typename T>
__device__ void add_centre(const HiddenForward<T>& a, const Tile& tile, int g,
                           T* rows, T (&sums)[kOwned][4]) {
  const Place place;
  const int64_t P = a.layout.window.pixels(), S = a.S();
  for (int first = 0; first < a.R; first += kCentreRows) {
    const int count = min(a.R - first, kCentreRows);
    __syncthreads();
    stage_rows(a.layout, tile, a.phi.from(tile.image * P, first), count, rows);
    __syncthreads();
    for (int row = place.slot; row < count; row += place.slots) {
      const int r = first + row;
      const T scale = a.scale[r], shift = a.shift[r];
      Quad<T> x = quad_at(rows + row * kTapStride + place.quad * 4);
      for (int j = 0; j < 4; ++j) x.at[j] = relu(x.at[j] * scale + shift);
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        const T weight = g + i < a.G ? a.weight[(g + i) * S + r] : T(0);
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] += weight * x.at[j];
      }
    }
  }
}

// Fetches `channels` relation channels from r on.
template <typename T>
__device__ void stage(const HiddenForward<T>& a, const HiddenMemory<T>& memory,
                      const Tile& tile, const Slab& slab, int g, int r,
                      int channels) {
  const int64_t K = a.layout.window.taps(), P = a.layout.window.pixels();
  const int64_t first =
      a.R + r * K + static_cast<int64_t>(slab.first) * a.layout.k();
  // Where the tap that comes as `index` in shared memory is among all S.
  const auto entry = [&](int index) {
    return first + index / slab.taps * K + index % slab.taps;
  };
  stage_halos(a.layout, memory.sources, a.psi.from(tile.image * P, r), channels,
              memory.halo);
  const int taps = channels * slab.taps;
  const int row = g + static_cast<int>(threadIdx.x) % kOwned;
  const T* weight = a.weight + row * a.S();
  copy<T>(
      threadIdx.x / kOwned, taps, blockDim.x / kOwned,
      [&](int i) { return row < a.G ? weight[entry(i)] : T(0); },
      [&](int i, T value) {
        memory.weights[i * kOwned + threadIdx.x % kOwned] = value;
      });
  for (int i = threadIdx.x; i < taps; i += blockDim.x) {
    memory.affine[i * 2] = a.scale[entry(i)];
    memory.affine[i * 2 + 1] = a.shift[entry(i)];
  }
}

// What a footprint row contributes; weights and affine are those of its taps.
template <typename T>
__device__ void add_line(const T* from, const T* weights, const T* affine,
                         int taps, T (&sums)[kOwned][4]) {
  T seen[4] = {T(0), from[0], from[1], from[2]};
#pragma unroll 4  // after four steps every register is back in its place
  for (int t = 0; t < taps; ++t) {
#pragma unroll
    for (int j = 0; j < 3; ++j) seen[j] = seen[j + 1];
    seen[3] = from[t + 3];
    const T scale = affine[t * 2], shift = affine[t * 2 + 1];
    T x[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = relu(seen[j] * scale + shift);
    const Quad<T> low = quad_at(weights + t * kOwned);
    const Quad<T> high = quad_at(weights + t * kOwned + 4);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sums[i][j] += low.at[i] * x[j];
        sums[i + 4][j] += high.at[i] * x[j];
      }
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    hidden_forward(HiddenForward<T> a) {
  const Layout& layout = a.layout;
  Arena arena(shared_memory());
  HiddenMemory<T> memory(layout, a.channels, arena);
  const Place place;
  const int k = layout.k(), stride = layout.stride;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / a.blocks);
    const int g = static_cast<int>(job % a.blocks) * kOwned;
    T sums[kOwned][4] = {};
    add_centre(a, tile, g, memory.parts, sums);
    for (int index = 0; index < layout.slabs(); ++index) {
      const Slab slab = layout.slab(index);
      __syncthreads();
      memory.sources.find(layout, tile, slab);
      for (int r = 0; r < a.R; r += a.channels) {
        const int channels = r + a.channels < a.R ? a.channels : a.R - r;
        __syncthreads();
        stage(a, memory, tile, slab, g, r, channels);
        __syncthreads();
        const int lines = channels * slab.lines;
        for (int line = place.slot; line < lines; line += place.slots) {
          const int c = line / slab.lines, y = place.y + line % slab.lines;
          add_line(memory.halo + c * layout.halo() + y * stride + place.x,
                   memory.weights + line * k * kOwned,
                   memory.affine + line * k * 2, k, sums);
        }
      }
    }
    add_parts(sums, place.slots, 1, memory.parts,
              [&](int channel, int pixel, T sum) {
                if (g + channel < a.G && tile.holds(pixel))
                  a.hidden[(tile.image * layout.window.pixels() +
                            layout.at(tile, pixel)) *
                               a.G +
                           g + channel] = sum;
              });
  }
}

template <typename T>
void run(const PatchwiseHiddenForward& task, void* stream) {
  const Layout layout = layout_of(task.window);
  const int R = static_cast<int>(task.relation_channels);
  const int G = static_cast<int>(task.weight_channels);
  const int64_t each = layout.halo() + layout.taps() * (kOwned + 2);
  const int channels = static_cast<int>(std::clamp<int64_t>(
      kStagedElements / each, 1, std::min(R, kMostChannels)));
  const int64_t blocks = pieces(G, kOwned);
  const int64_t jobs = task.batch * layout.down() * layout.across() * blocks;
  if (jobs == 0) return;
  launch(&hidden_forward<T>,
         {blocks_for(jobs), kMostThreads,
          HiddenMemory<T>::bytes(layout, channels)},
         stream,
         HiddenForward<T>{
             layout, jobs, blocks, R, G, channels, channels_of<T>(task.phi),
             channels_of<T>(task.psi), static_cast<const T*>(task.scale),
             static_cast<const T*>(task.shift),
             static_cast<const T*>(task.weight), static_cast<T*>(task.hidden)});
}

}  // namespace

void run_on_cuda(const PatchwiseHiddenForward& task, void* stream) {
  if (task.tensor_cores) return run_on_tensor_cores(task, stream);
  task.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                    : run<float>(task, stream);
}

}  // namespace san::patchwise
