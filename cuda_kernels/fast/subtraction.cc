// Fast subtraction2 on the CPU.
//
// Idea. The output is K times larger than what it is made from, so the kernel
// is a well-fed stream: per plane, the padded image and the centres are copied
// to scratch, where they stay in cache while each tap's P outputs are written
// (or their gradients read) front to back, once.
//
// N batch, C channels, a plane is one (n, c); K taps, P outputs.
//
// Who owns what. A job is a plane, with everything that is written for it. The
// gradients are summed in scratch, tap after tap, then folded back onto the
// pixels that the padding mirrors: no atomics, the same bits for every number
// of threads.
#include "cuda_kernels/subtraction.h"

#include "cuda_kernels/fast/jobs.h"
#include "cuda_kernels/fast/padded_rows.h"

namespace san::fast {
namespace {

// One plane's padded image, and how centres and taps are found in it.
struct Plane {
  explicit Plane(const Window& window)
      : window(window),
        padded(window),
        tap_offsets(padded.tap_offsets()),
        rows(PaddedRows::span(window.rows, window.rows.outputs)),
        row_step(window.rows.stride * padded.pitch()),
        centre(window.rows.centre_tap() * window.columns.taps +
               window.columns.centre_tap()) {}

  static bool fits(const Window& window) {
    const __int128 rows = PaddedRows::span(window.rows, window.rows.outputs);
    return rows * PaddedRows::pitch(window) + window.outputs() +
               window.pixels() <=
           kMostScratch;
  }

  int64_t elements() const { return rows * padded.pitch(); }

  // Adds the padded image to the image of accumulators behind it in scratch and
  // stores that.
  template <typename T>
  void fold(Accumulator<T>* from, Accumulator<T>* image, T* to) const {
    std::fill_n(image, window.pixels(), Accumulator<T>(0));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t y = window.rows.source(r - window.rows.padding);
      if (y >= 0)
        padded.fold_row(from + r * padded.pitch(),
                        image + y * window.columns.size);
    }
    row_kernels<T>().store(image, to, window.pixels());
  }

  Window window;
  PaddedRows padded;
  std::vector<int64_t> tap_offsets;
  int64_t rows, row_step, centre;
};

template <typename T>
void forward(const SubtractionForward& task) {
  using A = Accumulator<T>;
  const Plane plane(task.window);
  const int64_t outputs = task.window.outputs();
  const int64_t pixels = task.window.pixels();
  const int64_t rows = task.window.rows.outputs;
  const int64_t columns = task.window.columns.outputs;
  for_each_job<A>(
      task.planes, plane.elements() + outputs, [&](int64_t job, A* padded) {
        A* centres = padded + plane.elements();
        const T* a = static_cast<const T*>(task.a) + job * pixels;
        const T* b = static_cast<const T*>(task.b) + job * pixels;
        T* out =
            static_cast<T*>(task.output) + job * plane.window.taps() * outputs;
        plane.padded.fill(a, 0, 1, 0, plane.rows, padded, 0);
        const A* centre = padded + plane.tap_offsets[plane.centre];
        for (int64_t ho = 0; ho < rows; ++ho)
          std::copy_n(centre + ho * plane.row_step, columns,
                      centres + ho * columns);
        plane.padded.fill(b, 0, 1, 0, plane.rows, padded, 0);
        for (const int64_t tap : plane.tap_offsets) {
          row_kernels<T>().subtract(centres, padded + tap, plane.row_step, out,
                                    rows, columns);
          out += outputs;
        }
      });
}

template <typename T>
void backward(const SubtractionBackward& task) {
  using A = Accumulator<T>;
  const Plane plane(task.window);
  const int64_t outputs = task.window.outputs();
  const int64_t pixels = task.window.pixels();
  const int64_t rows = task.window.rows.outputs;
  const int64_t columns = task.window.columns.outputs;
  for_each_job<A>(
      task.planes, plane.elements() + outputs + pixels,
      [&](int64_t job, A* padded) {
        A* centres = padded + plane.elements();
        A* image = centres + outputs;
        const T* g = static_cast<const T*>(task.grad_output) +
                     job * plane.window.taps() * outputs;
        std::fill_n(padded, plane.elements() + outputs, A(0));
        for (const int64_t tap : plane.tap_offsets) {
          row_kernels<T>().add(g, centres, outputs);
          row_kernels<T>().take(g, padded + tap, plane.row_step, rows, columns);
          g += outputs;
        }
        if (task.grad_b)
          plane.fold(padded, image,
                     static_cast<T*>(task.grad_b) + job * pixels);
        if (!task.grad_a) return;
        std::fill_n(padded, plane.elements(), A(0));
        A* centre = padded + plane.tap_offsets[plane.centre];
        for (int64_t ho = 0; ho < rows; ++ho)
          std::copy_n(centres + ho * columns, columns,
                      centre + ho * plane.row_step);
        plane.fold(padded, image, static_cast<T*>(task.grad_a) + job * pixels);
      });
}

}  // namespace

void run_on_cpu(const SubtractionForward& task) {
  if (!Plane::fits(task.window)) return simple::run_on_cpu(task);
  with_scalar_type(task.type,
                   [&](auto zero) { forward<decltype(zero)>(task); });
}

void run_on_cpu(const SubtractionBackward& task) {
  if (!Plane::fits(task.window)) return simple::run_on_cpu(task);
  with_scalar_type(task.type,
                   [&](auto zero) { backward<decltype(zero)>(task); });
}

}  // namespace san::fast
