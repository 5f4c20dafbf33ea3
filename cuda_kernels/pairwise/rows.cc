// Compiled once per instruction set. Only the table at the end is visible
// outside.
#include "cuda_kernels/pairwise/rows.h"

#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/pairwise/pixel_backward.h"
#include "cuda_kernels/pairwise/strip.h"
#include "cuda_kernels/pairwise/strip_backward.h"

namespace san::pairwise {
namespace {

template <typename A, typename B>
int64_t elements(const B& buffers) {
  return buffers.arena.end() / sizeof(A) + 64 / sizeof(A);
}

// Of A, even where T packs more tightly.
template <typename T>
int64_t packed_elements(int64_t depth, int64_t columns) {
  return depth * padded<Accumulator<T>>(columns);
}

template <typename T>
void pack(const PairwiseShape& shape, bool attention,
          const Accumulator<T>* from, int64_t depth, int64_t columns,
          int64_t step, int64_t column_step, void* to) {
  using A = Accumulator<T>;
  static_assert(kStep<T> == 1 ||
                kMostStripChannels<T> <= kMostBackwardStripChannels);
  if (attention && in_strips<T>(shape))
    return pack(from, depth, columns, step, column_step, static_cast<A*>(to));
  pack(from, depth, columns, step, column_step, static_cast<T*>(to));
}

// One pixel after the other: its whole footprint passes through the mapping
// while it is in the first cache, and only the result leaves.
template <typename T, typename A = Accumulator<T>>
void forward_by_pixels(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
                       A* scratch, T* output, A* log_sum_exp) {
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w) {
    const Pixel<T> pixel(problem, b, n, h, w);
    pixel.relate();
    pixel.hidden();
    pixel.map(b.z, pixel.R, problem.w2, pixel.G, nullptr, b.weights, b.groups,
              false);
    pixel.soften(log_sum_exp);
    pixel.aggregate(output);
  }
}

template <typename T>
int64_t forward_rows(const PairwiseShape& shape) {
  return in_strips<T>(shape) ? kStripRows : 1;
}

template <typename T>
int64_t forward_scratch_elements(const PairwiseShape& shape) {
  using A = Accumulator<T>;
  return in_strips<T>(shape) ? elements<A>(StripBuffers<A>(shape, nullptr))
                             : elements<A>(Buffers<T>(shape, nullptr));
}

template <typename T, typename A = Accumulator<T>>
void forward(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
             int64_t end, A* scratch, T* output, A* log_sum_exp) {
  if (in_strips<T>(problem.shape))
    return forward_in_strips(problem, n, h, end, scratch, output, log_sum_exp);
  for (; h < end; ++h)
    forward_by_pixels(problem, n, h, scratch, output, log_sum_exp);
}

template <typename T>
int64_t backward_scratch_elements(const PairwiseShape& shape) {
  using A = Accumulator<T>;
  return backward_in_strips<T>(shape)
             ? elements<A>(BackwardStripBuffers<A>(shape, nullptr))
             : elements<A>(Buffers<T>(shape, nullptr));
}

// Everything up to the logits again, then back.
template <typename T, typename A = Accumulator<T>>
void backward(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
              A* scratch, const Attended<T>& attended, A* grad_features,
              const MappingGradients<A>& sums) {
  if (backward_in_strips<T>(problem.shape))
    return row_backward_in_strips(problem, n, h, scratch, attended,
                                  grad_features, sums);
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w) {
    const BackwardPixel<T> pixel(problem, b, n, h, w);
    const int64_t R = pixel.R, G = pixel.G;
    pixel.relate();
    pixel.hidden();
    pixel.map(b.z, R, problem.w2, G, nullptr, b.weights, b.groups, false);
    pixel.weigh(attended.log_sum_exp);
    pixel.aggregate_backward(attended.grad_output, grad_features);
    pixel.soften_backward(attended.grad_output, attended.output);
    pixel.add_outer(b.z, R, b.grad_logits, G, sums.w2, b.pitch);
    pixel.map(b.grad_logits, G, problem.w2_transposed, R, nullptr, b.grad_a,
              b.pitch, false);
    // The logits' rows are not needed any more.
    T* grad_z = b.grad_logits;
    pixel.hidden_backward(b.z, b.grad_a, grad_z, sums.table);
    pixel.add_outer(b.a, R, grad_z, R, sums.w1, b.pitch);
    pixel.map(grad_z, R, problem.w1_transposed, R, nullptr, b.grad_a, b.pitch,
              false);
    pixel.relate_backward(b.grad_a, false, grad_features, sums);
  }
}

template <typename T, typename A = Accumulator<T>>
void difference(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
                A* scratch, const MappingGradients<A>& sums) {
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w)
    BackwardPixel<T>(problem, b, n, h, w).add_difference(sums.table);
}

template <typename T, typename A = Accumulator<T>>
void difference_backward(const PairwiseProblem<T>& problem, int64_t n,
                         int64_t h, A* scratch, A* grad_features) {
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w)
    BackwardPixel<T>(problem, b, n, h, w)
        .add_difference_backward(grad_features);
}

template <typename T, typename A = Accumulator<T>>
void moments(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
             A* scratch, const MappingGradients<A>& sums) {
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w) {
    const BackwardPixel<T> pixel(problem, b, n, h, w);
    pixel.relate();
    pixel.add_moments(sums);
  }
}

template <typename T, typename A = Accumulator<T>>
void moments_backward(const PairwiseProblem<T>& problem, int64_t n, int64_t h,
                      A* scratch, A* grad_features,
                      const MappingGradients<A>& sums) {
  const Buffers<T> b(problem.shape, scratch);
  for (int64_t w = 0; w < problem.shape.width; ++w) {
    const BackwardPixel<T> pixel(problem, b, n, h, w);
    pixel.relate();
    pixel.map(b.a, pixel.R, problem.w1, pixel.R,
              pixel.rows_of(problem.table, b.grad_a), b.grad_a, b.pitch, false);
    pixel.relate_backward(b.grad_a, true, grad_features, sums);
  }
}

template <typename T>
int64_t scratch_elements(const PairwiseShape& shape) {
  using A = Accumulator<T>;
  return std::max(elements<A>(Buffers<T>(shape, nullptr)),
                  backward_scratch_elements<T>(shape));
}

template <typename T, typename A = Accumulator<T>>
void round(const A* from, int64_t count, T* to) {
  cpu::for_each_vector<A>(count, [&](auto lanes, int64_t i) {
    cpu::store_rounded(lanes, to + i, lanes.load(from + i));
  });
}

template <typename T>
int64_t pitch(const PairwiseShape& shape) {
  return Buffers<T>(shape, nullptr).pitch;
}

}  // namespace

template <typename T>
PairwiseRows<T> SAN_TABLE(pairwise_rows)() {
#ifndef __AVX512F__
  if constexpr (kStep<T> > 1)
    return {};
  else
#endif
    return {packed_elements<T>,
            pack<T>,
            pitch<T>,
            scratch_elements<T>,
            forward_rows<T>,
            forward_scratch_elements<T>,
            forward<T>,
            backward<T>,
            difference<T>,
            difference_backward<T>,
            moments<T>,
            moments_backward<T>,
            round<T>};
}

template PairwiseRows<float> SAN_TABLE(pairwise_rows)();
template PairwiseRows<double> SAN_TABLE(pairwise_rows)();
template PairwiseRows<bfloat16> SAN_TABLE(pairwise_rows)();

}  // namespace san::pairwise
