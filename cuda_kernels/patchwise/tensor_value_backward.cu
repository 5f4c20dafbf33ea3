// The gradient of value in the core of the patchwise attention by tensor cores;
// formula and shape letters in tasks.h.
//
// Idea. As the forward pass, but for the pixels that a tap shows: tensor cores
// make the weights of the pixels that are shown them, which are used up at once
// with what those pixels give of grad_output. Images in a mirror included, so
// that each gradient has one writer.
//
// Who owns what. A block: a tile of 64 pixels and a unit of weight channels. A
// warp: 16 of the pixels, and of the taps all, every second or every fourth;
// the parts of each sum are added in a fixed order.
//
// Shared memory: hidden and 64 or 128 channels of grad_output around a tile: 40
// or 72 KB for k = 7 in half types.
#include "cuda_kernels/patchwise/tensor_gradients.h"
#include "cuda_kernels/patchwise/tensor_images.h"

namespace san::patchwise {
namespace {

template <typename T>
struct ValueGradients {
  TensorLayout layout;
  CoreParameters<T> parameters;
  int64_t jobs;
  int parts;  // of the taps
  int row_images, column_images;
  Runs<T> runs;
  Divisor<uint32_t> fours;  // of hidden's channels
  const float* hidden;
  Image<const T> grad_output;
  ValueImage<T> grad_value;
};

template <typename T>
struct ValueMemory {
  Images images;
  int hidden_pitch;
  T *grads, *hidden;

  SAN_HOST_DEVICE ValueMemory(const Layout& layout, int row_images,
                              int column_images, int depth, int pitch,
                              Arena& arena)
      : images(layout.window, row_images, column_images, arena),
        hidden_pitch((depth | 1) * kDeep),
        grads(arena.take<T>(pixels(layout) * pitch)),
        hidden(arena.take<T>(pixels(layout) * hidden_pitch)) {}

  static SAN_HOST_DEVICE int pixels(const Layout& layout) {
    return (layout.stride + 1) * (layout.stride + 1);
  }
  static size_t bytes(const Layout& layout, const CoreParameters<T>& p,
                      int parts) {
    size_t bytes = 0;
    with_unit<kMostUnit<T>>(p.G, [&](auto unit) {
      constexpr int kUnit = decltype(unit)::value;
      Arena arena(nullptr);
      ValueMemory(layout, most_images(layout.window.rows),
                  most_images(layout.window.columns), p.depth,
                  kPixelPitch<kUnit>, arena);
      bytes = std::max(arena.bytes(),
                       warp_sums_bytes(sizeof(LaneSums<kUnit>) / 4, parts));
    });
    return bytes;
  }
};

// Copies grad_output around a tile; wait_copies and a barrier have to follow.
template <typename T>
__device__ void stage_grads(const ValueGradients<T>& a, const Tile& tile, int g,
                            T* to, int pitch) {
  const TensorLayout& layout = a.layout;
  const int side = layout.stride + 1, half = layout.k() / 2;
  stage_pixels(
      side * side, a.runs, valid_of(a.runs, a.parameters.G, g), a.grad_output,
      to, pitch, [&](int pixel) -> const T* {
        const auto place = layout.around.divide(pixel);
        const int row = place.quotient, column = place.remainder;
        const int64_t at = reader_at(layout, tile, row - half, column - half);
        const bool inside = row < side - 1 && column < side - 1 && at >= 0;
        return inside ? a.grad_output.at(at) + g : nullptr;
      });
}

template <int kUnit, typename T>
__global__ void __launch_bounds__(kTileThreads* kMostParts, 1)
    tensor_value_gradients(ValueGradients<T> a) {
  const TensorLayout& layout = a.layout;
  const CoreParameters<T>& p = a.parameters;
  constexpr int kPitch = kPixelPitch<kUnit>;
  Arena arena(shared_memory());
  const ValueMemory<T> memory(layout, a.row_images, a.column_images, p.depth,
                              kPitch, arena);
  const int warp = static_cast<int>(threadIdx.x) / 32, part = warp / kTileWarps;
  const int k = layout.k(), group = lane() / 4, member = lane() % 4;
  const LanePixels pixels(warp % kTileWarps);
  for (int64_t job = blockIdx.x; job < a.jobs; job += gridDim.x) {
    const Tile tile = layout.tile(job / p.units);
    const int unit = static_cast<int>(job % p.units), g = unit * kUnit;
    __syncthreads();
    memory.images.find(layout, tile, 1);
    stage_grads(a, tile, g, memory.grads, kPitch);
    stage_around(layout, tile, a.hidden, p.G, p.G, a.fours, memory.hidden,
                 memory.hidden_pitch);
    wait_copies<0>();
    __syncthreads();
    LaneSums<kUnit> sums = {};
    WeightReader<kUnit, T> reader(p, part, unit);
#pragma unroll 1  // the sums alone fill half of the registers
    for (int t = part, kh = 0, kw = part; t < p.K; t += a.parts) {
      for (; kw >= k; kw -= k) ++kh;
      memory.images.for_each(
          kh, kw, false, [&](const int* rows, const int* columns) {
            const int none = layout.stride * (layout.stride + 1);
            if (rows[pixels.y] == none && rows[pixels.y + 1] == none) return;
            const int low = rows[pixels.y] + columns[group];
            const int high = rows[pixels.y + 1] + columns[group];
            float weights[kProducts<kUnit>][4];
            const T* const hidden = memory.hidden + member * 4;
            reader.make(
                [&](int d) {
                  return left_at<T>(
                      hidden + low * memory.hidden_pitch + d * kDeep,
                      hidden + high * memory.hidden_pitch + d * kDeep);
                },
                weights);
            const T* const grads = memory.grads + first_element<kUnit>(member);
            weigh<kUnit, T>({grads + low * kPitch, grads + high * kPitch},
                            weights, sums);
          });
      kw += a.parts;
      reader.skip(a.parts);
    }
    add_warps(a.parts, reinterpret_cast<float*>(shared_memory()), sums);
    if (part == 0)
      store_value<kUnit>(a.grad_value, layout, tile, g, member, pixels, sums);
  }
}

}  // namespace

template <typename T>
size_t value_gradient_bytes(const PatchwiseCoreForward& task) {
  return ValueMemory<T>::bytes(TensorLayout(task.window),
                               CoreParameters<T>(task, nullptr), kMostParts);
}

template <typename T>
void launch_tensor_value_gradients(const PatchwiseCoreBackward& task,
                                   void* workspace, void* stream) {
  const PatchwiseCoreForward& f = task.forward;
  const TensorLayout layout(f.window);
  const CoreParameters<T> p(f, workspace);
  const int64_t jobs = f.batch * layout.down() * layout.across() * p.units;
  if (jobs == 0) return;
  launch_pack(f, p, stream);
  const int parts = parts_for(jobs, p.K);
  const Image<const T> grad_output(task.grad_output);
  with_unit<kMostUnit<T>>(p.G, [&](auto unit) {
    constexpr int kUnit = decltype(unit)::value;
    launch(&tensor_value_gradients<kUnit, T>,
           {blocks_for(jobs), static_cast<unsigned>(kTileThreads * parts),
            ValueMemory<T>::bytes(layout, p, parts)},
           stream,
           ValueGradients<T>{layout, p, jobs, parts, most_images(f.window.rows),
                             most_images(f.window.columns),
                             runs_of(grad_output, p.G, kUnit),
                             Divisor<uint32_t>(p.depth * kDeep / 4),
                             static_cast<const float*>(f.hidden), grad_output,
                             ValueImage<T>(task.grad_value, p)});
  });
}

#define SAN_INSTANTIATE(T)                                                     \
  template size_t value_gradient_bytes<T>(const PatchwiseCoreForward&);        \
  template void launch_tensor_value_gradients<T>(const PatchwiseCoreBackward&, \
                                                 void*, void*);
SAN_INSTANTIATE(float)
SAN_INSTANTIATE(SplitFloat)
SAN_INSTANTIATE(float16)
SAN_INSTANTIATE(bfloat16)
#undef SAN_INSTANTIATE

}  // namespace san::patchwise
