// The gradients of phi, psi and the parameters of the relation's normalisation
// by tensor cores; formula and shape letters in tasks.h.
//
// Idea. A tap rectifies each pixel of psi by parameters of its own, whoever it
// shows it to: of what those pixels receive only the sum matters. So a lane
// keeps its pixels of psi and of their gradients in registers, and for each tap
// tensor cores multiply the weights, [16 relation channels, G], with
// grad_hidden of the pixels that are shown them, images in a mirror included.
//
// Who owns what. A block: up to 32 relation channels and a chunk of the tiles,
// one by one. A warp: 16 channels of half a tile, or, where there are no more,
// every second tap of them. Blocks leave partial sums of scale and shift, which
// a second kernel adds in a fixed order.
//
// Shared memory: grad_hidden around a tile, and the sums of scale and shift: 20
// KB for k = 7 and G = 8 in half types, 47 KB for G = 64.
#include "cuda_kernels/patchwise/tensor_relation.h"

namespace san::patchwise {
namespace {

constexpr int kRows = 4;  // of a tile, that a warp has
constexpr int kHalves = kSide / kRows;
constexpr int kShares = 2;  // blocks of channels, or parts of the taps
constexpr int kThreads = kHalves * kShares * 32;

template <typename T>
struct RelationGradients {
  TensorLayout layout;
  RelationParameters<T> parameters;
  Chunks chunks;
  int64_t jobs;
  int columns;  // blocks of relation channels
  int row_images, column_images;
  Divisor<uint32_t> fours;  // of grad_hidden's channels
  Image<const T> phi, psi;
  const float* grad_hidden;
  Image<T> grad_phi, grad_psi;
  float* sums;  // [chunks, 2, S]: scale, shift
};

template <typename T>
struct RelationMemory {
  Images images;
  int pitch;
  T* readers;
  float* sums;     // [halves, K + 1, blocks, 16, 2]
  float* scratch;  // what the parts of the taps add up

  SAN_HOST_DEVICE RelationMemory(const Layout& layout, int row_images,
                                 int column_images, int depth, int blocks,
                                 Arena& arena)
      : images(layout.window, row_images, column_images, arena),
        pitch((depth | 1) * kDeep),
        readers(
            arena.take<T>((layout.stride + 1) * (layout.stride + 1) * pitch)),
        sums(arena.take<float>(kHalves * (layout.taps() + 1) * blocks * kDeep *
                               2)),
        scratch(arena.take<float>(kHalves * 32 * kRows * 4)) {}
};

// Pixels of a warp: element i of row y is at x = 2 * member + i % 2, of the
// channel at group + i / 2 * 8. Of 8 channels or less there are two of them.
template <int kHeld>
using Held = float[kRows][kHeld];

// Calls f(element of the image, y, i) for those elements of a warp that exist;
// `r` is the lane's first channel.
template <int kHeld, typename V, typename F>
__device__ void for_each_held(const Layout& layout, const Tile& tile, int top,
                              int r, int R, const Image<V>& image, F f) {
  const int64_t W = layout.window.columns.size;
  const int x = lane() % 4 * 2;
  V* row = image.at(tile.image * layout.window.pixels() + (tile.y + top) * W +
                    tile.x + x) +
           r;
#pragma unroll
  for (int y = 0; y < kRows; ++y, row += W * image.pitch)
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (top + y < tile.height && x + i % 2 < tile.width && r + i / 2 * 8 < R)
        f(row[i % 2 * image.pitch + i / 2 * 8], y, i);
}

// Adds up over the lanes of a group four sums of each; the lane of member m has
// the m-th then.
__device__ float add_members(const float (&sums)[4]) {
  const int member = lane() % 4;
  const bool high = member & 2, odd = member & 1;
  float low[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    low[i] = (high ? sums[2 + i] : sums[i]) +
             shuffle_xor(high ? sums[i] : sums[2 + i], 2);
  return (odd ? low[1] : low[0]) + shuffle_xor(odd ? low[0] : low[1], 1);
}

// Adds to `products`, [16 channels, 8 pixels] for each row, what the pixels
// that a tap shows give: `weights` are the tap's, `readers` the lane's.
template <typename T>
__device__ void add_readers(const Left<T>* weights, int depth, const T* readers,
                            const int* rows, int column, Held<4>& products) {
#pragma unroll 1  // registers are scarce
  for (int d = 0; d < depth; ++d) {
    const Left<T> left = weights[d * 32];
#pragma unroll
    for (int y = 0; y < kRows; ++y) {
      const Right<T> right = right_at(readers + rows[y] + column + d * kDeep);
      multiply(products[y], left, right);
    }
  }
}

// What an entry gives to the gradients of the pixels x. Returns the lane's part
// of the gradients of scale and shift: of [group + member / 2 * 8], the first
// of an even member.
template <int kHeld>
__device__ float rectify(const Held<kHeld>& x, const Held<4>& products,
                         const float (&scale)[2], const float (&shift)[2],
                         Held<kHeld>& grads) {
  float sums[4] = {};
#pragma unroll
  for (int y = 0; y < kRows; ++y)
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const float grad =
          relu_gradient(x[y][i] * scale[i / 2] + shift[i / 2], products[y][i]);
      sums[i / 2 * 2] += grad * x[y][i];
      sums[i / 2 * 2 + 1] += grad;
      grads[y][i] += grad * scale[i / 2];
    }
  return add_members(sums);
}

template <int kHeld, typename T>
__global__ void __launch_bounds__(kThreads, 3)
    tensor_relation_gradients(RelationGradients<T> a) {
  const TensorLayout& layout = a.layout;
  const RelationParameters<T>& p = a.parameters;
  Arena arena(shared_memory());
  const int blocks = min(p.blocks, kShares), parts = kShares / blocks;
  const RelationMemory<T> memory(layout, a.row_images, a.column_images, p.depth,
                                 blocks, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int half = warp % kHalves, share = warp / kHalves;
  const int own = share % blocks, part = share / blocks;
  const int k = layout.k(), group = lane() / 4, member = lane() % 4;
  const int count = (p.K + 1) * blocks * kDeep * 2;
  // The lane's place for an entry's gradient of scale or shift.
  float* const lane_sums = memory.sums + half * count +
                           (own * kDeep + group + member / 2 * 8) * 2 +
                           member % 2;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job / a.columns;
    const int first = static_cast<int>(job % a.columns) * blocks;
    const int block = first + own, r = block * kDeep + group;
    const bool exists = block < p.blocks;
    __syncthreads();
    for (int i = threadIdx.x; i < count * kHalves; i += kThreads)
      memory.sums[i] = 0;
    const int64_t end = min((chunk + 1) * a.chunks.size, a.chunks.tiles);
    for (int64_t at = chunk * a.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      memory.images.find(layout, tile, memory.pitch);
      stage_around(layout, tile, a.grad_hidden, p.G, p.G, a.fours,
                   memory.readers, memory.pitch);
      __syncthreads();
      const T* const readers = memory.readers + member * 4;
#pragma unroll 1  // psi, then phi: one text for both
      for (int centre = 0; centre < 2; ++centre) {
        const Image<const T>& image = centre ? a.phi : a.psi;
        Held<kHeld> x = {}, grads = {};
        if (exists)
          for_each_held<kHeld>(
              layout, tile, half * kRows, r, p.R, image,
              [&](const T& from, int y, int i) { x[y][i] = wide(from); });
        // phi is shown once, by what would be the tap in the middle.
        const int begin = centre ? p.K : part;
        int kh = centre ? k / 2 : 0, kw = centre ? k / 2 : part;
        const int end =
            exists && (!centre || part == parts - 1) ? p.K + centre : begin;
#pragma unroll 1
        for (int e = begin; e < end; e += parts) {
          for (; kw >= k; kw -= k) ++kh;
          const int index = e * p.blocks + block;
          const Left<T>* const weights =
              p.left + int64_t{index} * p.depth * 32 + lane();
          Held<4> products = {};
          memory.images.for_each(
              kh, kw, centre, [&](const int* rows, const int* columns) {
                add_readers(weights, p.depth, readers, rows + half * kRows,
                            columns[group], products);
              });
          const float* const affine = p.affine + (index * kDeep + group) * 2;
          float low[2], high[2];
          load(affine, low);
          load(affine + 16, high);
          lane_sums[e * blocks * kDeep * 2] += rectify<kHeld>(
              x, products, {low[0], high[0]}, {low[1], high[1]}, grads);
          kw += parts;
        }
        if (parts > 1 && !centre) {
          float* const scratch = memory.scratch + half * 32 + lane();
#pragma unroll
          for (int i = 0; i < kRows * kHeld; ++i)
            if (part > 0)
              scratch[i * kHalves * 32] = grads[i / kHeld][i % kHeld];
          __syncthreads();
          if (part == 0)
#pragma unroll
            for (int i = 0; i < kRows * kHeld; ++i)
              grads[i / kHeld][i % kHeld] += scratch[i * kHalves * 32];
        }
        if (exists && part == (centre ? parts - 1 : 0))
          for_each_held<kHeld>(
              layout, tile, half * kRows, r, p.R,
              centre ? a.grad_phi : a.grad_psi,
              [&](T& to, int y, int i) { to = rounded<T>(grads[y][i]); });
      }
    }
    __syncthreads();
    const int64_t S = p.S();
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const int channel = first * kDeep + i / 2 % (blocks * kDeep);
      if (channel < p.R)
        a.sums[(chunk * 2 + i % 2) * S +
               p.at(i / 2 / (blocks * kDeep), channel)] =
            memory.sums[i] + memory.sums[count + i];
    }
  }
}

struct RelationPlan {
  TensorLayout layout;
  int row_images, column_images, blocks, columns;
  Chunks chunks;

  explicit RelationPlan(const PatchwiseHiddenForward& task)
      : layout(task.window),
        row_images(most_images(task.window.rows)),
        column_images(most_images(task.window.columns)),
        blocks(std::min(Entries(task).blocks, kShares)),
        columns(static_cast<int>(pieces(Entries(task).blocks, blocks))),
        chunks(task.window, task.batch, columns) {}

  template <typename T>
  size_t shared_bytes(const Entries& entries) const {
    Arena arena(nullptr);
    RelationMemory<T>(layout, row_images, column_images, entries.depth, blocks,
                      arena);
    return arena.bytes();
  }
};

// What the backward pass keeps in its workspace.
template <typename T>
struct BackwardWorkspace {
  RelationPlan plan;
  HiddenWeightPlan weight_plan;
  Arena arena;
  RelationParameters<T> parameters;
  float* sums;     // [chunks, 2, S]
  float* weights;  // [parts, G, S]

  BackwardWorkspace(const PatchwiseHiddenForward& task, void* workspace)
      : plan(task),
        weight_plan(task),
        arena(aligned(workspace)),
        parameters(task, arena),
        sums(arena.take<float>(plan.chunks.count * 2 * parameters.S())),
        weights(arena.take<float>(weight_plan.parts() * parameters.G *
                                  parameters.S())) {}
};

template <typename T>
void run(const PatchwiseHiddenBackward& task, void* stream) {
  const PatchwiseHiddenForward& f = task.forward;
  const BackwardWorkspace<T> w(f, task.workspace);
  const RelationParameters<T>& p = w.parameters;
  const auto* const grad_hidden = static_cast<const float*>(task.grad_hidden);
  launch(&pack_relation<T>,
         {blocks_for(pieces(p.fragments() * 32, kMostThreads)), kMostThreads},
         stream,
         PackRelation<T>{p, static_cast<const float*>(f.scale),
                         static_cast<const float*>(f.shift),
                         static_cast<const float*>(f.weight)});
  const int64_t jobs = w.plan.chunks.count * w.plan.columns;
  if (jobs > 0) {
    launch(p.R > 8 ? &tensor_relation_gradients<4, T>
                   : &tensor_relation_gradients<2, T>,
           {blocks_for(jobs), kThreads, w.plan.template shared_bytes<T>(p)},
           stream,
           RelationGradients<T>{
               w.plan.layout, p, w.plan.chunks, jobs, w.plan.columns,
               w.plan.row_images, w.plan.column_images,
               Divisor<uint32_t>(p.depth * kDeep / 4), Image<const T>(f.phi),
               Image<const T>(f.psi), grad_hidden, Image<T>(task.grad_phi),
               Image<T>(task.grad_psi), w.sums});
    launch_hidden_weights<T>(f, p.affine, grad_hidden, w.weights, stream);
  }
  const int64_t S = p.S();
  const int64_t parts = w.plan.chunks.count;
  launch_sum<float>({w.sums, parts, 2 * S, 0},
                    {static_cast<float*>(task.grad_scale), 1, S, 0}, stream);
  launch_sum<float>({w.sums + S, parts, 2 * S, 0},
                    {static_cast<float*>(task.grad_shift), 1, S, 0}, stream);
  launch_sum<float>({w.weights, w.weight_plan.parts(), p.G * S, 0},
                    {static_cast<float*>(task.grad_weight), 1, p.G * S, 0},
                    stream);
}

}  // namespace

int64_t tensor_workspace(const PatchwiseHiddenBackward& task) {
  int64_t bytes = -1;
  const PatchwiseHiddenForward& f = task.forward;
  with_tensor_type(f, [&](auto zero) {
    using T = decltype(zero);
    const size_t shared =
        std::max(RelationPlan(f).template shared_bytes<T>(Entries(f)),
                 hidden_weight_bytes<T>(f));
    if (shared <= most_shared_bytes() && can_tell_images(f.window))
      bytes = BackwardWorkspace<T>(f, nullptr).arena.bytes() + kBoundary;
  });
  return bytes;
}

void run_on_tensor_cores(const PatchwiseHiddenBackward& task, void* stream) {
  with_tensor_type(task.forward,
                   [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace san::patchwise
