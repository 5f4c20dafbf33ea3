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
// Memory plan, per job: the padded images of its planes, the shifted copy of
// one and the centres; of a plane of the networks all in the second cache.
//
// Who owns what. A job is a plane, or in channels-last a block of adjacent ones
// (channel_block.h), with everything that is written for it. The
// gradients are summed in scratch, tap after tap, then folded back onto the
// pixels that the padding mirrors: no atomics, the same bits for every number
// of threads.
#include "cuda_kernels/window_ops/subtraction.h"

#include "cuda_kernels/cpu/jobs.h"
#include "cuda_kernels/window_ops/padded_rows.h"

namespace san::fast {
namespace {

using namespace cpu;

// Outputs of at least this many bytes, in runs of at least so many, are written
// past the caches. Shorter runs would break up too many lines.
constexpr int64_t kStreamedBytes = 32 << 20, kStreamedRunBytes = 1024;
// Of a block of planes; a plane alone may take kMostScratch.
constexpr int64_t kBlockScratch = 1 << 22;

// One plane's padded image, and how centres and taps are found in it.
struct Plane {
  explicit Plane(const Window& window)
      : window(window),
        padded(window),
        column_offsets(padded.column_offsets()),
        rows(PaddedRows::span(window.rows, window.rows.outputs)),
        phase_rows((rows - 1) / window.rows.stride + 1) {}

  // The most elements of scratch that a plane may need.
  static __int128 scratch(const Window& window) {
    const __int128 rows = PaddedRows::span(window.rows, window.rows.outputs);
    return rows * (PaddedRows::pitch(window) + window.columns.outputs) +
           window.columns.outputs * window.rows.stride + window.outputs() +
           window.columns.size + 2 * window.pixels();
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

  // Pads a block's images.
  template <typename T>
  void pad(const BlockView<const T>& image, Accumulator<T>* to,
           Accumulator<T>* staging) const {
    const auto row_shown = [&](int64_t r) {
      return window.rows.source(r - window.rows.padding);
    };
    padded.fill(image, rows, row_shown, to, elements(), staging);
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

  // image = what the padded image shows of it, added up.
  template <typename A>
  void fold(const A* from, A* image) const {
    std::fill_n(image, window.pixels(), A(0));
    for (int64_t r = 0; r < rows; ++r, from += padded.pitch()) {
      const int64_t y = window.rows.source(r - window.rows.padding);
      if (y >= 0) padded.fold_row(from, image + y * window.columns.size);
    }
  }

  Window window;
  PaddedRows padded;
  std::vector<int64_t> column_offsets;
  int64_t rows, phase_rows;
};

// As wide as scratch of kBlockScratch elements allows; powers of two, so that
// blocks do not share cache lines.
ChannelBlocks blocks_of(const SubtractionShape& shape) {
  int64_t width = ChannelBlocks::kMostWidth;
  while (width > 1 && width * Plane::scratch(shape.window) > kBlockScratch)
    width /= 2;
  return {shape.layout, shape.batch, shape.channels, shape.channels, width};
}

template <typename T>
void forward(const SubtractionForward& task) {
  using A = Accumulator<T>;
  const Window& window = task.shape.window;
  const Plane plane(window);
  const ChannelBlocks blocks = blocks_of(task.shape);
  const int64_t outputs = window.outputs(), pixels = window.pixels();
  const int64_t taps = window.columns.taps;
  const int64_t run_bytes = outputs * int64_t{sizeof(T)};
  const bool streamed =
      run_bytes >= kStreamedRunBytes &&
      task.shape.planes() * window.taps() * run_bytes >= kStreamedBytes;
  const RowKernels<T>& kernels = row_kernels<T>();
  for_each_job<A>(
      blocks.count,
      blocks.width * (plane.elements() + outputs + plane.padded.staged()) +
          plane.shifted_elements(),
      [&](int64_t job, A* padded) {
        const ChannelBlock block = blocks[job];
        A* shifted = padded + block.width * plane.elements();
        A* centres = shifted + plane.shifted_elements();
        A* staging = centres + block.width * outputs;
        const auto view = [&](const void* tensor) {
          return BlockView<const T>(static_cast<const T*>(tensor), pixels,
                                    blocks, block);
        };
        plane.pad(view(task.a), padded, staging);
        for (int64_t p = 0; p < block.width; ++p)
          kernels.gather_rows(padded + p * plane.elements() + plane.centre(),
                              plane.step(), centres + p * outputs,
                              window.rows.outputs, window.columns.outputs);
        if (task.b != task.a) plane.pad(view(task.b), padded, staging);
        T* out = static_cast<T*>(task.output) +
                 blocks.first_plane(block) * window.taps() * outputs;
        for (int64_t p = 0; p < block.width; ++p) {
          const A* image = padded + p * plane.elements();
          const A* centre = centres + p * outputs;
          for (int64_t kw = 0; kw < taps; ++kw) {
            plane.shift<T>(image, kw, shifted);
            T* to = out + kw * outputs;
            for (int64_t kh = 0; kh < window.rows.taps; ++kh) {
              kernels.subtract(centre, shifted + plane.run_of(kh), to, outputs,
                               streamed);
              to += taps * outputs;
            }
          }
          out += window.taps() * outputs;
        }
        if (streamed) kernels.end_stream();
      });
}

template <typename T>
void backward(const SubtractionBackward& task) {
  using A = Accumulator<T>;
  const Window& window = task.shape.window;
  const Plane plane(window);
  const ChannelBlocks blocks = blocks_of(task.shape);
  const int64_t outputs = window.outputs(), pixels = window.pixels();
  const int64_t taps = window.columns.taps;
  const RowKernels<T>& kernels = row_kernels<T>();
  for_each_job<A>(
      blocks.count,
      plane.elements() + plane.shifted_elements() + outputs +
          2 * blocks.width * pixels,
      [&](int64_t job, A* padded) {
        const ChannelBlock block = blocks[job];
        A* shifted = padded + plane.elements();
        A* centres = shifted + plane.shifted_elements();
        A* images[] = {centres + outputs,
                       centres + outputs + block.width * pixels};
        const T* g = static_cast<const T*>(task.grad_output) +
                     blocks.first_plane(block) * window.taps() * outputs;
        for (int64_t p = 0; p < block.width; ++p) {
          std::fill_n(padded, plane.elements(), A(0));
          std::fill_n(centres, outputs, A(0));
          for (int64_t kw = 0; kw < taps; ++kw) {
            std::fill_n(shifted, plane.shifted_elements(), A(0));
            const T* from = g + kw * outputs;
            for (int64_t kh = 0; kh < window.rows.taps; ++kh) {
              kernels.spread(from, centres, shifted + plane.run_of(kh),
                             outputs);
              from += taps * outputs;
            }
            plane.unshift<T>(shifted, kw, padded);
          }
          g += window.taps() * outputs;
          if (task.grad_b) plane.fold(padded, images[1] + p * pixels);
          if (!task.grad_a) continue;
          std::fill_n(padded, plane.elements(), A(0));
          kernels.scatter_rows(centres, padded + plane.centre(), plane.step(),
                               window.rows.outputs, window.columns.outputs);
          plane.fold(padded, images[0] + p * pixels);
        }
        void* const grads[] = {task.grad_a, task.grad_b};
        for (int i = 0; i < 2; ++i)
          if (grads[i])
            BlockView<T>(static_cast<T*>(grads[i]), pixels, blocks, block)
                .store(images[i], pixels, 0, pixels);
      });
}

bool fits(const SubtractionShape& shape) {
  return shape.planes() > 0 && Plane::scratch(shape.window) <= kMostScratch;
}

}  // namespace

void run_on_cpu(const SubtractionForward& task) {
  if (!fits(task.shape)) return simple::run_on_cpu(task);
  with_scalar_type(task.type,
                   [&](auto zero) { forward<decltype(zero)>(task); });
}

void run_on_cpu(const SubtractionBackward& task) {
  if (!fits(task.shape)) return simple::run_on_cpu(task);
  with_scalar_type(task.type,
                   [&](auto zero) { backward<decltype(zero)>(task); });
}

}  // namespace san::fast
