// Fast subtraction2 on the CPU.
//
// Idea. The output is K times larger than what it is made from, so the kernel
// is a well-fed stream. Per plane and tap column, the padded image is copied to
// scratch shifted by that column and cut to the output's width. There each tap
// is one run of P adjacent elements, as the centres and the outputs are: no
// vector is cut off at the end of a row, and outputs that no cache would hold
// go past the caches, which need not read what is overwritten.
//
// N batch, C channels, a plane is one (n, c); K taps, P outputs.
//
// Memory plan, per job: the padded image, its shifted copy and the centres, all
// in the second cache.
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

// Outputs of at least this many bytes, in runs of at least so many, are written
// past the caches. Shorter runs would break up too many lines.
constexpr int64_t kStreamedBytes = 32 << 20, kStreamedRunBytes = 1024;

// One plane's padded image, and how centres and taps are found in it.
struct Plane {
  explicit Plane(const Window& window)
      : window(window),
        padded(window),
        column_offsets(padded.column_offsets()),
        rows(PaddedRows::span(window.rows, window.rows.outputs)),
        phase_rows((rows - 1) / window.rows.stride + 1) {}

  static bool fits(const Window& window) {
    const __int128 rows = PaddedRows::span(window.rows, window.rows.outputs);
    return rows * (PaddedRows::pitch(window) + window.columns.outputs) +
               window.columns.outputs * window.rows.stride + window.outputs() +
               window.pixels() <=
           kMostScratch;
  }

  int64_t elements() const { return rows * padded.pitch(); }
  int64_t shifted_elements() const {
    return phase_rows * window.rows.stride * window.columns.outputs;
  }

  // In the padded image: from one output row to the next, and where the centre
  // of the first window is.
  int64_t step() const { return window.rows.stride * padded.pitch(); }
  int64_t centre() const {
    return window.rows.centre_tap() * window.rows.dilation * padded.pitch() +
           column_offsets[window.columns.centre_tap()];
  }

  // Where the run of a tap row begins in a shifted copy. Rows of one phase
  // (rows r, r + stride, ...) lie side by side there.
  int64_t run_of(int64_t kh) const {
    const int64_t r = kh * window.rows.dilation, stride = window.rows.stride;
    return (r % stride * phase_rows + r / stride) * window.columns.outputs;
  }

  // Calls f(padded, shifted, rows) for each phase: where tap column kw of the
  // outputs begins in both, and how many rows there are.
  template <typename F>
  void for_each_phase(int64_t kw, F f) const {
    const int64_t stride = window.rows.stride;
    for (int64_t phase = 0; phase < std::min(stride, rows); ++phase)
      f(phase * padded.pitch() + column_offsets[kw],
        phase * phase_rows * window.columns.outputs,
        (rows - phase - 1) / stride + 1);
  }

  // shifted = padded, as tap column kw sees it.
  template <typename T>
  void shift(const Accumulator<T>* from, int64_t kw, Accumulator<T>* to) const {
    for_each_phase(kw, [&](int64_t begin, int64_t to_begin, int64_t count) {
      row_kernels<T>().gather_rows(from + begin, step(), to + to_begin, count,
                                   window.columns.outputs);
    });
  }

  // The transpose: padded += shifted.
  template <typename T>
  void unshift(const Accumulator<T>* from, int64_t kw,
               Accumulator<T>* to) const {
    for_each_phase(kw, [&](int64_t begin, int64_t from_begin, int64_t count) {
      row_kernels<T>().scatter_rows(from + from_begin, to + begin, step(),
                                    count, window.columns.outputs);
    });
  }

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
  std::vector<int64_t> column_offsets;
  int64_t rows, phase_rows;
};

template <typename T>
void forward(const SubtractionForward& task) {
  using A = Accumulator<T>;
  const Plane plane(task.window);
  const Axis& rows = task.window.rows;
  const Axis& columns = task.window.columns;
  const int64_t outputs = task.window.outputs();
  const int64_t pixels = task.window.pixels();
  const int64_t written = task.window.taps() * outputs;
  const int64_t run_bytes = outputs * int64_t{sizeof(T)};
  const bool streamed =
      run_bytes >= kStreamedRunBytes &&
      task.planes * task.window.taps() * run_bytes >= kStreamedBytes;
  const RowKernels<T>& kernels = row_kernels<T>();
  for_each_job<A>(
      task.planes, plane.elements() + plane.shifted_elements() + outputs,
      [&](int64_t job, A* padded) {
        A* shifted = padded + plane.elements();
        A* centres = shifted + plane.shifted_elements();
        const T* a = static_cast<const T*>(task.a) + job * pixels;
        const T* b = static_cast<const T*>(task.b) + job * pixels;
        T* out = static_cast<T*>(task.output) + job * written;
        plane.padded.fill(a, 0, 1, 0, plane.rows, padded, 0);
        kernels.gather_rows(padded + plane.centre(), plane.step(), centres,
                            rows.outputs, columns.outputs);
        plane.padded.fill(b, 0, 1, 0, plane.rows, padded, 0);
        for (int64_t kw = 0; kw < columns.taps; ++kw) {
          plane.template shift<T>(padded, kw, shifted);
          for (int64_t kh = 0; kh < rows.taps; ++kh)
            kernels.subtract(centres, shifted + plane.run_of(kh),
                             out + (kh * columns.taps + kw) * outputs, outputs,
                             streamed);
        }
        if (streamed) kernels.end_stream();
      });
}

template <typename T>
void backward(const SubtractionBackward& task) {
  using A = Accumulator<T>;
  const Plane plane(task.window);
  const Axis& rows = task.window.rows;
  const Axis& columns = task.window.columns;
  const int64_t outputs = task.window.outputs();
  const int64_t pixels = task.window.pixels();
  const RowKernels<T>& kernels = row_kernels<T>();
  for_each_job<A>(
      task.planes,
      plane.elements() + plane.shifted_elements() + outputs + pixels,
      [&](int64_t job, A* padded) {
        A* shifted = padded + plane.elements();
        A* centres = shifted + plane.shifted_elements();
        A* image = centres + outputs;
        const T* g = static_cast<const T*>(task.grad_output) +
                     job * task.window.taps() * outputs;
        std::fill_n(padded, plane.elements(), A(0));
        std::fill_n(centres, outputs, A(0));
        for (int64_t kw = 0; kw < columns.taps; ++kw) {
          std::fill_n(shifted, plane.shifted_elements(), A(0));
          for (int64_t kh = 0; kh < rows.taps; ++kh)
            kernels.spread(g + (kh * columns.taps + kw) * outputs, centres,
                           shifted + plane.run_of(kh), outputs);
          plane.template unshift<T>(shifted, kw, padded);
        }
        if (task.grad_b)
          plane.fold(padded, image,
                     static_cast<T*>(task.grad_b) + job * pixels);
        if (!task.grad_a) return;
        std::fill_n(padded, plane.elements(), A(0));
        kernels.scatter_rows(centres, padded + plane.centre(), plane.step(),
                             rows.outputs, columns.outputs);
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
