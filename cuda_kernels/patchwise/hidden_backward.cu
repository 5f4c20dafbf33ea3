// The gradients of the hidden layer of the patchwise mapping on CUDA; formula
// and shape letters in patchwise.h.
//
// Idea. What a tap receives, [taps, 64] per relation channel, is a matrix
// product of depth G, zero where the forward pass rectified, which is computed
// again. phi has a kernel of its own (patchwise_centre_backward.cu).
//
// Who owns what. Two kernels. `tap_gradients`: a block owns a relation channel
// and a band of tile rows of an image; it goes tile by tile, a thread making 8
// taps of a quad and keeping their sums for scale and shift, and spreads them
// (patchwise_gradients.h). `weight_gradients`: a block owns the taps of a slab,
// 32 weight channels and a chunk of the tiles; a thread 4 x 4 of the products.
//
// Shared memory: [taps, 64] gradients or rectified taps, the halo, and 16
// channels of grad_hidden and weight at a time or 32 of grad_hidden: 26 KB each
// for k = 7 in float32. For each relation channel grad_hidden is read once
// per kernel, mostly from the second cache.
#include "cuda_kernels/patchwise/gradients.h"
#include "cuda_kernels/patchwise/tensor.h"

namespace san::patchwise {
namespace {

// Tap t of relation channel r is entry R + r * K + t of S.
template <typename T>
struct Relation {
  Layout layout;
  int R, G;
  int64_t S;
  Channels<const T> psi;
  const T *scale, *shift, *weight, *grad_hidden;
  Channels<T> grad_psi;
};

template <typename T>
struct TapGradients {
  Relation<T> relation;
  Bands bands;
  int64_t bands_now, jobs;
  int first_band;  // then every second one
  T* partials;     // [N, bands, 2, S]: scale, shift
};

template <typename T>
struct TapMemory {
  Sources sources;
  MixMemory<T> mix;
  T *matrix, *halo, *places;

  SAN_HOST_DEVICE TapMemory(const Layout& layout, Arena& arena)
      : sources(layout, arena),
        mix(layout, arena),
        matrix(arena.take<T>(layout.rows() * kTapStride)),
        halo(arena.take<T>(layout.halo())),
        places(arena.take<T>(san::patchwise::places(layout))) {}
};

// Turns gradients of rectified taps into gradients of the taps. s is the slab's
// first entry.
template <typename T>
__device__ void rectify(const Relation<T>& a, const TapMemory<T>& memory,
                        const Tile& tile, const Slab& slab, int64_t s,
                        T (&grads)[kOwned][4], AffineSums<T>& sums) {
  const Place place;
  const T* pixels = memory.halo + place.y * a.layout.stride + place.x;
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int tap = place.slot * kOwned + i;
    if (tap >= slab.taps) continue;
    const T scale = a.scale[s + tap], shift = a.shift[s + tap];
    const T* seen = pixels + memory.sources.taps[tap];
    const Quad<T> x =
        held<T>(tile, place, {seen[0], seen[1], seen[2], seen[3]});
#pragma unroll
    for (int j = 0; j < 4; ++j)
      grads[i][j] =
          rectified_gradient(x.at[j], scale, shift, grads[i][j], i, sums);
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    tap_gradients(TapGradients<T> a) {
  const Relation<T>& b = a.relation;
  const Layout& layout = b.layout;
  Arena arena(shared_memory());
  const TapMemory<T> memory(layout, arena);
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t band = a.first_band + job % a.bands_now * 2;
    const int64_t n = job / a.bands_now / b.R, r = job / a.bands_now % b.R;
    const int64_t top = n * layout.down() + band * a.bands.height;
    const int64_t end =
        n * layout.down() + min((band + 1) * a.bands.height, layout.down());
    for (int index = 0; index < layout.slabs(); ++index) {
      const Slab slab = layout.slab(index);
      const int64_t s = b.R + r * K + slab.first * layout.k();
      AffineSums<T> sums;
      for (int64_t at = top * layout.across(); at < end * layout.across();
           ++at) {
        const Tile tile = layout.tile(at);
        __syncthreads();
        memory.sources.find(layout, tile, slab);
        __syncthreads();
        stage_halos(layout, memory.sources, b.psi.from(n * P, r), 1,
                    memory.halo);
        T grads[kOwned][4] = {};
        mix(layout, tile, slab,
            {b.grad_hidden + n * b.G * P, b.weight + s, b.G, 1, b.S},
            memory.mix, grads);
        rectify(b, memory, tile, slab, s, grads, sums);
        store_taps(slab, grads, memory.matrix);
        __syncthreads();
        gather_places<false, T>(layout, tile, slab, memory.matrix, nullptr, 1,
                                memory.places, 0);
        spread(layout, tile, slab, memory.sources, memory.places, 1,
               b.grad_psi.from(n * P, r));
      }
      T* const partials = a.partials + (n * a.bands.count + band) * 2 * b.S + s;
      store_affine(sums, slab.taps, memory.matrix, partials, partials + b.S);
    }
  }
}

template <typename T>
struct WeightGradients {
  Relation<T> relation;
  Chunks chunks;
  int64_t jobs;
  int blocks;   // blocks of 32 weight channels
  T* partials;  // [chunks, G, S]
};

template <typename T>
struct WeightMemory {
  Sources sources;
  T *matrix, *halo, *columns;

  SAN_HOST_DEVICE WeightMemory(const Layout& layout, Arena& arena)
      : sources(layout, arena),
        matrix(arena.take<T>(scratch_elements(layout, kMostThreads / 2))),
        halo(arena.take<T>(layout.halo())),
        columns(arena.take<T>(kColumns * kTapStride)) {}
};

// The rectified taps of a tile.
template <typename T>
__device__ void make_taps(const Relation<T>& a, const WeightMemory<T>& memory,
                          const Tile& tile, const Slab& slab, int64_t s) {
  const Place place;
  const T* pixels = memory.halo + place.y * a.layout.stride + place.x;
  for (int tap = place.slot; tap < slab.taps; tap += place.slots) {
    const T scale = a.scale[s + tap], shift = a.shift[s + tap];
    const T* seen = pixels + memory.sources.taps[tap];
    Quad<T> x;
#pragma unroll
    for (int j = 0; j < 4; ++j) x.at[j] = relu(seen[j] * scale + shift);
    quad_at(memory.matrix + tap * kTapStride + place.quad * 4) =
        held(tile, place, x);
  }
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) > 4 ? 1 : 2)
    weight_gradients(WeightGradients<T> a) {
  const Relation<T>& b = a.relation;
  const Layout& layout = b.layout;
  Arena arena(shared_memory());
  const WeightMemory<T> memory(layout, arena);
  const int64_t P = layout.window.pixels(), K = layout.window.taps();
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job % a.chunks.count, block = job / a.chunks.count;
    const int g = static_cast<int>(block % a.blocks) * kColumns;
    const Slab slab =
        layout.slab(static_cast<int>(block / a.blocks % layout.slabs()));
    const int64_t r = block / a.blocks / layout.slabs();
    const int64_t s = b.R + r * K + slab.first * layout.k();
    const Product product(slab.taps, min(b.G - g, kColumns));
    T sums[4][4] = {};
    const int64_t end = min((chunk + 1) * a.chunks.size, a.chunks.tiles);
    for (int64_t at = chunk * a.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      memory.sources.find(layout, tile, slab);
      stage_rows<T>(layout, tile,
                    {b.grad_hidden + tile.image * P * b.G + g, b.G},
                    product.columns, memory.columns);
      __syncthreads();
      stage_halos(layout, memory.sources, b.psi.from(tile.image * P, r), 1,
                  memory.halo);
      __syncthreads();
      make_taps(b, memory, tile, slab, s);
      __syncthreads();
      product.add(memory.matrix, memory.columns, sums);
    }
    product.finish(sums, memory.matrix, [&](int tap, int column, T sum) {
      a.partials[(chunk * b.G + g + column) * b.S + s + tap] = sum;
    });
  }
}

// One launch for every second band, so that no two blocks meet.
template <typename T>
void launch_tap_gradients(const Relation<T>& relation, const Bands& bands,
                          int64_t batch, T* partials, void* stream) {
  Arena arena(nullptr);
  TapMemory<T>(relation.layout, arena);
  for (int first = 0; first < 2; ++first) {
    const int64_t bands_now = (bands.count + 1 - first) / 2;
    const int64_t jobs = batch * relation.R * bands_now;
    if (jobs > 0)
      launch(
          &tap_gradients<T>,
          {blocks_for(jobs), threads_for(relation.layout), arena.bytes()},
          stream,
          TapGradients<T>{relation, bands, bands_now, jobs, first, partials});
  }
}

template <typename T>
void launch_weight_gradients(const Relation<T>& relation, const Chunks& chunks,
                             T* partials, void* stream) {
  Arena arena(nullptr);
  WeightMemory<T>(relation.layout, arena);
  const int blocks = static_cast<int>(pieces(relation.G, kColumns));
  const int64_t jobs =
      chunks.count * blocks * relation.layout.slabs() * relation.R;
  if (jobs > 0)
    launch(&weight_gradients<T>,
           {blocks_for(jobs), kMostThreads, arena.bytes()}, stream,
           WeightGradients<T>{relation, chunks, jobs, blocks, partials});
}

Bands bands_of(const PatchwiseHiddenForward& task) {
  return Bands(task.window, task.batch * task.relation_channels);
}

Chunks chunks_of(const PatchwiseHiddenForward& task) {
  return Chunks(
      task.window, task.batch,
      task.relation_channels * pieces(task.weight_channels, kColumns));
}

template <typename T>
void run(const PatchwiseHiddenBackward& task, void* stream) {
  const PatchwiseHiddenForward& f = task.forward;
  const int R = static_cast<int>(f.relation_channels);
  const int G = static_cast<int>(f.weight_channels);
  const int64_t S = R * (f.window.taps() + 1);
  const Bands bands = bands_of(f);
  const Chunks chunks = chunks_of(f);
  const auto layout = fitting_layout(f.window, [](const Layout& layout) {
    Arena taps(nullptr), weights(nullptr);
    TapMemory<T>(layout, taps);
    WeightMemory<T>(layout, weights);
    return std::max(taps.bytes(), weights.bytes());
  });
  const Relation<T> relation = {layout,
                                R,
                                G,
                                S,
                                channels_of<T>(f.psi),
                                static_cast<const T*>(f.scale),
                                static_cast<const T*>(f.shift),
                                static_cast<const T*>(f.weight),
                                static_cast<const T*>(task.grad_hidden),
                                channels_of<T>(task.grad_psi)};
  const int64_t parts = f.batch * bands.count;
  T* const affine = static_cast<T*>(task.workspace);
  T* const weight = affine + parts * 2 * S;
  launch_centre_gradients(task, weight + chunks.count * G * S, stream);
  launch_zeros<T>({relation.grad_psi.data, f.batch * f.window.pixels(), R,
                   relation.grad_psi.pitch},
                  stream);
  launch_tap_gradients(relation, bands, f.batch, affine, stream);
  launch_weight_gradients(relation, chunks, weight, stream);
  // Without the first R entries, which are those of phi.
  const auto sum = [&](const T* partials, int64_t count, int64_t step,
                       void* sums, int64_t rows) {
    launch_sum<T>({partials + R, count, step, S},
                  {static_cast<T*>(sums) + R, rows, S - R, S}, stream);
  };
  sum(affine, parts, 2 * S, task.grad_scale, 1);
  sum(affine + S, parts, 2 * S, task.grad_shift, 1);
  sum(weight, chunks.count, G * S, task.grad_weight, G);
}

}  // namespace

int64_t workspace_elements(const PatchwiseHiddenForward& task) {
  const int64_t S = task.relation_channels * (task.window.taps() + 1);
  return (task.batch * bands_of(task).count * 2 +
          chunks_of(task).count * task.weight_channels) *
             S +
         centre_workspace(task);
}

void run_on_cuda(const PatchwiseHiddenBackward& task, void* stream) {
  if (task.forward.tensor_cores) return run_on_tensor_cores(task, stream);
  task.forward.type == ScalarType::kFloat64 ? run<double>(task, stream)
                                            : run<float>(task, stream);
}

}  // namespace san::patchwise
