// A tile of the first stage's sizes, which the compiler knows: see tile.h; the
// other published ones are computed on tensor cores. For .cu files only.
//
// A tile has so many pixels that all threads have a (pixel, group) each, and so
// many taps that a footprint of 3 is a whole number of chunks. Others are
// right, too; their last chunk is partly empty.
#ifndef CUDA_KERNELS_PAIRWISE_FIXED_TILE_H_
#define CUDA_KERNELS_PAIRWISE_FIXED_TILE_H_

#include <cstdint>
#include <initializer_list>

#include "cuda_kernels/pairwise/workspace.h"

namespace san::pairwise {
namespace {

SAN_HOST_DEVICE constexpr int pitch_of(int64_t channels) {
  const int elements = padded(channels);
  return elements % 8 == 0 ? elements + 4 : elements;
}

constexpr int log2_of(int x) { return x > 1 ? 1 + log2_of(x / 2) : 0; }

// No pixel, in Buffers::other.
constexpr int kNoPixel = -0x7fffffff;

template <int kR, int kG, int kM>
struct FixedTile {
  static constexpr bool kFixed = true;
  // Of a multiprocessor: the widest have no shared memory for two.
  static constexpr int kBlocks = kR > 64 ? 1 : 2;
  using Index = int;
  static constexpr int R = kR, G = kG, M = kM, features = 2 * R + M;
  static constexpr int pixel_bits = log2_of(kThreads / G);
  static constexpr int chunk = R < 16 ? 9 : 7;
  static constexpr bool resident = true;
  // The channels of the value that a thread has: J times four side by side,
  // which use the same weights.
  static constexpr int J = 4, step = M / J;
  static_assert(kThreads == G << pixel_bits && step % (G < 4 ? 4 : G) == 0);

  FixedTile() = default;
  explicit FixedTile(const PairwiseShape& s)
      : height(static_cast<int>(s.height)),
        width(static_cast<int>(s.width)),
        count(static_cast<int>(s.batch * s.height * s.width)),
        kernel_size(static_cast<int>(s.kernel_size)),
        taps(static_cast<int>(s.taps())) {}

  SAN_HOST_DEVICE static constexpr int pixels() { return 1 << pixel_bits; }
  SAN_HOST_DEVICE static constexpr int rows() { return chunk << pixel_bits; }
  SAN_HOST_DEVICE static constexpr int pitch() { return pitch_of(R); }
  SAN_HOST_DEVICE int64_t tiles() const {
    return (count + pixels() - 1) >> pixel_bits;
  }

  int height, width;
  int count;  // pixels of the batch
  int kernel_size, taps;
};

// Whether a footprint is mirrored once at most, as FixedBlock::shows has it,
// and 32 bits are enough for pixels and, from a tile on, for elements.
inline bool fits_fixed_tile(const PairwiseShape& s) {
  constexpr int64_t kMost = 1 << 30;
  const int64_t reach = s.kernel_size / 2;
  return s.height > reach && s.width > reach && s.kernel_size < 256 &&
         s.batch < kMost && s.height < kMost && s.width < kMost / 256 &&
         static_cast<__int128>(s.batch) * s.height * s.width < kMost &&
         (reach + 1) * s.width * s.feature_channels() < kMost;
}

// Calls f(tile) with the tile of these sizes, if there is one and the images
// begin on vectors of four.
template <typename F>
void with_fixed_tile(const PairwiseShape& s,
                     std::initializer_list<const void*> images, F f) {
  if (!fits_fixed_tile(s)) return;
  for (const void* image : images)
    if (reinterpret_cast<uintptr_t>(image) % 16 != 0) return;
  const auto call = [&](auto tile) {
    using Sizes = decltype(tile);
    if (s.relation_channels == Sizes::R && s.weight_channels == Sizes::G &&
        s.value_channels == Sizes::M)
      f(Sizes(s));
  };
  call(FixedTile<4, 2, 16>());
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_FIXED_TILE_H_
