// The hidden layer of the patchwise mapping by tensor cores; formula and shape
// letters in tasks.h.
//
// Idea. A matrix product with G columns, P rows and depth S whose left side is
// made in registers: a lane loads four channels of the pixels that a tap shows
// it, scales, shifts and rectifies them in float32, and has with that what it
// multiplies. phi is one tap more, of a halo of its own.
//
// Who owns what. A block: a tile of 64 pixels and up to 32 weight channels. A
// warp: 16 of the pixels, and of the taps all, every second or every fourth;
// the parts of each sum are added in a fixed order.
//
// Shared memory: of 64 relation channels at a time the halo of psi and the tile
// of phi: 41 KB for k = 7 in half types. A first kernel writes weights, scales
// and shifts to the workspace in the order in which lanes read them.
#include "cuda_kernels/patchwise/tensor.h"
#include "cuda_kernels/patchwise/tensor_tile.h"

namespace san::patchwise {
namespace {

// Blocks of 16 relation channels in shared memory at a time, at most.
constexpr int kMostBlocksAtOnce = 4;

// Scale and shift of a lane's four channels.
struct alignas(16) Affine {
  float scale[4], shift[4];
};

// Parameters in the order of their use. Entry e is tap e, or phi: e = K.
template <typename T>
struct HiddenParameters {
  int R, G, K;
  int blocks, tiles;  // of 16 relation channels, of 8 weight channels
  size_t bytes;
  Right<T>* weights;  // [K + 1, blocks, tiles, lanes]
  Affine* affine;     // [K + 1, blocks, members]

  explicit HiddenParameters(const PatchwiseHiddenForward& task)
      : R(static_cast<int>(task.relation_channels)),
        G(static_cast<int>(task.weight_channels)),
        K(static_cast<int>(task.window.taps())),
        blocks(static_cast<int>(pieces(R, kDeep))),
        tiles(static_cast<int>(pieces(G, kWide * together()) * together())) {
    Arena arena(aligned(task.workspace));
    weights = arena.take<Right<T>>(fragments() * 32);
    affine = arena.take<Affine>(affines());
    bytes = arena.bytes();
  }

  // Tiles of weight channels in a block.
  SAN_HOST_DEVICE int together() const { return G > 16 ? 4 : G > 8 ? 2 : 1; }
  SAN_HOST_DEVICE int64_t fragments() const {
    return int64_t{K + 1} * blocks * tiles;
  }
  SAN_HOST_DEVICE int64_t affines() const {
    return int64_t{K + 1} * blocks * 4;
  }
  // Where channel r of an entry is among all S.
  SAN_HOST_DEVICE int64_t entry(int e, int r) const {
    return e == K ? r : R + int64_t{r} * K + e;
  }
};

template <typename T>
struct PackHidden {
  HiddenParameters<T> to;
  const float *scale, *shift, *weight;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads) pack_hidden(PackHidden<T> a) {
  const HiddenParameters<T>& p = a.to;
  const int64_t S = p.R * int64_t{p.K + 1};
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = first; i < p.fragments() * 32; i += stride) {
    const int lane = static_cast<int>(i % 32);
    const int64_t fragment = i / 32;
    const int g = static_cast<int>(fragment % p.tiles) * kWide + lane / 4;
    const int64_t block = fragment / p.tiles;
    const int e = static_cast<int>(block / p.blocks);
    const int r = static_cast<int>(block % p.blocks) * kDeep + lane % 4 * 4;
    float values[4];
    for (int j = 0; j < 4; ++j)
      values[j] =
          g < p.G && r + j < p.R ? a.weight[g * S + p.entry(e, r + j)] : 0;
    p.weights[i] = right_of<T>(values);
  }
  for (int64_t i = first; i < p.affines(); i += stride) {
    const int64_t block = i / 4;
    const int e = static_cast<int>(block / p.blocks);
    const int r = static_cast<int>(block % p.blocks) * kDeep + i % 4 * 4;
    Affine affine;
    for (int j = 0; j < 4; ++j) {
      const bool exists = r + j < p.R;
      affine.scale[j] = exists ? a.scale[p.entry(e, r + j)] : 0;
      affine.shift[j] = exists ? a.shift[p.entry(e, r + j)] : 0;
    }
    p.affine[i] = affine;
  }
}

template <typename T>
struct HiddenForward {
  TensorLayout layout;
  HiddenParameters<T> parameters;
  int64_t jobs;
  int columns;  // blocks of weight channels
  int parts;    // of the taps
  int blocks;   // of 16 relation channels at a time
  Image<const T> phi, psi;
  Runs<T> phi_runs, psi_runs;
  float* hidden;
};

template <typename T>
struct HiddenMemory {
  Sources sources;
  int pitch;
  T *halo, *centre;

  // An odd number of blocks from pixel to pixel: what eight lanes read, of two
  // or four pixels, lies in different banks.
  SAN_HOST_DEVICE HiddenMemory(const Layout& layout, int blocks, Arena& arena)
      : sources(layout, arena),
        pitch((blocks | 1) * kDeep),
        halo(arena.take<T>(layout.halo() * pitch)),
        centre(arena.take<T>(kTilePixels * pitch)) {}

  static size_t bytes(const Layout& layout, int blocks, int tiles, int parts) {
    Arena arena(nullptr);
    HiddenMemory(layout, blocks, arena);
    return std::max(arena.bytes(), warp_sums_bytes(tiles * 4, parts));
  }
};

// A lane's parameters of some entry, and its way to those of others.
template <typename T>
struct Reader {
  const Affine* affine;
  const Right<T>* weights;
  int affine_step, weights_step;  // from entry to entry
  int tiles;

  __device__ Reader(const HiddenParameters<T>& p, int e, int block, int tile)
      : affine(p.affine + (int64_t{e} * p.blocks + block) * 4 + lane() % 4),
        weights(p.weights +
                ((int64_t{e} * p.blocks + block) * p.tiles + tile) * 32 +
                lane()),
        affine_step(p.blocks * 4),
        weights_step(p.blocks * p.tiles * 32),
        tiles(p.tiles) {}

  __device__ void skip(int entries) {
    affine += entries * affine_step;
    weights += entries * weights_step;
  }

  // Adds what blocks of 16 channels of the entry give; `from` is the lane's
  // first pixel, the other one `step` elements from it.
  template <int kTiles>
  __device__ void add(int blocks, const T* from, int step,
                      float (&sums)[kTiles][4]) const {
#pragma unroll 1
    for (int b = 0; b < blocks; ++b) {
      const Affine by = affine[b * 4];
      float values[2][4];
      load(from + b * kDeep, values[0]);
      load(from + b * kDeep + step, values[1]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        values[0][j] = values[0][j] * by.scale[j] + by.shift[j];
        values[1][j] = values[1][j] * by.scale[j] + by.shift[j];
      }
      const Left<T> left = left_of<T, true>(values);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const Right<T> right = weights[(b * tiles + tile) * 32];
        multiply(sums[tile], left, right);
      }
    }
  }
};

template <int kTiles, typename T>
__global__ void __launch_bounds__(kTileThreads* kMostParts, 1)
    tensor_hidden_forward(HiddenForward<T> a) {
  const TensorLayout& layout = a.layout;
  const HiddenParameters<T>& p = a.parameters;
  Arena arena(shared_memory());
  const HiddenMemory<T> memory(layout, a.blocks, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int part = warp / kTileWarps, member = lane() % 4;
  const int side = layout.stride;
  const LanePixels pixels(warp % kTileWarps);
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / a.columns);
    const int column = static_cast<int>(job % a.columns) * kTiles;
    const int64_t image = tile.image * layout.window.pixels();
    float sums[kTiles][4] = {};
    __syncthreads();
    memory.sources.find(layout, tile, layout.slab(0));
    for (int first = 0; first < p.blocks; first += a.blocks) {
      const int blocks = min(p.blocks - first, a.blocks);
      const int valid = min(p.R - first * kDeep, blocks * kDeep);
      __syncthreads();
      stage_halo(layout, memory.sources, tile, a.psi, first * kDeep, a.psi_runs,
                 valid, memory.halo, memory.pitch);
      stage_pixels(kTilePixels, a.phi_runs, valid, a.phi, memory.centre,
                   memory.pitch, [&](int pixel) {
                     return tile.holds(pixel)
                                ? a.phi.at(image + layout.at(tile, pixel)) +
                                      first * kDeep
                                : nullptr;
                   });
      wait_copies<0>();
      __syncthreads();
      Reader<T> reader(p, part, first, column);
      const T* const from = memory.halo +
                            (pixels.y * side + pixels.x) * memory.pitch +
                            member * 4;
      for (int e = part; e < p.K; e += a.parts) {
        reader.add(blocks, from + memory.sources.taps[e] * memory.pitch,
                   side * memory.pitch, sums);
        reader.skip(a.parts);
      }
      if (p.K % a.parts == part)
        reader.add(blocks,
                   memory.centre +
                       (pixels.y * kSide + pixels.x) * memory.pitch +
                       member * 4,
                   kSide * memory.pitch, sums);
    }
    add_warps(a.parts, reinterpret_cast<float*>(shared_memory()), sums);
    if (part > 0) continue;
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i) {
      const int g = (column + i / 4) * kWide + member * 2 + i % 2;
      if (pixels.exists(tile, i % 4 / 2) && g < p.G)
        a.hidden[pixels.in_batch(layout, tile, i % 4 / 2) * p.G + g] =
            sums[i / 4][i % 4];
    }
  }
}

// The most relation channels at a time for which shared memory is enough; 0 if
// it is for none.
template <typename T>
int blocks_at_once(const TensorLayout& layout, const HiddenParameters<T>& p,
                   int parts) {
  const size_t most = most_shared_bytes();
  for (int blocks = std::min(p.blocks, kMostBlocksAtOnce); blocks > 0; --blocks)
    if (HiddenMemory<T>::bytes(layout, blocks, p.together(), parts) <= most)
      return blocks;
  return 0;
}

template <typename T>
void run(const PatchwiseHiddenForward& task, void* stream) {
  const TensorLayout layout(task.window);
  const HiddenParameters<T> p(task);
  const int columns = p.tiles / p.together();
  const int64_t jobs = task.batch * layout.down() * layout.across() * columns;
  if (jobs == 0) return;
  launch(&pack_hidden<T>,
         {blocks_for(pieces(p.fragments() * 32, kMostThreads)), kMostThreads},
         stream,
         PackHidden<T>{p, static_cast<const float*>(task.scale),
                       static_cast<const float*>(task.shift),
                       static_cast<const float*>(task.weight)});
  const int parts = parts_for(jobs, p.K + 1);
  const int blocks = blocks_at_once(layout, p, parts);
  const Image<const T> phi(task.phi), psi(task.psi);
  const auto runs = [&](const Image<const T>& image) {
    return Runs<T>(image, p.R, 1, 0, blocks * kDeep);
  };
  const HiddenForward<T> arguments = {layout,
                                      p,
                                      jobs,
                                      columns,
                                      parts,
                                      blocks,
                                      phi,
                                      psi,
                                      runs(phi),
                                      runs(psi),
                                      static_cast<float*>(task.hidden)};
  const LaunchShape shape = {
      blocks_for(jobs), static_cast<unsigned>(kTileThreads * parts),
      HiddenMemory<T>::bytes(layout, blocks, p.together(), parts)};
  const auto kernel = p.together() == 1   ? &tensor_hidden_forward<1, T>
                      : p.together() == 2 ? &tensor_hidden_forward<2, T>
                                          : &tensor_hidden_forward<4, T>;
  launch(kernel, shape, stream, arguments);
}

}  // namespace

int64_t tensor_workspace(const PatchwiseHiddenForward& task) {
  int64_t bytes = -1;
  with_tensor_type(task, [&](auto zero) {
    const HiddenParameters<decltype(zero)> p(task);
    if (blocks_at_once(TensorLayout(task.window), p, kMostParts) > 0)
      bytes = p.bytes + kBoundary;
  });
  return bytes;
}

void run_on_tensor_cores(const PatchwiseHiddenForward& task, void* stream) {
  with_tensor_type(task, [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace san::patchwise
