// Fast subtraction2 on CUDA: the output.
//
// Idea. Almost all traffic is the output, K elements a pixel, which has to be
// moved once, in runs of adjacent elements; all else is kept out of the way of
// that.
//
// N batch, C channels, a unit is a plane, one (n, c); K taps, P outputs.
//
// Memory plan (cuda_tiles.h, cuda_steps.h). The padded pixels of b under a tile
// of outputs are in shared memory; a thread owns all taps of kRows outputs and
// has their centres in registers. One writer per element: no atomics.
//
// Elements moved per output: K + 2.
#include "cuda_kernels/window_ops/cuda_steps.h"
#include "cuda_kernels/window_ops/subtraction.h"

namespace san::fast {
namespace {

template <typename T>
struct ForwardTask {
  Window window;
  Tiling tiling;
  const T *a, *b;
  T* output;
};

template <typename T, int kTaps, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1)
    forward(ForwardTask<T> task) {
  using A = Accumulator<T>;
  const Axis &rows = task.window.rows, &columns = task.window.columns;
  const Steps<kTaps> steps(task.window);
  const Place place(task.tiling);
  const int64_t pixels = task.window.pixels();
  const UnitMemory<A, 1> tile(task.tiling, place,
                              task.tiling.source_positions());
  find_sources(task.tiling, rows, position(rows, place.top, 0), columns,
               position(columns, place.left, 0));
  __syncthreads();
  if (place.active)
    fill(task.tiling, place,
         Planes<T>{task.b + place.unit * pixels, 0, 1,
                   static_cast<int>(columns.size)},
         tile);
  __syncthreads();
  if (!place.active) return;

  int offsets[kRows];
  place.find_offsets(columns, offsets);
  A centres[kRows];
  const int centre_row = static_cast<int>(rows.centre_tap());
  const int centre_column = static_cast<int>(columns.centre_tap());
  const int width = static_cast<int>(columns.size);
  const int x = source(
      columns, position(columns, place.left + place.column, centre_column));
  const T* a = task.a + place.unit * pixels;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int y =
        source(rows, position(rows, place.top + place.row + r, centre_row));
    centres[r] =
        place.owns(r) && y >= 0 && x >= 0 ? wide(a[y * width + x]) : A(0);
  }
  const int64_t outputs = task.window.outputs();
  T* output = task.output + place.unit * task.window.taps() * outputs;
#pragma unroll 1
  for (int step = 0; step < steps.count; ++step) {
    const int pitch = task.tiling.shared.pitch;
    const int from = steps.source(place, step, pitch);
    A band[kTaps + kRows - 1][1];
#pragma unroll
    for (int j = 0; j < kTaps + kRows - 1; ++j)
      tile.load(from + j * pitch, band[j]);
    store_column<T, kTaps>(
        output, outputs, step, offsets, place,
        [&](int kh, int r) { return centres[r] - band[kh + r][0]; });
  }
}

template <typename T>
bool run(const SubtractionForward& task, void* stream) {
  const Window& window = task.shape.window;
  const int64_t planes = task.shape.planes();
  return with_steps<T>(window, planes, [&](auto taps, auto rows) {
    const auto tiling = fast::tiling(
        planes, outputs_of(window.rows, rows), outputs_of(window.columns, 1), 1,
        sizeof(Accumulator<T>), [&](int height, int width) {
          return padded_tile(window, height, width, 1);
        });
    if (!tiling) return false;
    launch(&forward<T, taps, rows>,
           tiling->launch_shape(sizeof(Accumulator<T>)), stream,
           ForwardTask<T>{window, *tiling, static_cast<const T*>(task.a),
                          static_cast<const T*>(task.b),
                          static_cast<T*>(task.output)});
    return true;
  });
}

}  // namespace

void run_on_cuda(const SubtractionForward& task, void* stream) {
  bool done = false;
  if (is_small(task.shape.window) && task.shape.layout == Layout::kRowMajor)
    with_scalar_type(task.type, [&](auto zero) {
      done = run<decltype(zero)>(task, stream);
    });
  if (!done) simple::run_on_cuda(task, stream);
}

}  // namespace san::fast
