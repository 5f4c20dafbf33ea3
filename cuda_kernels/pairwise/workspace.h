// What the CUDA kernels of the fused pairwise attention need beside their
// outputs: memory that the caller allocates. On the host and on the device.
//
// A sum over the whole batch is taken in parts, one for each block of a fixed
// number of blocks, each in float64 and in a fixed order; then the parts are
// added, in order. How many there are depends on the sizes alone, and so do the
// bits of the result.
#ifndef CUDA_KERNELS_PAIRWISE_WORKSPACE_H_
#define CUDA_KERNELS_PAIRWISE_WORKSPACE_H_

#include "cuda_kernels/pairwise/tasks.h"

namespace san::pairwise {

constexpr int kThreads = 256;  // of every block

// How many channels a buffer has room for: whole vectors of four.
SAN_HOST_DEVICE constexpr int padded(int64_t channels) {
  return static_cast<int>((channels + 3) / 4 * 4);
}

// How a block leaves transpose(u) v, [height, width]: an item is 4 x 4 sums. If
// the block has more threads than items, it leaves several segments, each from
// a share of its rows: [segment, 16, items].
struct OuterSums {
  SAN_HOST_DEVICE OuterSums(int64_t height, int64_t width)
      : across(padded(width) / 4),
        items(padded(height) / 4 * across),
        segments(items < kThreads ? kThreads / items : 1) {}

  SAN_HOST_DEVICE int64_t elements() const {
    return int64_t(16) * items * segments;
  }
  SAN_HOST_DEVICE int64_t index(int segment, int row, int column) const {
    const int place = row % 4 * 4 + column % 4;
    return (int64_t(segment) * 16 + place) * items + row / 4 * across +
           column / 4;
  }

  int across, items, segments;
};

// A part: where its sums begin, and how many elements it has.
struct PairwisePart {
  int64_t first, second;  // [R] each
  int64_t table;          // [K, R]
  int64_t w1, w2;         // OuterSums of [R, R] and [G, R]
  int64_t elements;
};

// Which of these a task needs.
inline PairwisePart vectors_part(const PairwiseShape& s) {
  const int64_t R = s.relation_channels;
  return {0, R, 2 * R, 2 * R, 2 * R, 2 * R};
}
inline PairwisePart moments_part(const PairwiseShape& s) {
  const int64_t R = s.relation_channels, w1 = s.taps() * R;
  const int64_t end = w1 + OuterSums(R, R).elements();
  return {0, 0, 0, w1, end, end};
}
inline PairwisePart mapping_part(const PairwiseShape& s) {
  const int64_t R = s.relation_channels, table = 2 * R;
  const int64_t w1 = table + s.taps() * R;
  const int64_t w2 = w1 + OuterSums(R, R).elements();
  return {0, R, table, w1, w2, w2 + OuterSums(s.weight_channels, R).elements()};
}
inline PairwisePart part_of(const PairwiseDifference& task) {
  return vectors_part(task.shape);
}
inline PairwisePart part_of(const PairwiseMoments& task) {
  return moments_part(task.shape);
}
inline PairwisePart part_of(const PairwiseMomentsBackward& task) {
  return vectors_part(task.shape);
}
inline PairwisePart part_of(const PairwiseBackward& task) {
  return mapping_part(task.shape);
}

// The backward on tensor cores: the same, all of it dense.
struct TensorBackward {
  PairwiseShape shape;
};
inline PairwisePart part_of(const TensorBackward& task) {
  const int64_t R = task.shape.relation_channels, table = 2 * R;
  const int64_t w1 = table + task.shape.taps() * R, w2 = w1 + R * R;
  return {0, R, table, w1, w2, w2 + task.shape.weight_channels * R};
}

// The moments there, likewise.
struct TensorMoments {
  PairwiseShape shape;
};
inline PairwisePart part_of(const TensorMoments& task) {
  const int64_t R = task.shape.relation_channels, w1 = task.shape.taps() * R;
  return {0, 0, 0, w1, w1 + R * R, w1 + R * R};
}

// How many parts: as many as the multiprocessors of an H200, up to eight times,
// so that all end together, in at most 64 MiB or so; and no more than there is
// work for.
inline int64_t num_parts(const PairwiseShape& s, const PairwisePart& part) {
  constexpr int64_t kProcessors = 132, kMost = 8, kElements = 1 << 23;
  int64_t waves = kElements / part.elements / kProcessors;
  waves = waves > kMost ? kMost : waves < 1 ? 1 : waves;
  const int64_t work = (s.batch * s.height * s.width + 7) / 8;
  const int64_t parts = kProcessors * waves;
  return work < parts ? work : parts;
}

// The parts of a task at the beginning of its workspace.
struct Parts {
  template <typename Task>
  Parts(const Task& task, void* workspace)
      : at(part_of(task)),
        count(num_parts(task.shape, at)),
        sums(static_cast<double*>(workspace)) {}

  SAN_HOST_DEVICE double* part(int64_t block) const {
    return sums + block * at.elements;
  }

  PairwisePart at;
  int64_t count;
  double* sums;
};

// Of every pixel and group the backward's workspace has one number after the
// parts, in the type that the task computes in.
inline int64_t product_elements(const PairwiseShape& s) {
  return s.batch * s.height * s.width * s.weight_channels;
}

// float64 elements of a task's workspace.
template <typename Task>
int64_t workspace_elements(const Task& task) {
  const PairwisePart part = part_of(task);
  return num_parts(task.shape, part) * part.elements;
}
// Of the larger of two kinds of parts.
template <typename Task, typename Other>
int64_t most_part_elements(const Task& task, const Other& other) {
  const auto elements_of = [&](const PairwisePart& part) {
    return num_parts(task.shape, part) * part.elements;
  };
  const int64_t one = elements_of(part_of(task));
  const int64_t another = elements_of(part_of(other));
  return one > another ? one : another;
}
template <>
inline int64_t workspace_elements(const PairwiseBackward& task) {
  const int64_t products = product_elements(task.shape);
  return most_part_elements(task, TensorBackward{task.shape}) +
         (task.type == ScalarType::kFloat64 ? products : (products + 1) / 2);
}
template <>
inline int64_t workspace_elements(const PairwiseMoments& task) {
  return most_part_elements(task, TensorMoments{task.shape});
}

}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_WORKSPACE_H_
