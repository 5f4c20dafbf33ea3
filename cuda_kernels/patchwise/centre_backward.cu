// What phi adds to the gradients of the hidden layer of the patchwise mapping
// on CUDA; formula and shape letters in patchwise.h.
//
// Idea. phi shows one pixel per relation channel: its channels take the part
// that taps have for psi, and no gradient leaves its pixel.
//
// Who owns what. A block: 64 relation channels, 32 weight channels and a chunk
// of the tiles. A thread: 8 relation channels of a quad for grad_phi and the
// sums of scale and shift, where the weight channels are the first, and 4 x 4
// products of rectified phi and grad_hidden. Blocks leave partial sums, which a
// second kernel adds in a fixed order.
//
// Shared memory: [64, 64] of phi, [32, 64] of grad_hidden, and 16 channels of
// grad_hidden and weight at a time: 34 KB in float32. phi is read once for each
// 32 weight channels, grad_hidden twice for each 64 relation channels.
#include "cuda_kernels/patchwise/gradients.h"

namespace san::patchwise {
namespace {

constexpr int kRows = 64;
constexpr int kThreads = kRows / kOwned * kQuads;

template <typename T>
struct CentreGradients {
  Layout layout;  // of tiles, with kRows channels as the taps of a slab
  Chunks chunks;
  int64_t jobs;
  int R, G, row_blocks, blocks;  // of 64 relation and 32 weight channels
  int64_t S;
  Channels<const T> phi;
  const T *scale, *shift, *weight, *grad_hidden;
  Channels<T> grad_phi;
  T *affine, *weights;  // [chunks, 2, R], [chunks, G, R]
};

template <typename T>
struct CentreMemory {
  MixMemory<T> mix;
  T *matrix, *columns;

  SAN_HOST_DEVICE CentreMemory(const Layout& layout, Arena& arena)
      : mix(layout, arena),
        matrix(arena.take<T>(kRows * kTapStride)),
        columns(arena.take<T>(kColumns * kTapStride)) {}
};

// grad_phi of a tile; `matrix` holds phi.
template <typename T>
__device__ void centre_pixels(const CentreGradients<T>& a, const Tile& tile,
                              const Slab& slab, int r,
                              const CentreMemory<T>& memory,
                              AffineSums<T>& sums) {
  const Place place;
  const int64_t P = a.layout.window.pixels();
  T grads[kOwned][4] = {};
  mix(a.layout, tile, slab,
      {a.grad_hidden + tile.image * a.G * P, a.weight + r, a.G, 1, a.S},
      memory.mix, grads);
  const int64_t at = tile.image * P + a.layout.at(tile, place.quad * 4);
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int row = place.slot * kOwned + i;
    if (row >= slab.taps) continue;
    const Quad<T> x =
        quad_at(memory.matrix + row * kTapStride + place.quad * 4);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const T grad = rectified_gradient(x.at[j], a.scale[r + row],
                                        a.shift[r + row], grads[i][j], i, sums);
      if (tile.holds(place.quad * 4 + j)) a.grad_phi.at(at + j, r + row) = grad;
    }
  }
}

// Scales, shifts and rectifies phi where it lies.
template <typename T>
__device__ void rectify_centre(const CentreGradients<T>& a, int rows, int r,
                               T* matrix) {
  const Place place;
  for (int row = place.slot; row < rows; row += place.slots) {
    Quad<T>& x = quad_at(matrix + row * kTapStride + place.quad * 4);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      x.at[j] = relu(x.at[j] * a.scale[r + row] + a.shift[r + row]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, sizeof(T) > 4 ? 2 : 4)
    centre_gradients(CentreGradients<T> a) {
  const Layout& layout = a.layout;
  Arena arena(shared_memory());
  const CentreMemory<T> memory(layout, arena);
  const int64_t P = layout.window.pixels();
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job % a.chunks.count, block = job / a.chunks.count;
    const int g = static_cast<int>(block % a.blocks) * kColumns;
    const int r = static_cast<int>(block / a.blocks) * kRows;
    const int rows = min(a.R - r, kRows);
    const Slab slab = {0, 1, rows};
    const Product product(rows, min(a.G - g, kColumns));
    T products[4][4] = {};
    AffineSums<T> sums;
    const int64_t end = min((chunk + 1) * a.chunks.size, a.chunks.tiles);
    for (int64_t at = chunk * a.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      stage_rows(layout, tile, a.phi.from(tile.image * P, r), rows,
                 memory.matrix);
      stage_rows<T>(layout, tile,
                    {a.grad_hidden + tile.image * P * a.G + g, a.G},
                    product.columns, memory.columns);
      if (g == 0) centre_pixels(a, tile, slab, r, memory, sums);
      __syncthreads();
      rectify_centre(a, rows, r, memory.matrix);
      __syncthreads();
      product.add(memory.matrix, memory.columns, products);
    }
    T* const affine = a.affine + chunk * 2 * a.R + r;
    if (g == 0) store_affine(sums, rows, memory.matrix, affine, affine + a.R);
    product.finish(products, memory.matrix, [&](int row, int column, T sum) {
      a.weights[(chunk * a.G + g + column) * a.R + r + row] = sum;
    });
  }
}

Chunks chunks_of(const PatchwiseHiddenForward& task) {
  return Chunks(task.window, task.batch,
                pieces(task.relation_channels, kRows) *
                    pieces(task.weight_channels, kColumns));
}

template <typename T>
void run(const PatchwiseHiddenBackward& task, T* workspace, void* stream) {
  const PatchwiseHiddenForward& f = task.forward;
  const int R = static_cast<int>(f.relation_channels);
  const int G = static_cast<int>(f.weight_channels);
  const int64_t S = R * (f.window.taps() + 1);
  Window window = f.window;
  window.rows.taps = window.columns.taps = kRows;
  const Layout layout = {window, 1, 0};
  const Chunks chunks = chunks_of(f);
  const int row_blocks = static_cast<int>(pieces(R, kRows));
  const int blocks = static_cast<int>(pieces(G, kColumns));
  const int64_t jobs = chunks.count * row_blocks * blocks;
  T* const affine = workspace;
  T* const weights = affine + chunks.count * 2 * R;
  Arena arena(nullptr);
  CentreMemory<T>(layout, arena);
  if (jobs > 0)
    launch(&centre_gradients<T>, {blocks_for(jobs), kThreads, arena.bytes()},
           stream,
           CentreGradients<T>{
               layout, chunks, jobs, R, G, row_blocks, blocks, S,
               channels_of<T>(f.phi), static_cast<const T*>(f.scale),
               static_cast<const T*>(f.shift), static_cast<const T*>(f.weight),
               static_cast<const T*>(task.grad_hidden),
               channels_of<T>(task.grad_phi), affine, weights});
  launch_sum<T>({affine, chunks.count, 2 * R, 0},
                {static_cast<T*>(task.grad_scale), 1, R, 0}, stream);
  launch_sum<T>({affine + R, chunks.count, 2 * R, 0},
                {static_cast<T*>(task.grad_shift), 1, R, 0}, stream);
  launch_sum<T>({weights, chunks.count, G * R, R},
                {static_cast<T*>(task.grad_weight), G, R, S}, stream);
}

}  // namespace

int64_t centre_workspace(const PatchwiseHiddenForward& task) {
  return chunks_of(task).count * task.relation_channels *
         (2 + task.weight_channels);
}

void launch_centre_gradients(const PatchwiseHiddenBackward& task,
                             void* workspace, void* stream) {
  task.forward.type == ScalarType::kFloat64
      ? run(task, static_cast<double*>(workspace), stream)
      : run(task, static_cast<float*>(workspace), stream);
}

}  // namespace san::patchwise
