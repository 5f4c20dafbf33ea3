// Hands out a block's shared memory.
#ifndef CUDA_KERNELS_CUDA_ARENA_H_
#define CUDA_KERNELS_CUDA_ARENA_H_

#include <cstddef>
#include <cstdint>

#include "cuda_kernels/window.h"

namespace san {

// Pieces one behind the other, on 16-byte boundaries. On the host, where it may
// begin at null, it counts what they need.
class Arena {
 public:
  SAN_HOST_DEVICE explicit Arena(unsigned char* begin)
      : begin_(begin), next_(begin) {}

  template <typename E>
  SAN_HOST_DEVICE E* take(int64_t count) {
    E* const piece = reinterpret_cast<E*>(next_);
    next_ += (count * sizeof(E) + 15) / 16 * 16;
    return piece;
  }
  SAN_HOST_DEVICE size_t bytes() const {
    return static_cast<size_t>(next_ - begin_);
  }

 private:
  unsigned char *begin_, *next_;
};

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_ARENA_H_
