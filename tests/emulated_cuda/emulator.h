// The emulated device, as its parts and the headers that stand in for CUDA's
// know it; cuda_runtime.h says what is emulated.
#ifndef TESTS_EMULATED_CUDA_EMULATOR_H_
#define TESTS_EMULATED_CUDA_EMULATOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1)
      : x(x), y(y), z(z) {}
};

namespace emulated {

constexpr unsigned kLanes = 32;
constexpr int kMultiprocessors = 2;
// Read as a floating point number: NaN. What nobody wrote holds it.
constexpr std::byte kUnwritten{0xff};

// Which thread the code that runs now belongs to.
struct Position {
  dim3 thread, block, block_size, grid_size;
  unsigned lane;
  std::byte* shared;
};
extern Position position;

// EMULATED_CUDA_ORDER=descending in the environment: the blocks of a grid and
// the threads of a block run from the last to the first, sums of products in
// another order, and buffers begin at a guard page instead of ending there.
bool descending();

// What a block of the device can ask for: 163 KiB, as on an A100, or
// EMULATED_CUDA_SHARED_BYTES of the environment.
int most_shared_bytes();
// What a kernel may be launched with; 48 KiB unless it has asked for more.
int& shared_limit(const void* kernel);

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;
};
// Calls `kernel` once per thread of every block. Throws std::runtime_error,
// which names kernel, block and thread, for all that fail() is called for, an
// access outside of memory, a hanging block and two blocks that write one
// element.
void run(const Launch& launch, const std::function<void()>& kernel);

// The place in a kernel that calls an instruction.
struct Site {
  const char* file;
  int line;
  static Site here(const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
    return {file, line};
  }
};
std::string text(dim3 d);  // "(X, Y, Z)"
// "NAME (FILE:LINE)".
std::string at(const char* name, Site site);

// Ends the launch with an error of the running thread, or of another lane of
// its warp. Nothing on the thread's stack is destroyed.
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_in_lane(unsigned lane, const std::string& what);

unsigned running_thread();  // its index in the block
bool is_shared(const void* begin, size_t bytes);

// ---- Where threads wait for each other.

void wait_for_block();
// Until `threads` of the block, in whole warps, wait at barrier `id`.
void wait_for_threads(int id, int threads, Site site);

struct Instruction {
  const char* name;
  Site site;
  unsigned lanes;  // a bit for each that takes part
};
// By lane; null for those that take no part.
using Operands = std::array<void*, kLanes>;
// Waits until all of its lanes are at the instruction; the last one performs
// it for all. An error unless every lane names the same place and lanes.
void meet(const Instruction& instruction, void* operand,
          void (*perform)(const Instruction&, const Operands&));

// ---- Copies to shared memory that nobody waits for yet.

// The running thread has ended: an error if it has not waited for its copies.
void end_copies();
// Of the block that ran before.
void forget_copies();
// An error if some of these bytes are still under way.
void require_arrived(unsigned lane, const char* name, Site site,
                     const void* begin, size_t bytes);

// "san::fused::(anonymous namespace)::attend<float>" of a kernel's address.
std::string kernel_name(const void* kernel);

}  // namespace emulated

#endif  // TESTS_EMULATED_CUDA_EMULATOR_H_
