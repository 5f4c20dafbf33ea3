// The gradient of hidden in the core of the patchwise attention by tensor
// cores, and the core's whole backward pass; formula and shape letters in
// tasks.h.
//
// Idea. The gradients of the weights of two taps and 8 weight channels are, as
// a lane makes them, the left side of a product of 16 pixels, 16 deep, with
// weight.
//
// Who owns what. A block: a tile of 64 pixels and all weight channels, 8 at a
// time, or, of few tiles, a share of them. A warp: 16 of the pixels, and of the
// steps of taps all, every second or every fourth; the parts of each sum are
// added in a fixed order.
//
// Shared memory: the halo of 64 channels of value: 28 KB for k = 7 in half
// types. A first kernel writes weights to the workspace in the order in which
// lanes read them.
#include "cuda_kernels/patchwise/tensor_gradients.h"
#include "cuda_kernels/patchwise/tensor_images.h"

namespace san::patchwise {
namespace {

// Products of a warp at most, [16, 8] each.
constexpr int kMostTiles = 8;

// Parts of the taps at most: of many products a lane needs more registers than
// it has beside so many warps.
template <typename T>
SAN_HOST_DEVICE constexpr int most_parts(int tiles) {
  return kIsSplit<T> && tiles > 2 ? 2 : kMostParts;
}

// How grad_hidden is cut into work.
struct HiddenPlan {
  int G, K;
  int steps, units, tiles;  // of taps; of 8 weight channels; of products
  int shares;               // of the units, each with sums of its own
  int64_t tasks;            // tiles of images

  explicit HiddenPlan(const PatchwiseCoreForward& task)
      : G(static_cast<int>(task.weight_channels)),
        K(static_cast<int>(task.window.taps())),
        steps(static_cast<int>(pieces(K, taps_of_step(gradient_unit(G))))),
        units(static_cast<int>(pieces(G, kWide))),
        tiles(1),
        shares(1),
        tasks(Chunks(task.window, task.batch, 1).tiles) {
    while (tiles * kWide < G) tiles *= 2;
    while (shares * 2 <= units && tasks * shares < 256) shares *= 2;
  }

  SAN_HOST_DEVICE int64_t fragments() const {
    return int64_t{steps} * units * tiles;
  }
};

template <typename T>
struct PackHidden {
  HiddenPlan plan;
  const float* weight;
  Right<T>* to;  // [steps, units, tiles, lanes]
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    pack_hidden_weights(PackHidden<T> a) {
  const HiddenPlan& p = a.plan;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < p.fragments() * 32; i += stride) {
    const int lane = static_cast<int>(i % 32);
    const int to = static_cast<int>(i / 32 % p.tiles) * kWide + lane / 4;
    const int64_t step = i / 32 / p.tiles;
    const int first = static_cast<int>(step % p.units) * kWide;
    const int q = static_cast<int>(step / p.units), member = lane % 4;
    float values[4];
    for (int j = 0; j < 4; ++j) {
      const bool two = p.G == 2;
      const int tap =
          two ? tap_of<2>(q, member, j / 2) : tap_of<kWide>(q, member, j / 2);
      const int g = (two ? 0 : first + member * kOwnGradients) + j % 2;
      values[j] = tap < p.K && g < p.G && to < p.G
                      ? a.weight[(g * int64_t{p.K} + tap) * p.G + to]
                      : 0;
    }
    a.to[i] = right_of<T>(values);
  }
}

template <typename T>
struct HiddenGradients {
  TensorLayout layout;
  HiddenPlan plan;
  int64_t jobs, pixels;
  int parts;  // of the steps
  Runs<T> runs;
  Image<const T> value, grad_output;
  const Right<T>* weights;
  float* grad_hidden;  // [shares, pixels, G]
};

template <typename T>
struct GradientMemory {
  Sources sources;
  T* halo;

  SAN_HOST_DEVICE GradientMemory(const Layout& layout, int pitch, Arena& arena)
      : sources(layout, arena), halo(arena.take<T>(layout.halo() * pitch)) {}

  static size_t bytes(const Layout& layout, int pitch, int tiles, int parts) {
    Arena arena(nullptr);
    GradientMemory(layout, pitch, arena);
    return std::max(arena.bytes(), warp_sums_bytes(tiles * 4, parts));
  }
};

// grad_output at the lane's pixels, zero where there is none; g is the lane's
// first weight channel.
template <typename T>
__device__ void read_grads(const HiddenGradients<T>& a, const Tile& tile,
                           const LanePixels& pixels, int g, LaneGrads& grads) {
  const int G = a.plan.G;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool exists = pixels.exists(tile, i);
    const T* const from =
        a.grad_output.at(exists ? pixels.in_batch(a.layout, tile, i) : 0) + g;
#pragma unroll
    for (int m = 0; m < kMembers; ++m)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        grads[m][i][j] = exists && g + j < G ? wide(from[m * G + j]) : 0;
  }
}

template <int kTiles, int kUnit, typename T>
__global__ void __launch_bounds__(kTileThreads* most_parts<T>(kTiles), 1)
    tensor_hidden_gradients(HiddenGradients<T> a) {
  const TensorLayout& layout = a.layout;
  const HiddenPlan& p = a.plan;
  constexpr int kPitch = kPixelPitch<kUnit>;
  Arena arena(shared_memory());
  const GradientMemory<T> memory(layout, kPitch, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32, part = warp / kTileWarps;
  const int member = lane() % 4;
  const LanePixels pixels(warp % kTileWarps);
  const T* const from = memory.halo +
                        (pixels.y * layout.stride + pixels.x) * kPitch +
                        first_gradient<kUnit>(member);
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / p.shares);
    const int share = static_cast<int>(job % p.shares);
    const bool exists[2] = {pixels.exists(tile, 0), pixels.exists(tile, 1)};
    float sums[kTiles][4] = {};
    __syncthreads();
    memory.sources.find(layout, tile, layout.slab(0));
    for (int unit = share; unit < p.units; unit += p.shares) {
      const int g = unit * kWide, own = g + first_gradient<kUnit>(member);
      const bool has[2] = {exists[0] && own < p.G, exists[1] && own < p.G};
      __syncthreads();
      stage_halo(layout, memory.sources, tile, a.value, g, a.runs,
                 valid_of(a.runs, p.G, g), memory.halo, kPitch);
      LaneGrads grads;
      read_grads(a, tile, pixels, own, grads);
      wait_copies<0>();
      __syncthreads();
#pragma unroll 1
      for (int q = part; q < p.steps; q += a.parts) {
        float gradients[2][4];
        make_gradients<kUnit>(layout, memory.sources.taps, q, member, from,
                              grads, has, gradients);
        const Left<T> left = left_of<T>(gradients);
        const Right<T>* const weights =
            a.weights + (q * p.units + unit) * (kTiles * 32) + lane();
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const Right<T> right = weights[i * 32];
          multiply(sums[i], left, right);
        }
      }
    }
    add_warps(a.parts, reinterpret_cast<float*>(shared_memory()), sums);
    if (part > 0) continue;
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i) {
      const int g = i / 4 * kWide + member * 2 + i % 2;
      if (exists[i % 4 / 2] && g < p.G)
        a.grad_hidden[(share * a.pixels +
                       pixels.in_batch(layout, tile, i % 4 / 2)) *
                          p.G +
                      g] = sums[i / 4][i % 4];
    }
  }
}

// What the backward pass keeps in its workspace.
template <typename T>
struct Workspace {
  HiddenPlan plan;
  CoreWeightPlan weight_plan;
  int64_t pixels;
  Arena arena;
  unsigned char* value;  // of the gradient of value
  Right<T>* right;
  float *hidden, *weights, *bias;  // partial sums; none of a single share

  Workspace(const PatchwiseCoreForward& task, void* workspace)
      : plan(task),
        weight_plan(task),
        pixels(task.batch * task.window.pixels()),
        arena(aligned(workspace)),
        value(
            arena.take<unsigned char>(CoreParameters<T>(task, nullptr).bytes)),
        right(arena.take<Right<T>>(plan.fragments() * 32)),
        hidden(arena.take<float>(plan.shares > 1 ? plan.shares * pixels * plan.G
                                                 : 0)),
        weights(
            arena.take<float>(weight_plan.parts() * plan.G * plan.K * plan.G)),
        bias(arena.take<float>(weight_plan.parts() * plan.G * plan.K)) {}
};

template <typename T>
void launch_hidden_gradients(const PatchwiseCoreBackward& task,
                             const Workspace<T>& w, void* stream) {
  const PatchwiseCoreForward& f = task.forward;
  const HiddenPlan& plan = w.plan;
  const TensorLayout layout(f.window);
  const int64_t jobs = plan.tasks * plan.shares;
  auto* const grad_hidden = static_cast<float*>(task.grad_hidden);
  if (jobs == 0) return;
  launch(
      &pack_hidden_weights<T>,
      {blocks_for(pieces(plan.fragments() * 32, kMostThreads)), kMostThreads},
      stream,
      PackHidden<T>{plan, static_cast<const float*>(f.weight), w.right});
  const int parts =
      std::min(parts_for(jobs, plan.steps), most_parts<T>(plan.tiles));
  const Image<const T> value(f.value), grad_output(task.grad_output);
  const auto run = [&](auto kernel, int unit, int pitch) {
    launch(
        kernel,
        {blocks_for(jobs), static_cast<unsigned>(kTileThreads * parts),
         GradientMemory<T>::bytes(layout, pitch, plan.tiles, parts)},
        stream,
        HiddenGradients<T>{layout, plan, jobs, w.pixels, parts,
                           runs_of(value, plan.G, unit), value, grad_output,
                           w.right, plan.shares > 1 ? w.hidden : grad_hidden});
  };
  if (plan.G == 2)
    run(&tensor_hidden_gradients<1, 2, T>, 2, kPixelPitch<2>);
  else
    run(plan.tiles == 1   ? &tensor_hidden_gradients<1, kWide, T>
        : plan.tiles == 2 ? &tensor_hidden_gradients<2, kWide, T>
        : plan.tiles == 4 ? &tensor_hidden_gradients<4, kWide, T>
                          : &tensor_hidden_gradients<8, kWide, T>,
        kWide, kPixelPitch<kWide>);
  const int64_t count = w.pixels * plan.G;
  if (plan.shares > 1)
    launch_sum<float>({w.hidden, plan.shares, count, 0},
                      {grad_hidden, 1, count, 0}, stream);
}

template <typename T>
void run(const PatchwiseCoreBackward& task, void* stream) {
  const Workspace<T> w(task.forward, task.workspace);
  launch_tensor_value_gradients<T>(task, w.value, stream);
  launch_hidden_gradients(task, w, stream);
  launch_core_weights<T>(task, w.weights, w.bias, stream);
  const int64_t parts = w.weight_plan.parts();
  const int64_t biases = int64_t{w.plan.G} * w.plan.K;
  const int64_t weights = biases * w.plan.G;
  launch_sum<float>({w.weights, parts, weights, 0},
                    {static_cast<float*>(task.grad_weight), 1, weights, 0},
                    stream);
  launch_sum<float>({w.bias, parts, biases, 0},
                    {static_cast<float*>(task.grad_bias), 1, biases, 0},
                    stream);
}

}  // namespace

int64_t tensor_workspace(const PatchwiseCoreBackward& task) {
  const PatchwiseCoreForward& f = task.forward;
  if (f.channels != f.weight_channels * kMembers ||
      f.weight_channels > kMostTiles * kWide)
    return -1;
  int64_t bytes = -1;
  with_tensor_type(f, [&](auto zero) {
    using T = decltype(zero);
    const size_t shared = std::max(
        {value_gradient_bytes<T>(f), core_weight_bytes<T>(f),
         GradientMemory<T>::bytes(TensorLayout(f.window), kPixelPitch<kWide>,
                                  kMostTiles, kMostParts)});
    if (shared <= most_shared_bytes() && can_tell_images(f.window))
      bytes = Workspace<T>(f, nullptr).arena.bytes() + kBoundary;
  });
  return bytes;
}

void run_on_tensor_cores(const PatchwiseCoreBackward& task, void* stream) {
  with_tensor_type(task.forward,
                   [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace san::patchwise
