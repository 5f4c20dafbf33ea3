// The gradients of weight and bias of the core of the patchwise attention by
// tensor cores; formula and shape letters in tasks.h.
//
// Idea. A product over pixels of the gradients of the weights of the footprint,
// [2 taps of 8 weight channels, 16 pixels], with hidden. A warp makes the left
// side in its registers, pixel by pixel, and turns it over in a small piece of
// shared memory of its own.
//
// Who owns what. A warp: of a unit of weight channels 8, 4 or 2 taps, [16, G]
// products of each step in registers, through a chunk of the tiles or, of few
// taps, half or a quarter of their rows. A block: eight such warps. Blocks
// leave partial sums, which a second kernel adds in a fixed order.
//
// Shared memory: the halo of 64 channels of value, grad_output and hidden of a
// tile, and the pieces: 45 KB for k = 7 and G = 8 in half types.
#include "cuda_kernels/patchwise/tensor_gradients.h"

namespace san::patchwise {
namespace {

constexpr int kThreads = CoreWeightPlan::kWarps * 32;
// From pixel to pixel of a piece: what is turned over lies in different banks.
constexpr int kPiecePitch = 24;

template <typename T>
struct CoreWeights {
  TensorLayout layout;
  CoreWeightPlan plan;
  int64_t jobs;
  int G;
  Runs<T> values, grads;
  const float* hidden;
  Image<const T> value, grad_output;
  float *weights, *bias;  // [parts, G, K, G], [parts, G, K]
};

template <typename T>
struct WeightMemory {
  Sources sources;
  int hidden_pitch;
  T *halo, *grads, *hidden, *pieces;

  SAN_HOST_DEVICE WeightMemory(const Layout& layout, int tiles, int pitch,
                               Arena& arena)
      : sources(layout, arena),
        hidden_pitch(kIsHalf<T> ? (tiles | 1) * kWide : (tiles + 1) * kWide),
        halo(arena.take<T>(layout.halo() * pitch)),
        grads(arena.take<T>(kTilePixels * pitch)),
        hidden(arena.take<T>(kTilePixels * hidden_pitch)),
        pieces(arena.take<T>(CoreWeightPlan::kWarps * kHigh * kPiecePitch)) {}
};

// Turns gradients of the weights over, [16 pixels, 16] to [16, 16 pixels];
// `piece` is the warp's.
template <typename T>
__device__ Left<T> turn_over(const float (&gradients)[2][4], T* piece) {
  const int group = lane() / 4, member = lane() % 4;
  warp_sync();
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int u = 0; u < 2; ++u)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        piece[(group + i * 8) * kPiecePitch + u * 8 + member * 2 + j] =
            as_factor<T>(gradients[i][u * 2 + j]);
  warp_sync();
  Left<T> left;
  if constexpr (kIsHalf<T>) {
    load_transposed(left.words,
                    piece + (lane() / 16 * 8 + lane() % 8) * kPiecePitch +
                        lane() / 8 % 2 * 8);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      set_factor(left.words, i,
                 piece[(member + i / 2 * 4) * kPiecePitch + group + i % 2 * 8]);
  }
  return left;
}

// hidden of 16 pixels and 8 channels each, in the order of turn_over; of one
// product or two.
template <int kTiles, typename T>
__device__ void load_hidden(const T* hidden, int pitch,
                            Right<T> (&right)[kTiles]) {
  if constexpr (kIsHalf<T>) {
    const T* const from = hidden + lane() % 16 * pitch;
    if constexpr (kTiles == 1) {
      load_transposed(right[0].words, from);
    } else {
      static_assert(kTiles == 2);
      uint32_t words[4];
      load_transposed(words, from + lane() / 16 * kWide);
      right[0] = {words[0], words[1]};
      right[1] = {words[2], words[3]};
    }
  } else {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        set_factor(
            right[tile].words, i,
            hidden[(lane() % 4 + i * 4) * pitch + tile * kWide + lane() / 4]);
  }
}

// Copies what a block reads of a tile; the sources have been found.
template <int kTiles, int kUnit, typename T>
__device__ void stage_weights(const CoreWeights<T>& a,
                              const WeightMemory<T>& memory, const Tile& tile,
                              int g) {
  const TensorLayout& layout = a.layout;
  constexpr int kPitch = kPixelPitch<kUnit>;
  const int64_t image = tile.image * layout.window.pixels();
  stage_halo(layout, memory.sources, tile, a.value, g, a.values,
             valid_of(a.values, a.G, g), memory.halo, kPitch);
  stage_pixels(kTilePixels, a.grads, valid_of(a.grads, a.G, g), a.grad_output,
               memory.grads, kPitch, [&](int pixel) {
                 return tile.holds(pixel)
                            ? a.grad_output.at(image + layout.at(tile, pixel)) +
                                  g
                            : nullptr;
               });
  constexpr int kChannels = kTiles * kWide;
  for (int i = threadIdx.x; i < kTilePixels * kChannels; i += kThreads) {
    const int pixel = i / kChannels, channel = i % kChannels;
    const bool exists = tile.holds(pixel) && channel < a.G;
    memory.hidden[pixel * memory.hidden_pitch + channel] = as_factor<T>(
        exists ? a.hidden[(image + layout.at(tile, pixel)) * a.G + channel]
               : 0);
  }
  wait_copies<0>();
}

// Adds up over the lanes of a member.
__device__ float add_groups(float sum) {
  for (int bits = 4; bits < 32; bits *= 2) sum += shuffle_xor(sum, bits);
  return sum;
}

template <int kTiles, int kUnit, typename T>
__global__ void __launch_bounds__(kThreads, kIsHalf<T> ? 2 : 1)
    tensor_core_weights(CoreWeights<T> a) {
  constexpr int kSteps = CoreWeightPlan::steps_of(kTiles, kUnit);
  constexpr int kPitch = kPixelPitch<kUnit>;
  const TensorLayout& layout = a.layout;
  const CoreWeightPlan& plan = a.plan;
  Arena arena(shared_memory());
  const WeightMemory<T> memory(layout, kTiles, kPitch, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane() / 4, member = lane() % 4, K = layout.taps();
  T* const piece = memory.pieces + warp * kHigh * kPiecePitch;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job / (plan.units * plan.shares);
    const int work = static_cast<int>(job % (plan.units * plan.shares));
    const int g = work % plan.units * kWide;
    const int slot = work / plan.units * CoreWeightPlan::kWarps + warp;
    const int row_part = slot / plan.owners;  // with shares, always the first
    const int first =
        row_part < plan.row_parts ? slot % plan.owners * kSteps : layout.taps();
    const int64_t part = chunk * plan.row_parts + row_part;
    float sums[kSteps][kTiles][4] = {}, bias[kSteps][4] = {};
    const int64_t end = min((chunk + 1) * plan.chunks.size, plan.chunks.tiles);
    for (int64_t at = chunk * plan.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      memory.sources.find(layout, tile, layout.slab(0));
      __syncthreads();
      stage_weights<kTiles, kUnit>(a, memory, tile, g);
      __syncthreads();
#pragma unroll 1
      for (int rows = row_part; rows < kTileWarps; rows += plan.row_parts) {
        const LanePixels pixels(rows);
        if (pixels.y >= tile.height) break;
        LaneGrads grads;
        load_grads<kUnit>(memory.grads +
                              (pixels.y * kSide + pixels.x) * kPitch +
                              first_gradient<kUnit>(member),
                          grads);
        const bool any = g + first_gradient<kUnit>(member) < a.G;
        const bool exists[2] = {any && pixels.exists(tile, 0),
                                any && pixels.exists(tile, 1)};
        const T* const from = memory.halo +
                              (pixels.y * layout.stride + pixels.x) * kPitch +
                              first_gradient<kUnit>(member);
#pragma unroll
        for (int j = 0; j < kSteps; ++j) {
          if ((first + j) * taps_of_step(kUnit) >= K) break;
          float gradients[2][4];
          make_gradients<kUnit>(layout, memory.sources.taps, first + j, member,
                                from, grads, exists, gradients);
#pragma unroll
          for (int i = 0; i < 4; ++i)
            bias[j][i] += gradients[0][i] + gradients[1][i];
          const Left<T> left = turn_over(gradients, piece);
          constexpr int kAtOnce = kTiles < 2 ? kTiles : 2;
#pragma unroll
          for (int tile = 0; tile < kTiles; tile += kAtOnce) {
            Right<T> right[kAtOnce];
            load_hidden(memory.hidden + rows * kHigh * memory.hidden_pitch +
                            tile * kWide,
                        memory.hidden_pitch, right);
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i)
              multiply(sums[j][tile + i], left, right[i]);
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
#pragma unroll
      for (int i = 0; i < kTiles * 4; ++i) {
        // Of the step's 16 rows: of two weight channels, a tap has two.
        const int t =
            tap_of<kUnit>(first + j, group / kOwnGradients, i % 4 / 2);
        const int to = g + (kUnit == 2 ? group % 2 : group);
        const int from = i / 4 * kWide + member * 2 + i % 2;
        if (t < K && to < a.G && from < a.G)
          a.weights[((part * a.G + to) * K + t) * a.G + from] =
              sums[j][i / 4][i % 4];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float sum = add_groups(bias[j][i]);
        const int t = tap_of<kUnit>(first + j, member, i / 2);
        const int to = g + first_gradient<kUnit>(member) + i % 2;
        if (group == 0 && t < K && to < a.G)
          a.bias[(part * a.G + to) * K + t] = sum;
      }
    }
  }
}

}  // namespace

template <typename T>
size_t core_weight_bytes(const PatchwiseCoreForward& task) {
  const int pitch = gradient_unit(task.weight_channels) == 2
                        ? kPixelPitch<2>
                        : kPixelPitch<kWide>;
  Arena arena(nullptr);
  WeightMemory<T>(TensorLayout(task.window), CoreWeightPlan(task).tiles, pitch,
                  arena);
  return arena.bytes();
}

template <typename T>
void launch_core_weights(const PatchwiseCoreBackward& task, float* weights,
                         float* bias, void* stream) {
  const PatchwiseCoreForward& f = task.forward;
  const CoreWeightPlan plan(f);
  const int64_t jobs = plan.chunks.count * plan.units * plan.shares;
  if (jobs == 0) return;
  const int G = static_cast<int>(f.weight_channels);
  const int unit = gradient_unit(G);
  const Image<const T> value(f.value), grad_output(task.grad_output);
  const auto kernel = G == 2            ? &tensor_core_weights<1, 2, T>
                      : plan.tiles == 1 ? &tensor_core_weights<1, kWide, T>
                      : plan.tiles == 2 ? &tensor_core_weights<2, kWide, T>
                      : plan.tiles == 4 ? &tensor_core_weights<4, kWide, T>
                                        : &tensor_core_weights<8, kWide, T>;
  launch(kernel, {blocks_for(jobs), kThreads, core_weight_bytes<T>(f)}, stream,
         CoreWeights<T>{TensorLayout(f.window), plan, jobs, G,
                        runs_of(value, G, unit), runs_of(grad_output, G, unit),
                        static_cast<const float*>(f.hidden), value, grad_output,
                        weights, bias});
}

#define SAN_INSTANTIATE(T)                                                   \
  template size_t core_weight_bytes<T>(const PatchwiseCoreForward&);         \
  template void launch_core_weights<T>(const PatchwiseCoreBackward&, float*, \
                                       float*, void*);
SAN_INSTANTIATE(float)
SAN_INSTANTIATE(SplitFloat)
SAN_INSTANTIATE(float16)
SAN_INSTANTIATE(bfloat16)
#undef SAN_INSTANTIATE

}  // namespace san::patchwise
