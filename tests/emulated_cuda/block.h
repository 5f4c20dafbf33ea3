// The block that runs, between the scheduler and what says why it failed.
#ifndef TESTS_EMULATED_CUDA_BLOCK_H_
#define TESTS_EMULATED_CUDA_BLOCK_H_

#include <setjmp.h>

#include <array>
#include <string>
#include <vector>

#include "tests/emulated_cuda/buffers.h"
#include "tests/emulated_cuda/emulator.h"
#include "tests/emulated_cuda/signals.h"

namespace emulated {

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kBarriers = 16;

// What a fiber waits for.
struct Wait {
  enum Kind { kNothing, kBlock, kThreads, kLanes } kind = kNothing;
  int barrier = 0;               // of kThreads
  Instruction instruction = {};  // of kLanes
  void* operand = nullptr;       // likewise
};

struct Stack {
  Pages pages{kStackBytes};
  jmp_buf context;
  bool ready = false;  // whether `context` waits for a kernel to call
};

struct Fiber {
  Stack* stack;
  Position position;
  Wait wait;
  bool ended = false;
};

struct Barrier {
  int threads = 0, arrived = 0;
};

// The block that runs now.
struct Block {
  const Launch* launch;
  const std::function<void()>* kernel;
  Writers* writers;
  Pages* shared;
  dim3 index;
  std::vector<Fiber> fibers;
  unsigned running, left;  // index of the fiber; those that have not ended
  unsigned at_barrier;     // of the whole block
  std::array<Barrier, kBarriers> barriers;
  jmp_buf scheduler;
  bool in_fiber = false;
  std::string failure;  // of the running fiber, which does not go on
  Fault fault;          // likewise
};
extern Block block;

inline Fiber& running() { return block.fibers[block.running]; }
inline unsigned first_of_warp(unsigned thread) {
  return thread / kLanes * kLanes;
}

// "emulated CUDA: KERNEL, block (X, Y, Z)" and `what`; for a thread ", thread
// (X, Y, Z): " comes between.
std::string of_block(const std::string& what);
std::string of_thread(unsigned thread, const std::string& what);
// Nobody can run any more: why the first that has not ended cannot.
std::string hanging();
// What the running thread has done.
std::string faulting(const Fault& fault);

}  // namespace emulated

#endif  // TESTS_EMULATED_CUDA_BLOCK_H_
