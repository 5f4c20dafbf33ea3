// The fused pairwise attention on tensor cores: how the work is cut, and what a
// block keeps in shared memory. For .cu files only.
//
// A team of warps takes 16 pixels, two lines of eight, and visits their pairs
// offset by offset: a step has 16 pairs, the rows of its products. A block has
// a few teams, one below the other, which share a halo: of all other pixels of
// their pairs what these contribute, each read from memory once. Pixels of a
// footprint that lie outside the image are a pixel of zeros, and count 0 times.
//
// Of R = 2 G relation channels, G groups and M = 8 G value channels a warp of a
// team has 16, 8 and 64, so that what a lane holds is the same in every layer.
// With group = lane / 4 and member = lane % 4, a lane has rows `group` and
// group + 8 of the products, pixels of column `group`, and of each 8 columns
// 2 * member and the next. Where G is less than 8, the columns repeat the
// groups, and their lanes share a group's channels.
//
// Memory plan: [pixels of the halo + 1, pitch] bytes, in bfloat16 forward 35
// KiB in layer 1 and, as the halo is the whole image, 64 KiB in layer 4; where
// each of them begins; how often mirrored taps show pixels; 512 to 1536 bytes
// for each fragment that the warps of a team exchange; and backward the
// weights, in layer 4 51 KiB in bfloat16 and 153 KiB in float32, whose halo
// therefore has the relation's channels alone: the value's are read where they
// are, from a cache.
#ifndef CUDA_KERNELS_PAIRWISE_TENSOR_TILE_H_
#define CUDA_KERNELS_PAIRWISE_TENSOR_TILE_H_

#include <type_traits>

#include "cuda_kernels/cuda/copy.h"
#include "cuda_kernels/pairwise/tile.h"

namespace san::pairwise {
namespace {

constexpr int kChannels = 16;  // of the relation, that a warp has
constexpr int kColumns = 8;    // pixels of a line of a tile

// An element of float32 that is multiplied as exactly as float32 itself; see
// tensor_fragments.h. float stands for TF32.
struct SplitFloat {
  float value;
};
template <typename T>
constexpr bool kIsSplit = std::is_same_v<T, SplitFloat>;

// What a kernel knows when it is compiled.
template <typename Element, int kGroups>
struct Sizes {
  using T = Element;
  static constexpr int G = kGroups, R = 2 * G, M = 8 * G, F = 2 * R + M;
  static constexpr int kWarps = G < 8 ? 1 : G / 8;  // of a team
  static constexpr int kTeams = kWarps < 4 ? 4 / kWarps : 1;
  static constexpr int kThreads = 32 * kWarps * kTeams;
  static constexpr int kLines = 2 * kTeams;  // of a tile
  // Whether only the relation's channels are in the halo: no block has room for
  // those of the value besides, and the weights.
  static constexpr bool kFar = kIsSplit<T>;
  // Products of depth 16 for R, and channels of each of a lane's groups that it
  // has.
  static constexpr int kSteps = kWarps, kOwn = G < 8 ? G : 8;
};

// Where a thread is in its team, and what it has.
template <typename S>
struct Lane {
  __device__ Lane()
      : group((lane() & 31) >> 2),  // so that the compiler knows the range
        member(lane() & 3),
        warp(threadIdx.x / 32 % S::kWarps),
        team(threadIdx.x / 32 / S::kWarps) {}

  // The relation's channels: this one and the next, for n < 2.
  __device__ int channel(int n) const {
    return kChannels * warp + 8 * n + 2 * member;
  }
  __device__ static bool has(int channel) {
    return S::R % kChannels == 0 || channel < S::R;
  }
  // The weights' groups: this one and the next.
  __device__ int weight() const { return (8 * warp + 2 * member) % S::G; }
  // The value's channels: this one and the next, for j < kOwn.
  __device__ int value(int j) const {
    return (S::G < 8 ? member * S::kOwn * S::G : 8 * warp + 2 * member) +
           j * S::G;
  }
  // Whether it is the first that has its groups.
  __device__ bool leads() const { return S::G >= 8 || 2 * member < S::G; }

  int group, member, warp, team;
};

// How a task is cut into tiles.
struct Tiling {
  Tiling() = default;
  Tiling(const PairwiseShape& s, int lines)
      : height(static_cast<int>(s.height)),
        width(static_cast<int>(s.width)),
        kernel_size(static_cast<int>(s.kernel_size)),
        lines(lines),
        across(static_cast<int>((s.width + kColumns - 1) / kColumns)),
        down(static_cast<int>((s.height + lines - 1) / lines)) {}

  SAN_HOST_DEVICE int reach() const { return kernel_size / 2; }
  SAN_HOST_DEVICE int taps() const { return kernel_size * kernel_size; }
  // Pixels of the largest halo, within the image, and of the largest around it.
  SAN_HOST_DEVICE int halo() const {
    const int rows = lines + kernel_size - 1;
    const int columns = kColumns + kernel_size - 1;
    return (rows < height ? rows : height) *
           (columns < width ? columns : width);
  }
  SAN_HOST_DEVICE int places() const {
    return (lines + kernel_size - 1) * (kColumns + kernel_size - 1);
  }

  int height, width, kernel_size, lines;
  int across, down;  // tiles of an image
};

// A tap of the footprint, in the order of the table's rows.
struct Tap {
  __device__ Tap(int y, int k)
      : index(y * k), place(y * (kColumns + k - 1)), y(y), x(0), k(k) {}
  __device__ void operator++() {
    ++index;
    ++place;
    if (++x == k) {
      x = 0;
      ++y;
      place += kColumns - 1;
    }
  }

  int index, place;  // in the table, and in a tile with what it reaches
  int y, x, k;
};

// The bytes of a halo's pixel. An odd number of vectors, so that what the lanes
// of a warp load from eight pixels, 4 or 8 bytes each, lies in different banks.
template <typename T>
constexpr int pitch_of_bytes(int bytes) {
  constexpr int kVector = sizeof(T) == 2 ? 16 : 32;
  return ((bytes + kVector - 1) / kVector | 1) * kVector;
}

// The halo of a block whose pixels are, of their pairs, p or q.
template <typename S, Own own, int kPitch>
class Halo {
 public:
  SAN_HOST_DEVICE Halo(const Tiling& t, Arena& memory)
      : t_(t),
        pixels_(memory.take<unsigned char>((t.halo() + 1) * kPitch)),
        places_(memory.take<int>(t.places())),
        columns_(memory.take<float>(kColumns * t.kernel_size)),
        lines_(memory.take<float>(t.lines * t.kernel_size)) {}

  // ---- Once per tile, between barriers.

  __device__ void begin(unsigned tile) {
    const int reach = t_.reach();
    const unsigned line = tile / t_.across, image = line / t_.down;
    image_ = image;
    top_ = static_cast<int>(line - image * t_.down) * t_.lines;
    left_ = static_cast<int>(tile - line * t_.across) * kColumns;
    const int bottom = min(top_ + t_.lines, t_.height);
    first_line_ = max(top_ - reach, 0);
    first_column_ = max(left_ - reach, 0);
    halo_lines_ = min(bottom + reach, t_.height) - first_line_;
    halo_columns_ = min(left_ + kColumns + reach, t_.width) - first_column_;
    // Leaves out lines of taps that lie outside the image for the whole tile.
    const int up = bottom - 1, down = t_.height - 1 - top_;
    first_tap_ = max(reach - (own == Own::kP ? up : down), 0);
    end_tap_ = min(reach + (own == Own::kP ? down : up), 2 * reach) + 1;
#pragma unroll 1
    for (int i = threadIdx.x; i < kPitch / 4; i += S::kThreads)
      reinterpret_cast<uint32_t*>(pixels_ + nowhere())[i] = 0;
    find_places();
    count(columns_, kColumns, t_.width, left_);
    count(lines_, t_.lines, t_.height, top_);
  }

  // Asks for kCount elements of each pixel, of which memory has kStride, at kAt
  // bytes from where the pixel begins. `from` is on a boundary of 16 bytes,
  // plus some elements that every pixel's are behind; of 8, if E is not T.
  template <int kAt, int kStride, int kCount, typename E>
  __device__ void copy(const E* from) const {
    constexpr bool kVectors = std::is_same_v<E, typename S::T> &&
                              kAt % 16 == 0 && kStride * sizeof(E) % 16 == 0 &&
                              kCount * sizeof(E) % 16 == 0;
    constexpr int kBytes = kVectors ? 16 : 8;
    constexpr int kEach = kBytes / sizeof(E), kPieces = kCount / kEach;
    static_assert(kCount % kEach == 0 && kStride % kEach == 0);
    for_each_line(halo_lines_, halo_columns_ * kPieces, [&](int y, int i) {
      const int x = i / kPieces, piece = i % kPieces;
      const int pixel =
          (image_ * t_.height + first_line_ + y) * t_.width + first_column_ + x;
      copy_async<kBytes>(
          pixels_ + (y * halo_columns_ + x) * kPitch + kAt + piece * kBytes,
          from + int64_t(pixel) * kStride + piece * kEach);
    });
  }

  // ---- A pixel of the tile, in a line and a column of it.

  // Its index in the batch, or -1.
  __device__ int pixel(int line, int column) const {
    const int y = top_ + line, x = left_ + column;
    return y < t_.height && x < t_.width
               ? (image_ * t_.height + y) * t_.width + x
               : -1;
  }
  // The pixel of its pair at a tap.
  __device__ const unsigned char* other(int line, int column,
                                        const Tap& tap) const {
    const int width = kColumns + tap.k - 1, last = (tap.k - 1) * (width + 1);
    return pixels_ + places_[line * width + column +
                             (own == Own::kP ? tap.place : last - tap.place)];
  }
  // How often the pair counts.
  __device__ float times(int line, int column, const Tap& tap) const {
    return lines_[line * t_.kernel_size + tap.y] *
           columns_[column * t_.kernel_size + tap.x];
  }

  // Pixels from one of the tile to that of its pair, in the batch.
  __device__ int away(const Tap& tap) const {
    const int reach = t_.reach();
    const int steps = (tap.y - reach) * t_.width + tap.x - reach;
    return own == Own::kP ? steps : -steps;
  }

  // Lines of taps that have pairs.
  __device__ int first_tap() const { return first_tap_; }
  __device__ int end_tap() const { return end_tap_; }

 private:
  __device__ int nowhere() const {
    return halo_lines_ * halo_columns_ * kPitch;
  }

  // Calls f(line, i) for each, a warp for a line.
  template <typename F>
  __device__ static void for_each_line(int lines, int count, F f) {
#pragma unroll 1
    for (int line = threadIdx.x / 32; line < lines; line += S::kThreads / 32)
#pragma unroll 1
      for (int i = lane(); i < count; i += 32) f(line, i);
  }

  __device__ void find_places() const {
    const int width = kColumns + t_.kernel_size - 1;
    const int y0 = top_ - t_.reach() - first_line_;
    const int x0 = left_ - t_.reach() - first_column_;
    for_each_line(t_.lines + t_.kernel_size - 1, width, [&](int line, int i) {
      const int y = y0 + line, x = x0 + i;
      const bool inside =
          y >= 0 && y < halo_lines_ && x >= 0 && x < halo_columns_;
      places_[line * width + i] =
          inside ? (y * halo_columns_ + x) * kPitch : nowhere();
    });
  }

  __device__ void count(float* counts, int pixels, int size, int first) const {
    const int k = t_.kernel_size, reach = t_.reach();
    for_each_line(pixels, k, [&](int pixel, int tap) {
      const int mine = first + pixel, away = tap - reach;
      const int p = own == Own::kP ? mine : mine - away;
      counts[pixel * k + tap] =
          static_cast<float>(times_shown_once(size, p, p + away, reach));
    });
  }

  const Tiling& t_;
  unsigned char* pixels_;
  int* places_;              // of the tile and what it reaches, row by row
  float *columns_, *lines_;  // [pixels, k]
  int image_ = 0;
  int top_ = 0, left_ = 0;  // of the tile
  int first_line_ = 0, first_column_ = 0, halo_lines_ = 0, halo_columns_ = 0;
  int first_tap_ = 0, end_tap_ = 0;
};

// The shared memory of a block, whose buffers Memory(tiling, arena) takes.
template <typename Memory>
size_t shared_bytes_of(const Tiling& tiling) {
  Arena arena(nullptr);
  Memory memory(tiling, arena);
  return arena.bytes();
}

// Whether the tiles and the pixels of a shape can be counted in 32 bits, and a
// block has room for a tile.
template <typename S, typename Memory>
bool has_tiles(const PairwiseShape& s) {
  constexpr int64_t kMost = 0x7fffffff, kMostTaps = 64;
  const int64_t reach = s.kernel_size / 2;
  if (s.batch < 1 || s.height <= reach || s.width <= reach ||
      s.height > kMost / 2 || s.width > kMost / 2 || s.kernel_size > kMostTaps)
    return false;
  const Tiling t(s, S::kLines);
  return __int128(s.batch) * t.across * t.down <= kMost &&
         __int128(s.batch) * s.height * s.width <= kMost &&
         shared_bytes_of<Memory>(t) <= most_shared_bytes();
}

template <typename S>
int64_t tiles_of(const PairwiseShape& s) {
  const Tiling t(s, S::kLines);
  return s.batch * t.across * t.down;
}

// Launches a kernel on the tiles of a shape: by a block for each of `parts`, or
// else one for each tile.
template <typename S, typename Memory, typename Problem>
void launch_on_tiles(void (*kernel)(Problem), Problem problem,
                     const PairwiseShape& s, int64_t parts, void* stream) {
  problem.tiling = Tiling(s, S::kLines);
  launch(kernel,
         {static_cast<unsigned>(parts > 0 ? parts : tiles_of<S>(s)),
          S::kThreads, shared_bytes_of<Memory>(problem.tiling)},
         stream, problem);
}

inline bool on_boundary(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// Calls f(Sizes<T, G>()) with those of a shape; returns whether there are any.
template <typename T, typename F>
bool with_sizes(const PairwiseShape& s, F f) {
  const int64_t G = s.weight_channels;
  if (s.relation_channels != 2 * G || s.value_channels != 8 * G) return false;
  switch (G) {
    case 2:
      if constexpr (!kIsSplit<T>) return f(Sizes<T, 2>());
      return false;
    case 8:
      return f(Sizes<T, 8>());
    case 16:
      return f(Sizes<T, 16>());
    case 32:
      return f(Sizes<T, 32>());
    case 64:
      return f(Sizes<T, 64>());
    default:
      return false;
  }
}

// Calls f(T()) with the type whose products tensor cores make of a task's;
// returns what it returns, or false if there is none.
template <typename F>
bool with_tensor_type(ScalarType type, bool allow_tf32, F f) {
  switch (type) {
    case ScalarType::kBfloat16:
      return f(bfloat16());
    case ScalarType::kFloat16:
      return f(float16());
    case ScalarType::kFloat32:
      return (allow_tf32 && f(float())) || f(SplitFloat());
    default:
      return false;
  }
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TENSOR_TILE_H_
