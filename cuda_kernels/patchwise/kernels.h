// The inner loops of the fused patchwise attention: small matrix products whose
// columns are pixels, compiled once per instruction set and chosen at run time.
// They know nothing of windows, padding or threads.
//
// Every run of `columns` elements is in scratch memory that may be read and
// written up to a multiple of kColumns; what lies there beyond is never used.
#ifndef CUDA_KERNELS_PATCHWISE_KERNELS_H_
#define CUDA_KERNELS_PATCHWISE_KERNELS_H_

#include <cstdint>
#include <vector>

#include "cuda_kernels/scalar_types.h"

namespace san::patchwise {

// A multiple of the widest vector, for float and for double.
constexpr int64_t kColumns = 16;

// For each row m < rows and column i < columns:
//   out[m * out_stride + i] = start + sum over k < terms of
//       w[k * w_stride + m] * x[x_offsets[k] + i]
// where start is bias[m], or the old value of out if bias is null; with a
// scale, max(0, scale[k] * x + shift[k]) takes the place of x.
template <typename A>
struct Mix {
  const A* w;
  const A* bias;
  const A* x;
  const A* scale;
  const A* shift;
  A* out;
  const int64_t* x_offsets;
  int64_t rows, terms, columns;
  int64_t w_stride, out_stride;
};

// The same in pairs of bfloat16, see in_pairs(): x, scaled and rectified or
// not, is rounded, once for all rows. Of terms 2 k and 2 k + 1 the weights of
// row m are w[2 * (k * w_stride + m)] and the one behind it; a term that is
// missing has weight zero.
struct MixPairs {
  const bfloat16* w;
  const float* bias;
  const float* x;
  const float* scale;
  const float* shift;
  float* out;
  const int64_t* x_offsets;
  int64_t rows, terms, columns;
  int64_t w_stride, out_stride;
  float* pairs;  // room for pair_elements(terms)
};
constexpr int64_t pair_elements(int64_t terms) {
  return (terms + 1) / 2 * 3 * kColumns;
}

// Adds the weights of `rows` rows and some terms to those in pairs; that of a
// row and a term is from[row * row_step + term * term_step].
inline void append_pairs(const float* from, int64_t rows, int64_t row_step,
                         int64_t terms, int64_t term_step,
                         std::vector<bfloat16>& to) {
  for (int64_t k = 0; k < terms; k += 2)
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t term = k; term < k + 2; ++term)
        to.push_back(bfloat16::round(
            term < terms ? from[m * row_step + term * term_step] : 0.0f));
}

// For each row m < rows and n < others:
//   out[m * out_stride + n * out_step] +=
//       sum over i < columns of x[m * x_stride + i] * y[n * y_stride + i]
// Columns beyond `columns` count too: they must be zero in x or in y.
template <typename A>
struct Gram {
  const A* x;
  const A* y;
  A* out;
  int64_t rows, others, columns;
  int64_t x_stride, y_stride, out_stride, out_step;
};

// For each channel c < channels and column i < columns:
//   out[c * out_stride + i] += sum over t < terms of
//       w[t * w_stride + i] * x[c * x_stride + x_offsets[t] + i]
template <typename A>
struct Weigh {
  const A* w;
  const A* x;
  A* out;
  const int64_t* x_offsets;
  int64_t terms, channels, columns;
  int64_t w_stride, x_stride, out_stride;
};

// The gradients of Weigh. For each term t < terms and column i < columns:
//   grad_w[t * w_stride + i] = sum over c < channels of
//       grad[c * grad_stride + i] * x[c * x_stride + x_offsets[t] + i]
// and for each channel c
//   grad_x[c * x_stride + x_offsets[t] + i] +=
//       w[t * w_stride + i] * grad[c * grad_stride + i]
template <typename A>
struct WeighGradients {
  const A* w;
  const A* x;
  const A* grad;
  A* grad_w;
  A* grad_x;
  const int64_t* x_offsets;
  int64_t terms, channels, columns;
  int64_t w_stride, x_stride, grad_stride;
};

// The gradients of y = max(0, scale[t] * x[x_offsets[t] + i] + shift[t]).
// On entry grad[t * stride + i] is the gradient of y. Adds the gradients of x,
// scale and shift to theirs, and leaves y in grad.
template <typename A>
struct Rectified {
  const A* x;
  const A* scale;
  const A* shift;
  A* grad;
  A* grad_x;
  A* grad_scale;
  A* grad_shift;
  const int64_t* x_offsets;
  int64_t terms, columns, stride;
};

// Some channels of `pixels` pixels, as T in channels-last, of an image whose
// pixels are `pitch` elements apart, and as A in rows, one channel each, that
// are `stride` elements apart.
template <typename T, typename A>
struct Strip {
  T* image;
  A* rows;
  int64_t pixels, channels, pitch, stride;
};

// The core where weight channels fill vectors, kColumns of them at a time,
// called lanes: [..., lane] below. Of taps there is an even number, so that a
// row is whole for every instruction set.
constexpr int64_t kLanePixels = 24;  // whose weights are made at once
constexpr int64_t lane_row(int64_t taps) {
  return (taps + 1) / 2 * 2 * kColumns;
}
// Left factors of products: rows of so many elements are so far apart, and what
// has a row of taps is in chunks of kChunkTaps, [chunk, pixel, tap, lane].
constexpr int64_t lane_pitch(int64_t columns) {
  return (columns <= 128 ? 128 : columns) + kColumns;
}
constexpr int64_t kChunkTaps = 8;
constexpr int64_t kChunkPitch = lane_pitch(kChunkTaps * kColumns);
constexpr int64_t kChunk = kLanePixels * kChunkPitch;
constexpr int64_t lane_chunks(int64_t taps) {
  return (taps + kChunkTaps - 1) / kChunkTaps;
}
inline bool fills_lanes(int64_t weight_channels) {
  return weight_channels == kColumns || weight_channels % (2 * kColumns) == 0;
}

// Packs the weight [lane, K, G'] and bias [lane, K] of some lanes, as
// [G', lane_row(K)] and [lane_row(K)], and if `turned` is not null as
// [K * lane, G'].
template <typename T>
struct LaneWeight {
  using A = Accumulator<T>;
  const A *weight, *bias;
  int64_t weight_channels, taps;
  void* packed;  // these two of elements of the product
  void* turned;
  A *packed_bias, *scratch;  // [lane_row(K)], [G', lane_row(K)]
};

// Some lanes of neighbouring pixels. value is [pixel, member, weight channel]
// of the batch, output that of these pixels, both from the first lane on;
// sources says which pixel each tap shows.
template <typename T>
struct LaneForward {
  using A = Accumulator<T>;
  int64_t pixels, weight_channels, taps, members;
  const A* hidden;  // [pixels, G]
  const void* weight;
  const A* bias;
  const T* value;
  int64_t pitch;
  const int64_t* sources;  // [pixels, K]
  T* output;
  int64_t output_pitch;
  A* scratch;  // lane_scratch()
};
constexpr int64_t lane_scratch(int64_t weight_channels, int64_t taps) {
  return kLanePixels * (lane_row(taps) + lane_pitch(weight_channels));
}

// Adds to the gradients: those of hidden [pixels, G], of value
// [pixel, member, lane], whose pixels are numbered as `sources` does, of the
// weight [K * lane, G'] and of the bias [K * lane].
template <typename T>
struct LaneBackward {
  using A = Accumulator<T>;
  LaneForward<T> forward;  // its scratch: lane_backward_scratch()
  const void* turned;
  const T* grad_output;
  int64_t grad_pitch;
  A *grad_hidden, *grad_value, *grad_weight, *grad_bias;
};
constexpr int64_t lane_backward_scratch(int64_t weight_channels, int64_t taps) {
  return lane_scratch(weight_channels, taps) +
         (lane_chunks(taps) + 2) * kChunk + kLanePixels * weight_channels;
}

// The hidden layer, where relation channels fill vectors, too; the tap before
// all others is phi, and K + 1 is T below.
//
// Packs what belongs to lanes, the relation channels from `first` on: scale and
// shift [S] as [T, lane], the weight as [T * lane, G], and if `packed` is not
// null as [G, lane_row(T)].
template <typename T>
struct RelationWeight {
  using A = Accumulator<T>;
  const A *weight, *transposed;  // [G, S], [S, G]
  const A *scale, *shift;
  int64_t first, relation_channels, weight_channels, taps;
  void *turned, *packed;                     // of elements of the product
  A *packed_scale, *packed_shift, *scratch;  // [G, lane_row(T)]
};

// What lanes add to hidden, or begin it with, for neighbouring pixels. psi is
// that of the batch, phi that of these pixels, both from the first lane on.
template <typename T>
struct RelationForward {
  using A = Accumulator<T>;
  int64_t pixels, weight_channels, taps;
  const T *phi, *psi;
  int64_t phi_pitch, psi_pitch;
  const int64_t* sources;  // [pixels, K]
  const A *scale, *shift;
  const void* turned;
  A* hidden;  // [pixels, G]
  bool add;
  A* scratch;  // kChunk
};

// Writes the gradient of phi, and adds to those of psi [pixel, lane], whose
// pixels are numbered as `sources` does, of scale and shift [T, lane] and of
// the weight [T * lane, G].
template <typename T>
struct RelationBackward {
  using A = Accumulator<T>;
  RelationForward<T> forward;  // its scratch: relation_backward_scratch()
  const void* packed;
  const A* grad_hidden;  // [pixels, G]
  T* grad_phi;
  int64_t grad_phi_pitch;
  A *grad_psi, *grad_scale, *grad_shift, *grad_weight;
};
constexpr int64_t relation_backward_scratch(int64_t weight_channels,
                                            int64_t taps) {
  return kLanePixels * (2 * lane_row(taps + 1) + lane_pitch(weight_channels) +
                        weight_channels);
}

template <typename T>
struct LaneKernels {
  void (*pack)(const LaneWeight<T>&);
  void (*forward)(const LaneForward<T>&);
  void (*backward)(const LaneBackward<T>&);
  void (*pack_relation)(const RelationWeight<T>&);
  void (*relation_forward)(const RelationForward<T>&);
  void (*relation_backward)(const RelationBackward<T>&);
};

template <typename T>
struct PatchwiseKernels {
  using A = Accumulator<T>;
  void (*load)(const Strip<const T, A>&);   // rows from the image
  void (*store)(const Strip<T, const A>&);  // the image from rows
  bool (*has_nan)(const A*, int64_t count);
  void (*mix)(const Mix<A>&);
  void (*mix_pairs)(const MixPairs&);  // null where in_pairs() is never true
  void (*gram)(const Gram<A>&);
  void (*weigh)(const Weigh<A>&);
  void (*weigh_gradients)(const WeighGradients<A>&);
  void (*rectified)(const Rectified<A>&);
  LaneKernels<T> lanes;
  LaneKernels<T> lanes_in_pairs;  // null likewise
};

// The table for the instruction set in use (cpu/instruction_set.h).
template <typename T>
const PatchwiseKernels<T>& patchwise_kernels();

// Whether so many rows of what is of type T are mixed in pairs: in bfloat16, if
// the processor multiplies them and they pay.
template <typename T>
bool in_pairs(int64_t rows);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_KERNELS_H_
