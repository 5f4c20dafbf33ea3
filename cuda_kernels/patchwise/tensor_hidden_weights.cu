// The gradient of the hidden layer's weight by tensor cores; formula and shape
// letters in tasks.h.
//
// Idea. A product over pixels of [16 relation channels of an entry, 64 pixels],
// rectified anew in registers, with grad_hidden of the pixels that are shown
// them. The left side is that of a pixel of psi whoever it is shown to: a warp
// keeps its pixels for all of its taps, and looks for grad_hidden at the
// readers of each tap, images in a mirror included.
//
// Who owns what. A warp: of 16 relation channels 8, 4 or 2 taps, or phi, and 8,
// 16 or 32 weight channels: [16, 64] products of all in registers, through a
// chunk of the tiles or, of few taps, half or a quarter of their rows. A block:
// eight such warps. Blocks leave partial sums,
// which a second kernel adds in a fixed order.
//
// Shared memory: grad_hidden around a tile: 4 to 18 KB for k = 7 in half types.
#include "cuda_kernels/patchwise/tensor_relation.h"

namespace san::patchwise {
namespace {

constexpr int kThreads = HiddenWeightPlan::kWarps * 32;
constexpr int kSums = 8;  // products of a warp, [16, 8] each

template <typename T>
struct WeightGradients {
  TensorLayout layout;
  Entries entries;
  HiddenWeightPlan plan;
  int64_t jobs;
  int row_images, column_images;
  Divisor<uint32_t> fours;  // of grad_hidden's channels
  Image<const T> phi, psi;
  const float *affine, *grad_hidden;
  float* parts;  // [parts, G, S]
};

template <typename T>
struct WeightMemory {
  Images images;
  int pitch;  // such that the rows of a matrix lie in different banks
  T* readers;

  SAN_HOST_DEVICE WeightMemory(const Layout& layout, int row_images,
                               int column_images, int tiles, Arena& arena)
      : images(layout.window, row_images, column_images, arena),
        pitch(kIsHalf<T> ? (tiles | 1) * kWide : tiles * kWide + 4),
        readers(
            arena.take<T>((layout.stride + 1) * (layout.stride + 1) * pitch)) {}
};

// The right sides of 16 pixels, which are rows `row` and row + 1 of a tile. The
// order of pixels is that of `left_of_rows`.
template <int kTiles, typename T>
__device__ void load_readers(const T* readers, const int* rows,
                             const int* columns, int row,
                             Right<T> (&right)[kTiles]) {
  if constexpr (kIsHalf<T>) {
    const int matrix = lane() / 8;
    const T* const from = readers + rows[row + matrix % 2] +
                          columns[lane() % 8] + matrix / 2 * kWide;
    if constexpr (kTiles == 1) {
      // The upper lanes name what is ignored, inside the halo all the same.
      load_transposed(right[0].words, from - matrix / 2 * kWide);
    } else {
#pragma unroll
      for (int tile = 0; tile < kTiles; tile += 2) {
        uint32_t words[4];
        load_transposed(words, from + tile * kWide);
        right[tile] = {words[0], words[1]};
        right[tile + 1] = {words[2], words[3]};
      }
    }
  } else {
    const int group = lane() / 4, member = lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const T* const from =
          readers + rows[row + i / 2] + columns[member * 2 + i % 2] + group;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        set_factor(right[tile].words, i, from[tile * kWide]);
    }
  }
}

// Two rows of a tile, scaled, shifted and rectified: [16 channels, 16 pixels].
// x[y][i] is at 2 * member + i % 2 of row y, of channel group + i / 2 * 8.
template <typename T>
__device__ Left<T> left_of_rows(const float (&x)[2][4], const float (&scale)[2],
                                const float (&shift)[2]) {
  Left<T> left;
#pragma unroll
  for (int y = 0; y < 2; ++y) {
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      values[i] = x[y][i] * scale[i / 2] + shift[i / 2];
    if constexpr (kIsHalf<T>) {
      left.words[2 * y] = rectified_pair<T>(values[0], values[1]);
      left.words[2 * y + 1] = rectified_pair<T>(values[2], values[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        set<T>(left.words, 4 * y + i, relu(values[i % 2 * 2 + i / 2]));
    }
  }
  return left;
}

template <int kTiles, typename T>
__global__ void __launch_bounds__(kThreads, kIsSplit<T>&& kTiles > 1 ? 1 : 2)
    tensor_hidden_weights(WeightGradients<T> a) {
  constexpr int kTaps = kSums / kTiles;
  const TensorLayout& layout = a.layout;
  const Entries& p = a.entries;
  const HiddenWeightPlan& plan = a.plan;
  Arena arena(shared_memory());
  const WeightMemory<T> memory(layout, a.row_images, a.column_images, kTiles,
                               arena);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int k = layout.k(), group = lane() / 4, member = lane() % 4;
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const int64_t chunk = job / (plan.columns * plan.shares);
    const int work = static_cast<int>(job % (plan.columns * plan.shares));
    const int column = work % plan.columns * (kTiles * kWide);
    const int slot = work / plan.columns * HiddenWeightPlan::kWarps + warp;
    const int unit = slot % plan.units, row_part = slot / plan.units;
    const int block = unit / plan.groups, taps = unit % plan.groups;
    const bool centre = taps == plan.groups - 1;
    const int first = centre ? p.K : taps * plan.taps;
    const int count = row_part >= plan.row_parts ? 0
                      : centre                   ? 1
                                                 : min(p.K - first, plan.taps);
    // Where its first tap is; phi is shown by what would be the middle one.
    const int top = centre ? k / 2 : first / k,
              left_tap = centre ? k / 2 : first % k;
    const int r = block * kDeep + group;
    const Image<const T>& image = centre ? a.phi : a.psi;
    float sums[kTaps][kTiles][4] = {};
    const int64_t end = min((chunk + 1) * plan.chunks.size, plan.chunks.tiles);
    for (int64_t at = chunk * plan.chunks.size; at < end; ++at) {
      const Tile tile = layout.tile(at);
      __syncthreads();
      memory.images.find(layout, tile, memory.pitch);
      stage_around(layout, tile, a.grad_hidden + column, p.G, p.G - column,
                   a.fours, memory.readers, memory.pitch);
      __syncthreads();
      if (count == 0) continue;
      const int64_t W = layout.window.columns.size;
      const int64_t corner =
          tile.image * layout.window.pixels() + tile.y * W + tile.x;
#pragma unroll 1
      for (int row = 2 * row_part; row < tile.height;
           row += 2 * plan.row_parts) {
        float x[2][4] = {};
        const int px = member * 2;
        const T* from = image.at(corner + row * W + px) + r;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          if (i == 4) from += W * image.pitch;
          if (row + i / 4 < tile.height && px + i % 2 < tile.width &&
              r + i % 4 / 2 * 8 < p.R)
            x[i / 4][i % 4] = wide(from[i % 2 * image.pitch + i % 4 / 2 * 8]);
        }
        int kh = top, kw = left_tap;
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
          if (j >= count) break;
          const int e = first + j;
          const float* const affine =
              a.affine + ((e * p.blocks + block) * kDeep + group) * 2;
          float low[2], high[2];
          load(affine, low);
          load(affine + 16, high);
          const Left<T> left =
              left_of_rows<T>(x, {low[0], high[0]}, {low[1], high[1]});
          const auto add = [&](const int* rows, const int* columns) {
            Right<T> right[kTiles];
            load_readers(memory.readers, rows, columns, row, right);
#pragma unroll
            for (int i = 0; i < kTiles; ++i)
              multiply(sums[j][i], left, right[i]);
          };
          memory.images.for_each(kh, kw, centre, add);
          if (++kw == k) kw = 0, ++kh;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kTaps; ++j)
#pragma unroll
      for (int i = 0; i < kTiles * 4; ++i) {
        const int g = column + i / 4 * kWide + member * 2 + i % 2;
        const int channel = r + i % 4 / 2 * 8;
        if (j < count && g < p.G && channel < p.R)
          a.parts[((chunk * plan.row_parts + row_part) * p.G + g) * p.S() +
                  p.at(first + j, channel)] = sums[j][i / 4][i % 4];
      }
  }
}

}  // namespace

template <typename T>
size_t hidden_weight_bytes(const PatchwiseHiddenForward& task) {
  Arena arena(nullptr);
  WeightMemory<T>(TensorLayout(task.window), most_images(task.window.rows),
                  most_images(task.window.columns),
                  HiddenWeightPlan(task).tiles, arena);
  return arena.bytes();
}

template <typename T>
void launch_hidden_weights(const PatchwiseHiddenForward& task,
                           const float* affine, const float* grad_hidden,
                           float* parts, void* stream) {
  const HiddenWeightPlan plan(task);
  const int64_t jobs = plan.chunks.count * plan.columns * plan.shares;
  const auto kernel = plan.tiles == 1   ? &tensor_hidden_weights<1, T>
                      : plan.tiles == 2 ? &tensor_hidden_weights<2, T>
                                        : &tensor_hidden_weights<4, T>;
  launch(kernel, {blocks_for(jobs), kThreads, hidden_weight_bytes<T>(task)},
         stream,
         WeightGradients<T>{TensorLayout(task.window), Entries(task), plan,
                            jobs, most_images(task.window.rows),
                            most_images(task.window.columns),
                            Divisor<uint32_t>(plan.tiles * kWide / 4),
                            Image<const T>(task.phi), Image<const T>(task.psi),
                            affine, grad_hidden, parts});
}

#define SAN_INSTANTIATE(T)                                                   \
  template size_t hidden_weight_bytes<T>(const PatchwiseHiddenForward&);     \
  template void launch_hidden_weights<T>(const PatchwiseHiddenForward&,      \
                                         const float*, const float*, float*, \
                                         void*);
SAN_INSTANTIATE(float)
SAN_INSTANTIATE(SplitFloat)
SAN_INSTANTIATE(float16)
SAN_INSTANTIATE(bfloat16)
#undef SAN_INSTANTIATE

}  // namespace san::patchwise
