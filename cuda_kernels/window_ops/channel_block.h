// The channels that a job works on, in a tensor of either layout, on their way
// to and from scratch, where each channel is a run of adjacent pixels.
//
// N batch, C channels, G groups, M = C / G members: channels g, g + G, ... are
// group g. (For aggregation a group shares a weight channel; elsewhere every
// channel is a group of its own, G = C.) A block is `width` adjacent groups of
// an image: one in row-major memory; in channels-last so many that their
// float32 fill a cache line of each pixel. Scratch holds member m of a block's
// group i as its plane m * width + i.
#ifndef CUDA_KERNELS_WINDOW_OPS_CHANNEL_BLOCK_H_
#define CUDA_KERNELS_WINDOW_OPS_CHANNEL_BLOCK_H_

#include <algorithm>
#include <type_traits>

#include "cuda_kernels/layout.h"
#include "cuda_kernels/window_ops/row_kernels.h"

namespace san::fast {

// Planes of accumulators: those of one group's members, `stride` elements
// apart.
template <typename A>
struct Members {
  A* data;
  int64_t stride;
};

struct ChannelBlock {
  int64_t image, first, width;  // groups first .. first + width - 1
};

// How the channels of all images are split into blocks.
struct ChannelBlocks {
  ChannelBlocks(Layout layout, int64_t batch, int64_t channels, int64_t groups,
                int64_t most_width = kMostWidth)
      : layout(layout),
        channels(channels),
        groups(groups),
        members(channels / groups),
        width(layout == Layout::kRowMajor ? 1 : std::min(most_width, groups)),
        per_image((groups - 1) / width + 1),
        count(batch * per_image) {}

  ChannelBlock operator[](int64_t index) const {
    const int64_t first = index % per_image * width;
    return {index / per_image, first, std::min(width, groups - first)};
  }

  // The first plane (n, c) of a block where every channel is a group.
  int64_t first_plane(const ChannelBlock& block) const {
    return block.image * channels + block.first;
  }
  // The most planes of a block.
  int64_t planes() const { return members * width; }

  static constexpr int64_t kMostWidth = 16;

  Layout layout;
  int64_t channels, groups, members, width, per_image, count;
};

// A block in a tensor whose channels have `pixels` elements each. The channels
// are `runs` runs of `run` adjacent ones.
template <typename T>
class BlockView {
 public:
  BlockView(T* tensor, int64_t pixels, const ChannelBlocks& blocks,
            const ChannelBlock& block)
      : row_major_(blocks.layout == Layout::kRowMajor),
        width_(block.width),
        channels_(blocks.channels),
        runs_(blocks.members),
        run_(block.width),
        to_next_run_(row_major_ ? blocks.groups * pixels : blocks.groups),
        data_(tensor + block.image * blocks.channels * pixels +
              block.first * (row_major_ ? pixels : 1)) {
    if (row_major_ || run_ != blocks.groups) return;
    runs_ = 1;
    run_ = channels_;
  }

  // A, constant if T is.
  template <typename A>
  using Like = std::conditional_t<std::is_const_v<T>, const A, A>;

  int64_t planes() const { return runs_ * run_; }

  // planes[p][i] = pixel begin + i of channel p, i < count. `stride` elements
  // lead from one plane to the next.
  template <typename A>
  void load(int64_t begin, int64_t count, A* planes, int64_t stride) const {
    const auto& kernels = row_kernels<std::remove_const_t<T>>();
    for (int64_t r = 0; r < runs_; ++r, planes += run_ * stride) {
      const T* from = data_ + r * to_next_run_;
      if (row_major_)
        kernels.load(from + begin, planes, count);
      else
        kernels.load_transposed(from + begin * channels_, channels_, planes,
                                stride, count, run_);
    }
  }

  // The other way.
  template <typename A>
  void store(const A* planes, int64_t stride, int64_t begin,
             int64_t count) const {
    const auto& kernels = row_kernels<T>();
    for (int64_t r = 0; r < runs_; ++r, planes += run_ * stride) {
      T* to = data_ + r * to_next_run_;
      if (row_major_)
        kernels.store(planes, to + begin, count);
      else
        kernels.store_transposed(planes, stride, to + begin * channels_,
                                 channels_, run_, count);
    }
  }

  // Whether the tensor itself has planes of accumulators, and where they are.
  template <typename A>
  bool is_in_place() const {
    return row_major_ && std::is_same_v<std::remove_const_t<T>, A>;
  }
  template <typename A>
  Members<Like<A>> in_place(int64_t begin) const {
    if constexpr (std::is_same_v<std::remove_const_t<T>, A>)
      return {data_ + begin, to_next_run_};
    else
      return {nullptr, 0};
  }

  // Where kernels that compute in accumulators find the planes of a group: in
  // place or else in scratch, which then is loaded before or stored after.
  template <typename A>
  Members<Like<A>> planes_or(A* scratch, int64_t begin, int64_t count,
                             int64_t group) const {
    if (is_in_place<A>()) return in_place<A>(begin);
    return {scratch + group * count, width_ * count};
  }
  template <typename A>
  void load_unless_in_place(int64_t begin, int64_t count, A* scratch) const {
    if (!is_in_place<A>()) load(begin, count, scratch, count);
  }
  template <typename A>
  void store_unless_in_place(const A* scratch, int64_t begin,
                             int64_t count) const {
    if (!is_in_place<A>()) store(scratch, count, begin, count);
  }

 private:
  bool row_major_;
  int64_t width_, channels_, runs_, run_, to_next_run_;
  T* data_;
};

}  // namespace san::fast

#endif  // CUDA_KERNELS_WINDOW_OPS_CHANNEL_BLOCK_H_
