// Memory between guard pages, and which block has written what in it.
#ifndef TESTS_EMULATED_CUDA_BUFFERS_H_
#define TESTS_EMULATED_CUDA_BUFFERS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "tests/emulated_cuda/emulator.h"

namespace emulated {

// At least `bytes` of memory, whole pages, with pages around them that nobody
// can access. Throws std::bad_alloc.
class Pages {
 public:
  explicit Pages(size_t bytes);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::byte* data() const { return data_; }
  std::byte* end() const { return data_ + bytes_; }
  void fill(std::byte value);
  // All of it, or one page.
  void make_read_only();
  void make_read_only(size_t page);
  void make_writable();
  void make_writable(size_t page);
  // Whether the address lies inside, or in the pages around.
  bool holds(const void* address) const;
  bool guards(const void* address) const;
  // The page with an address inside.
  size_t page_of(const void* address) const;
  std::byte* page(size_t index) const;

 private:
  std::byte* data_;
  size_t bytes_;
};

// Where an address lies in or beside one of the buffers that tests have made,
// such as "4 bytes past the end of x"; empty if nowhere near.
std::string describe(const void* address);

// Records who writes to the buffers while a launch runs. An element that a
// block has written is taken out of sight, as NaN, until the launch is over:
// so a second block that writes it is found, whatever it writes, and one that
// reads it gets NaN. A write of what was there before the launch is not seen;
// in one of the two orders of blocks it is the second write.
//
// Pages are read only until a block writes to them, so that a block costs what
// it has written. One at a time.
class Writers {
 public:
  Writers();
  ~Writers();
  Writers(const Writers&) = delete;
  Writers& operator=(const Writers&) = delete;

  // Whether a fault at this address was the first write of a block to a page:
  // now the page can be written.
  bool allow(const void* address);
  // After each block. Returns what it did wrong, such as "writes element 3 of
  // x, as block (0, 0, 0) does", else nothing.
  std::string note(dim3 block);

 private:
  std::vector<dim3> blocks_;  // that have run
};

}  // namespace emulated

#endif  // TESTS_EMULATED_CUDA_BUFFERS_H_
