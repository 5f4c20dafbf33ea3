// The fused pairwise attention on CUDA: how the work is cut into blocks, and
// what a block keeps in shared memory. For .cu files only.
//
// A block takes P pixels of the batch in a row, whatever lines and images they
// lie in, and passes their pairs of pixels through the mapping, T taps at a
// time: P * T rows of R channels. Nothing with all K taps is ever made.
//
// Every pair (p, q) of a pixel p and a pixel q of its footprint is visited once
// at its offset q - p. It counts as often as mirrored taps show q, and not at
// all where the offset leaves the image; see tasks.h.
//
// The sizes P and T are chosen for any shape, a Tile, and for the published
// ones in float32 the compiler knows all sizes, a FixedTile. The steps of a
// block are written once, in block.h; those that a FixedTile makes faster are
// in fixed_block.h. Kernels do not see the difference.
//
// Memory plan, in shared memory: w1 [R, R] and w2 [G, R], if they fit; some
// buffers of [P * T, pitch]; and [P, R], [P, G] and [P, M] for what is summed
// over the taps. Forward in layer 1 (R 16, G 8, M 64, float) that is 44 KiB for
// 16 pixels, in layer 4 (R 128, G 64, M 512) 142 KiB for 4, backward about
// twice as much. R and G are padded with zeros to whole vectors of four; the
// pitch is an odd number of those, so that rows next to each other lie in
// different banks.
#ifndef CUDA_KERNELS_PAIRWISE_TILE_H_
#define CUDA_KERNELS_PAIRWISE_TILE_H_

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda_kernels/cuda/arena.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/pairwise/fixed_tile.h"
#include "cuda_kernels/pairwise/workspace.h"

namespace san::pairwise {
namespace {

// Which pixel of its pairs a block owns. A block that owns p writes what is
// summed over q, and the other way round: so every gradient is a gather.
enum class Own { kP, kQ };

// How often the taps of pixel p show pixel q, along an axis: mirrored taps show
// again what others do. 0 for pixels outside. The axis is at least as long that
// it is mirrored once at each end.
template <typename Int>
SAN_HOST_DEVICE int times_shown_once(Int size, Int p, Int q, Int reach) {
  const Int last = size - 1;
  if (p < 0 || p > last || q < 0 || q > last) return 0;
  return 1 + (q > 0 && p + q <= reach) +
         (q < last && last - p + last - q <= reach);
}

// Of any axis.
SAN_HOST_DEVICE int times_shown(int64_t size, int64_t p, int64_t q,
                                int64_t kernel_size) {
  const int64_t reach = kernel_size / 2;
  if (reach < size) return times_shown_once(size, p, q, reach);
  const Axis axis = {size,  size, kernel_size,          1,
                     reach, 1,    PaddingMode::kReflect};
  int count = 0;
  if (p >= 0 && p < size && q >= 0 && q < size)
    for (int64_t tap = 0; tap < kernel_size; ++tap)
      count += axis.source(axis.position(p, tap)) == q;
  return count;
}

// The sizes of a task as its kernels take them, of any task.
struct Tile {
  static constexpr bool kFixed = false;
  static constexpr int kBlocks = 0;  // of a multiprocessor; by the type
  using Index = int64_t;             // of pixels

  Tile() = default;
  Tile(const PairwiseShape& s, int pixel_bits, int64_t chunk, bool resident)
      : height(s.height),
        width(s.width),
        count(s.batch * s.height * s.width),
        features(s.feature_channels()),
        kernel_size(static_cast<int>(s.kernel_size)),
        taps(static_cast<int>(s.taps())),
        R(static_cast<int>(s.relation_channels)),
        G(static_cast<int>(s.weight_channels)),
        M(static_cast<int>(s.value_channels)),
        pixel_bits(pixel_bits),
        chunk(static_cast<int>(chunk)),
        resident(resident) {}

  SAN_HOST_DEVICE int pixels() const { return 1 << pixel_bits; }
  SAN_HOST_DEVICE int rows() const { return padded(chunk << pixel_bits); }
  SAN_HOST_DEVICE int pitch() const { return pitch_of(R > G ? R : G); }
  SAN_HOST_DEVICE int64_t tiles() const {
    return (count + pixels() - 1) >> pixel_bits;
  }

  int64_t height, width;
  int64_t count;     // pixels of the batch
  int64_t features;  // channels of a pixel, F
  int kernel_size, taps;
  int R, G, M;
  int pixel_bits;  // P = 1 << pixel_bits
  int chunk;       // T
  bool resident;   // whether w1 and w2 are in shared memory
};

// What a kernel keeps in shared memory. Its `Needs` say how much: kRowBuffers,
// kMatrices (w1, then w2) and kRelationSums, and whether kValueSums and
// kSoftmax.
template <typename A, typename Needs, typename Tile>
class Buffers {
 public:
  SAN_HOST_DEVICE Buffers(const Tile& t, unsigned char* begin) : arena_(begin) {
    const int P = t.pixels(), weight_pitch = pitch_of(t.R);
    const int per_pixel = Tile::kFixed ? 1 : t.kernel_size;
    other = arena_.take<typename Tile::Index>(t.rows());
    times = arena_.take<A>(t.rows());
    row_counts = arena_.take<int>(P * per_pixel);
    column_counts = arena_.take<int>(P * per_pixel);
    if (Tile::kFixed) table = arena_.take<A>(t.chunk * t.R);
    factor = arena_.take<A>(padded(t.R));
    own = arena_.take<A>(P * padded(t.R));
    for (int i = 0; i < Needs::kRowBuffers; ++i)
      rows[i] = arena_.take<A>(t.rows() * t.pitch());
    if (t.resident && Needs::kMatrices > 0)
      w1 = arena_.take<A>(padded(t.R) * weight_pitch);
    if (t.resident && Needs::kMatrices > 1)
      w2 = arena_.take<A>(padded(t.G) * weight_pitch);
    for (int i = 0; i < Needs::kRelationSums; ++i)
      relation[i] = arena_.take<A>(P * t.R);
    if (Needs::kValueSums) value = arena_.take<A>(P * t.M);
    if (Needs::kSoftmax) {
      top = arena_.take<A>(P * t.G);
      total = arena_.take<A>(P * t.G);
      rescale = arena_.take<A>(P * t.G);
    }
  }

  SAN_HOST_DEVICE size_t bytes() const { return arena_.bytes(); }

  // Of each row: the pixel that its pair does not own, counted through the
  // batch, or -1, and how often the pair counts. In a FixedTile the pixel is
  // counted from the tile's first one, and kNoPixel is what -1 is.
  typename Tile::Index* other;
  A* times;
  // How often mirrored taps show a pixel, along each axis: [P, k]. In a
  // FixedTile the pixels' rows and columns in their image: [P].
  int *row_counts, *column_counts;
  A* table = nullptr;  // of the chunk, [T, R], in a FixedTile
  // a = relu(own + factor * the other pixel's feature): [P, R] and [R].
  A *factor, *own;
  A* rows[Needs::kRowBuffers + 1];
  A *w1 = nullptr, *w2 = nullptr;
  A* relation[Needs::kRelationSums + 1];
  A* value;
  A *top, *total, *rescale;

 private:
  Arena arena_;
};

// The shared memory that a kernel takes.
template <typename A, typename Needs, typename Tile>
size_t shared_bytes(const Tile& tile) {
  return Buffers<A, Needs, Tile>(tile, nullptr).bytes();
}

[[noreturn]] inline void fail_for_room(const PairwiseShape& s) {
  throw std::invalid_argument(
      "pairwise attention: the channels must leave room in a block's shared "
      "memory, got " +
      std::to_string(s.relation_channels) + ", " +
      std::to_string(s.weight_channels) + " and " +
      std::to_string(s.value_channels) + " for a footprint of " +
      std::to_string(s.kernel_size));
}

// The largest tile of a shape that fits a block's shared memory. Wide relations
// take fewer rows, as every row has more to do. Throws std::invalid_argument
// for channels that no tile has room for, thousands of them.
template <typename A, typename Needs>
Tile choose_tile(const PairwiseShape& s) {
  constexpr int64_t kMost = 1 << 14;
  const int64_t R = s.relation_channels, K = s.taps();
  const size_t limit = most_shared_bytes();
  const bool narrow = R <= kMost && s.weight_channels <= kMost &&
                      s.value_channels <= kMost && s.kernel_size <= kMost;
  int64_t most_rows = 512;
  while (most_rows > 32 && most_rows * padded(R) > 4096) most_rows /= 2;
  for (const bool resident : {true, false}) {
    for (int64_t rows = most_rows; narrow && rows >= (resident ? 16 : 4);
         rows /= 2) {
      // Some eight taps at a time, so that few sums are taken up and put back;
      // more pixels where there are no more taps, which neighbours share.
      int bits = 4;
      while (bits > 2 && rows >> bits < 8) --bits;
      while (bits < 6 && (K << (bits + 1)) <= rows) ++bits;
      for (; bits >= 0; --bits) {
        const int64_t most = rows >> bits > 1 ? rows >> bits : 1;
        const int64_t chunks = (K + most - 1) / most;
        const Tile tile(s, bits, (K + chunks - 1) / chunks, resident);
        if (shared_bytes<A, Needs>(tile) <= limit) return tile;
      }
    }
  }
  fail_for_room(s);
}

// Calls f(tile) with what suits a shape: the tile of its sizes, if they are
// published ones in float32 and the tensors with channels, `images`, can be
// read by vectors, or else the largest one that the Needs allow.
template <typename T, typename Needs, typename F>
void with_tile(const PairwiseShape& shape,
               std::initializer_list<const void*> images, F f) {
  using A = Accumulator<T>;
  bool done = false;
  if constexpr (std::is_same_v<T, float>)
    with_fixed_tile(shape, images, [&](auto tile) {
      done = shared_bytes<A, Needs>(tile) <= most_shared_bytes();
      if (done) f(tile);
    });
  if (!done) f(choose_tile<A, Needs>(shape));
}

// Launches a kernel on the tiles of its problem: by a block for each of
// `parts`, or else one for each tile. A block goes on to further tiles where
// there are more.
template <typename A, typename Needs, typename Problem>
void launch_tiles(void (*kernel)(Problem), const Problem& problem,
                  int64_t parts, void* stream) {
  constexpr int64_t kMostBlocks = 0x7fffffff;
  const int64_t tiles = problem.tile.tiles();
  const int64_t blocks = parts > 0 ? parts : tiles;
  launch(kernel,
         {static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
          kThreads, shared_bytes<A, Needs>(problem.tile)},
         stream, problem);
}

}  // namespace
}  // namespace san::pairwise

#endif  // CUDA_KERNELS_PAIRWISE_TILE_H_
