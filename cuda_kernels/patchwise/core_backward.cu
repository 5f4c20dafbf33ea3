// The gradients of hidden, weight and bias of the core of the patchwise
// attention on CUDA; formula and shape letters in patchwise.h. M = C / G
// channels of value share a weight channel. For the gradient of value see
// patchwise_value_backward.cu.
//
// Idea. The gradients of the weights of the footprint, the M channels of
// grad_output times what their taps show of value, are a small matrix of the
// taps and pixels of a tile. Both kernels make it in shared memory, and a
// matrix product there uses it up.
//
// Who owns what. `hidden_gradients`: a block owns a tile and 16 channels of
// hidden, a thread 8 of them, a quad and some of the taps; it goes through all
// weight channels. `weight_gradients`: a block owns the taps of a slab of up to
// four weight channels, 32 channels of hidden and a chunk of the tiles; a
// thread 4 x 4 of the products of each. Partial sums are added by a second
// kernel in a fixed order.
//
// Shared memory: the matrix, 8 channels of grad_output and the halos of value
// for each of up to four weight channels, and what is multiplied with the
// matrix: 66 and 71 KB for k = 7 in float32. value and grad_output are read
// G / 16 and G / 32 times, in pieces of four channels, mostly from the second
// cache.
#include "cuda_kernels/patchwise/gradients.h"
#include "cuda_kernels/patchwise/tensor.h"

namespace san::patchwise {
namespace {

// Groups of 8 channels of hidden that a block of `hidden_gradients` owns.
constexpr int kGroups = 2;
// Channels of value that a thread correlates at a time: more would not fit into
// its registers beside its sums.
constexpr int kCorrelated = 4;

// A block sums the weight gradients of 2^kSummed weight channels in registers.
template <typename T>
constexpr int kSummed = sizeof(T) > 4 ? 1 : kMostGroup;

template <typename T>
struct Core {
  Layout layout;
  int C, G, M;
  const T *hidden, *weight;
  Channels<const T> value, grad_output;

  // Channels of value that a block has at hand.
  SAN_HOST_DEVICE int channels() const {
    return (M < kOwned ? M : kOwned) << layout.group;
  }
};

// The gradients of the weights, for both kernels that need them.
template <typename T>
struct GradientMemory {
  Sources sources;
  T *matrix, *halos, *grads, *columns;

  SAN_HOST_DEVICE GradientMemory(const Core<T>& a, int threads,
                                 int column_elements, Arena& arena)
      : sources(a.layout, arena),
        matrix(arena.take<T>(scratch_elements(a.layout, threads))),
        halos(arena.take<T>(a.channels() * a.layout.halo())),
        grads(arena.take<T>(a.channels() * kTapStride)),
        columns(arena.take<T>(column_elements)) {}
};

// matrix[tap, p] (+)= sum over some m of grads[m, p] * halo[m, tap of p], where
// the members of a weight channel are 2^group channels apart.
template <typename T>
__device__ void correlate(const Layout& layout, const Tile& tile,
                          const Slab& slab, const T* halos, const T* pixels,
                          int members, bool add, T* matrix) {
  const Place place;
  const int k = layout.k(), stride = layout.stride;
  Quad<T> grads[kCorrelated];
#pragma unroll
  for (int m = 0; m < kCorrelated; ++m)
    if (m < members)
      grads[m] =
          quad_at(pixels + (m << layout.group) * kTapStride + place.quad * 4);
  for (int line = place.slot; line < slab.lines; line += place.slots)
    slide<kCorrelated>(
        halos + (place.y + line) * stride + place.x,
        layout.halo() << layout.group, members, k,
        [&](int t, const T(&seen)[kCorrelated][4]) {
          Quad<T>& to =
              quad_at(matrix + (line * k + t) * kTapStride + place.quad * 4);
          Quad<T> sums = add ? to : Quad<T>{};
#pragma unroll
          for (int m = 0; m < kCorrelated; ++m)
            if (m < members)
#pragma unroll
              for (int j = 0; j < 4; ++j)
                sums.at[j] += grads[m].at[j] * seen[m][j];
          to = held(tile, place, sums);
        });
}

// Fetches up to 8 members, from `first` on, of the group of weight channels
// that begins with g. The sources have been found.
template <typename T>
__device__ void stage_members(const Core<T>& a, const Tile& tile, int g,
                              int first, const GradientMemory<T>& memory) {
  const int64_t pixel = tile.image * a.layout.window.pixels();
  const int64_t channel = g + int64_t{first} * a.G;
  const int group = a.layout.group;
  const int channels = min(a.M - first, kOwned) << group;
  stage_halos(a.layout, memory.sources,
              a.value.from(pixel, channel, a.G, group), channels, memory.halos);
  stage_rows(a.layout, tile, a.grad_output.from(pixel, channel, a.G, group),
             channels, memory.grads);
}

// The gradients of the weights that channel g + i of a group makes of the
// tile's pixels. The first members are at hand before; barriers come before and
// after all.
template <typename T>
__device__ void make_gradients(const Core<T>& a, const Tile& tile,
                               const Slab& slab, int g, int i,
                               const GradientMemory<T>& memory) {
  for (int first = 0; first < a.M; first += kOwned) {
    const int members = min(a.M - first, kOwned);
    __syncthreads();
    if (a.M > kOwned) {
      stage_members(a, tile, g, first, memory);
      __syncthreads();
    }
    for (int m = 0; m < members; m += kCorrelated) {
      const int channel = (m << a.layout.group) + i;
      correlate(a.layout, tile, slab, memory.halos + channel * a.layout.halo(),
                memory.grads + channel * kTapStride,
                min(members - m, kCorrelated), first + m > 0, memory.matrix);
    }
  }
  __syncthreads();
}

template <typename T>
struct HiddenGradients {
  Core<T> core;
  int64_t jobs;
  int groups, blocks;  // of 8 channels of hidden in a block; blocks of those
  T* grad_hidden;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    hidden_gradients(HiddenGradients<T> a) {
  const Core<T>& b = a.core;
  const Layout& layout = b.layout;
  Arena arena(shared_memory());
  const int width = a.groups * kOwned;
  const GradientMemory<T> memory(b, blockDim.x, layout.rows() * width, arena);
  const Place place;
  const int group = place.slot % a.groups, parts = place.slots / a.groups;
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / a.blocks);
    const int first = static_cast<int>(job % a.blocks) * width;
    T sums[kOwned][4] = {};
    for (int index = 0; index < layout.slabs(); ++index) {
      const Slab slab = layout.slab(index);
      __syncthreads();
      memory.sources.find(layout, tile, slab);
      for (int g = 0; g < b.G; ++g) {
        const int64_t row = g * K + slab.first * layout.k();
        const int i = g % (1 << layout.group);
        __syncthreads();
        if (i == 0 && b.M <= kOwned) stage_members(b, tile, g, 0, memory);
        copy<T>(
            threadIdx.x, slab.taps * width, blockDim.x,
            [&](int i) {
              const int channel = first + i % width;
              return channel < b.G ? b.weight[(row + i / width) * b.G + channel]
                                   : T(0);
            },
            [&](int i, T value) { memory.columns[i] = value; });
        make_gradients(b, tile, slab, g - i, i, memory);
        for (int tap = place.slot / a.groups; tap < slab.taps; tap += parts) {
          const T* weights = memory.columns + tap * width + group * kOwned;
          const Quad<T> x =
              quad_at(memory.matrix + tap * kTapStride + place.quad * 4);
          const Quad<T> low = quad_at(weights), high = quad_at(weights + 4);
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              sums[i][j] += low.at[i] * x.at[j];
              sums[i + 4][j] += high.at[i] * x.at[j];
            }
        }
      }
    }
    add_parts(
        sums, parts, a.groups, memory.matrix,
        [&](int channel, int pixel, T sum) {
          if (first + channel < b.G && tile.holds(pixel))
            a.grad_hidden[(tile.image * P + layout.at(tile, pixel)) * b.G +
                          first + channel] = sum;
        });
  }
}

template <typename T>
struct WeightGradients {
  Core<T> core;
  Chunks chunks;
  int64_t jobs;
  int blocks;                  // blocks of 32 channels of hidden
  T *weight_sums, *bias_sums;  // [chunks, G, K, G], [chunks, G, K]
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads, 1)
    weight_gradients(WeightGradients<T> a) {
  const Core<T>& b = a.core;
  const Layout& layout = b.layout;
  Arena arena(shared_memory());
  const GradientMemory<T> memory(b, kMostThreads / 2, kColumns * kTapStride,
                                 arena);
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  const int group = layout.group;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job % a.chunks.count, block = job / a.chunks.count;
    const int first = static_cast<int>(block % a.blocks) * kColumns;
    const Slab slab =
        layout.slab(static_cast<int>(block / a.blocks % layout.slabs()));
    const int g = static_cast<int>(block / a.blocks / layout.slabs()) << group;
    const int64_t row = g * K + slab.first * layout.k();
    const Product product(slab.taps, min(b.G - first, kColumns));
    const int tap = threadIdx.x;
    T sums[1 << kSummed<T>][4][4] = {}, bias[1 << kSummed<T>] = {};
    const int64_t end = min((chunk + 1) * a.chunks.size, a.chunks.tiles);
    for (int64_t at = chunk * a.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      memory.sources.find(layout, tile, slab);
      stage_rows<T>(layout, tile,
                    {b.hidden + tile.image * P * b.G + first, b.G},
                    product.columns, memory.columns);
      __syncthreads();
      if (b.M <= kOwned) stage_members(b, tile, g, 0, memory);
#pragma unroll
      for (int i = 0; i < 1 << kSummed<T>; ++i) {
        if (i >= 1 << group) continue;
        make_gradients(b, tile, slab, g, i, memory);
        product.add(memory.matrix, memory.columns, sums[i]);
        if (first == 0 && tap < slab.taps)
          for (int pixel = 0; pixel < kTilePixels; ++pixel)
            bias[i] += memory.matrix[tap * kTapStride + pixel];
      }
    }
#pragma unroll
    for (int i = 0; i < 1 << kSummed<T>; ++i) {
      if (i >= 1 << group) continue;
      const int64_t entry = chunk * b.G * K + row + i * K;
      if (first == 0 && tap < slab.taps) a.bias_sums[entry + tap] = bias[i];
      product.finish(sums[i], memory.matrix, [&](int tap, int column, T sum) {
        a.weight_sums[(entry + tap) * b.G + first + column] = sum;
      });
    }
  }
}

// Shared memory of each kernel.
template <typename T>
struct Bytes {
  size_t hidden, weight;

  Bytes(Core<T> core, const Layout& layout, int groups) {
    core.layout = layout;
    Arena first(nullptr), second(nullptr);
    GradientMemory<T>(core, threads_for(layout),
                      layout.rows() * groups * kOwned, first);
    GradientMemory<T>(core, kMostThreads / 2, kColumns * kTapStride, second);
    hidden = first.bytes();
    weight = second.bytes();
  }
};

Chunks chunks_of(const PatchwiseCoreForward& task) {
  const int64_t G = task.weight_channels;
  return Chunks(task.window, task.batch, G * pieces(G, kColumns));
}

template <typename T>
void run(const PatchwiseCoreBackward& task, void* stream) {
  const PatchwiseCoreForward& f = task.forward;
  const int C = static_cast<int>(f.channels);
  const int G = static_cast<int>(f.weight_channels);
  const int64_t K = f.window.taps();
  const int groups = G > kOwned ? kGroups : 1;
  Core<T> core = {layout_of(f.window),
                  C,
                  G,
                  C / G,
                  static_cast<const T*>(f.hidden),
                  static_cast<const T*>(f.weight),
                  channels_of<T>(f.value),
                  channels_of<T>(task.grad_output)};
  const auto most = [&](const Layout& layout) {
    const Bytes<T> bytes(core, layout, groups);
    return std::max(bytes.hidden, bytes.weight);
  };
  core.layout = grouped_layout(f.window, G, core.M, most, kSummed<T>);
  const Bytes<T> bytes(core, core.layout, groups);
  if (C == 0) {
    const auto zeros = [&](void* data, int64_t count) {
      launch_zeros<T>({static_cast<T*>(data), 1, count, 0}, stream);
    };
    zeros(task.grad_hidden, f.batch * G * f.window.pixels());
    zeros(task.grad_weight, G * K * G);
    return zeros(task.grad_bias, G * K);
  }
  const int blocks = static_cast<int>(pieces(G, groups * kOwned));
  const Chunks chunks = chunks_of(f);
  if (chunks.tiles > 0)
    launch(&hidden_gradients<T>,
           {blocks_for(chunks.tiles * blocks), threads_for(core.layout),
            bytes.hidden},
           stream,
           HiddenGradients<T>{core, chunks.tiles * blocks, groups, blocks,
                              static_cast<T*>(task.grad_hidden)});

  T* const weight_sums = static_cast<T*>(task.workspace);
  T* const bias_sums = weight_sums + chunks.count * G * K * G;
  const int columns = static_cast<int>(pieces(G, kColumns));
  const int64_t jobs =
      chunks.count * columns * core.layout.slabs() * (G >> core.layout.group);
  if (jobs > 0)
    launch(&weight_gradients<T>, {blocks_for(jobs), kMostThreads, bytes.weight},
           stream,
           WeightGradients<T>{core, chunks, jobs, columns, weight_sums,
                              bias_sums});
  launch_sum<T>({weight_sums, chunks.count, G * K * G, 0},
                {static_cast<T*>(task.grad_weight), 1, G * K * G, 0}, stream);
  launch_sum<T>({bias_sums, chunks.count, G * K, 0},
                {static_cast<T*>(task.grad_bias), 1, G * K, 0}, stream);
}

}  // namespace

int64_t workspace_elements(const PatchwiseCoreForward& task) {
  const int64_t G = task.weight_channels;
  return chunks_of(task).count * G * task.window.taps() * (G + 1);
}

void run_on_cuda(const PatchwiseCoreBackward& task, void* stream) {
  if (task.forward.tensor_cores) return run_on_tensor_cores(task, stream);
  launch_value_gradients(task, stream);
  task.forward.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                            : run<float>(task, stream);
}

}  // namespace san::patchwise
