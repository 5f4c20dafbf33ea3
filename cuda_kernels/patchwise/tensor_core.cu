// From the hidden layer of the patchwise mapping to the output by tensor cores;
// formula and shape letters in tasks.h. Eight channels of value share a weight
// channel.
//
// Idea. Tensor cores make the weights of a tap, and leave them with the lanes
// that use them up at once: a lane weighs what the tap shows of the 8 x 2 or
// 8 x 4 channels that share its weights. They are never in any memory.
//
// Who owns what. A block: a tile of 64 pixels and a unit of weight channels. A
// warp: 16 of the pixels, and of the taps all, every second or every fourth;
// the parts of each sum are added in a fixed order.
//
// Shared memory: the halo of the 64 or 128 channels of value: 28 or 56 KB for k
// = 7 in half types. A first kernel writes weights and biases to the workspace
// in the order in which lanes read them.
#include "cuda_kernels/patchwise/tensor_weights.h"

namespace san::patchwise {
namespace {

template <typename T>
struct CoreForward {
  TensorLayout layout;
  CoreParameters<T> parameters;
  int64_t jobs;
  int parts;  // of the taps
  Runs<T> runs;
  const float* hidden;
  Image<const T> value;
  ValueImage<T> output;
};

template <typename T>
struct CoreMemory {
  Sources sources;
  LeftSides<T> hidden;
  T* halo;

  SAN_HOST_DEVICE CoreMemory(const Layout& layout, int depth, int pitch,
                             Arena& arena)
      : sources(layout, arena),
        hidden(depth, arena),
        halo(arena.take<T>(layout.halo() * pitch)) {}

  static size_t bytes(const TensorLayout& layout, const CoreParameters<T>& p,
                      int parts) {
    size_t bytes = 0;
    with_unit<kMostUnit<T>>(p.G, [&](auto unit) {
      constexpr int kUnit = decltype(unit)::value;
      Arena arena(nullptr);
      CoreMemory(layout, p.depth, kPixelPitch<kUnit>, arena);
      bytes = std::max(arena.bytes(),
                       warp_sums_bytes(sizeof(LaneSums<kUnit>) / 4, parts));
    });
    return bytes;
  }
};

template <int kUnit, typename T>
__global__ void __launch_bounds__(kTileThreads* kMostParts, 1)
    tensor_core_forward(CoreForward<T> a) {
  const TensorLayout& layout = a.layout;
  const CoreParameters<T>& p = a.parameters;
  constexpr int kPitch = kPixelPitch<kUnit>;
  Arena arena(shared_memory());
  const CoreMemory<T> memory(layout, p.depth, kPitch, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32, part = warp / kTileWarps;
  const LanePixels pixels(warp % kTileWarps);
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / p.units);
    const int unit = static_cast<int>(job % p.units), g = unit * kUnit;
    __syncthreads();
    memory.sources.find(layout, tile, layout.slab(0));
    __syncthreads();
    stage_halo(layout, memory.sources, tile, a.value, g, a.runs,
               valid_of(a.runs, p.G, g), memory.halo, kPitch);
    if (part == 0)
      stage_hidden(a.hidden, p, layout, tile, pixels, memory.hidden);
    wait_copies<0>();
    __syncthreads();
    LaneSums<kUnit> sums = {};
    const T* const from = memory.halo +
                          (pixels.y * layout.stride + pixels.x) * kPitch +
                          first_element<kUnit>(lane() % 4);
    WeightReader<kUnit, T> reader(p, part, unit);
#pragma unroll 1  // the sums alone fill half of the registers
    for (int t = part; t < p.K; t += a.parts) {
      float weights[kProducts<kUnit>][4];
      reader.make(
          [&](int d) {
            return memory.hidden.load(d, threadIdx.x % kTileThreads);
          },
          weights);
      reader.skip(a.parts);
      const T* const seen = from + memory.sources.taps[t] * kPitch;
      weigh<kUnit, T>({seen, seen + layout.stride * kPitch}, weights, sums);
    }
    add_warps(a.parts, reinterpret_cast<float*>(shared_memory()), sums);
    if (part == 0)
      store_value<kUnit>(a.output, layout, tile, g, lane() % 4, pixels, sums);
  }
}

template <typename T>
void run(const PatchwiseCoreForward& task, void* stream) {
  const TensorLayout layout(task.window);
  const CoreParameters<T> p(task, task.workspace);
  const int64_t jobs = task.batch * layout.down() * layout.across() * p.units;
  if (jobs == 0) return;
  launch_pack(task, p, stream);
  const int parts = parts_for(jobs, p.K);
  const Image<const T> value(task.value);
  with_unit<kMostUnit<T>>(p.G, [&](auto unit) {
    constexpr int kUnit = decltype(unit)::value;
    launch(&tensor_core_forward<kUnit, T>,
           {blocks_for(jobs), static_cast<unsigned>(kTileThreads * parts),
            CoreMemory<T>::bytes(layout, p, parts)},
           stream,
           CoreForward<T>{layout, p, jobs, parts, runs_of(value, p.G, kUnit),
                          static_cast<const float*>(task.hidden), value,
                          ValueImage<T>(task.output, p)});
  });
}

}  // namespace

int64_t tensor_workspace(const PatchwiseCoreForward& task) {
  if (task.channels != task.weight_channels * kMembers) return -1;
  int64_t bytes = -1;
  with_tensor_type(task, [&](auto zero) {
    using T = decltype(zero);
    const CoreParameters<T> p(task, nullptr);
    if (CoreMemory<T>::bytes(TensorLayout(task.window), p, kMostParts) <=
        most_shared_bytes())
      bytes = p.bytes + kBoundary;
  });
  return bytes;
}

void run_on_tensor_cores(const PatchwiseCoreForward& task, void* stream) {
  with_tensor_type(task, [&](auto zero) { run<decltype(zero)>(task, stream); });
}

}  // namespace san::patchwise
