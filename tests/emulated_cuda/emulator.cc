// The scheduler behind cuda_runtime.h: fibers, barriers and shared memory.
//
// With EMULATED_CUDA_ORDER=descending in the environment the threads of a block
// run from the last to the first. EMULATED_CUDA_SHARED_BYTES is how much shared
// memory a block can ask for.
#include <ucontext.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "tests/emulated_cuda/cuda_runtime.h"

namespace emulated {

Position position;

int most_shared_bytes() {
  const char* bytes = getenv("EMULATED_CUDA_SHARED_BYTES");
  return bytes ? atoi(bytes) : 163 * 1024;
}

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr std::byte kGuard{0xff};  // read as a floating point number: NaN

bool descending() {
  const char* order = getenv("EMULATED_CUDA_ORDER");
  return order && strcmp(order, "descending") == 0;
}

// Releases its fibers when all that still run have arrived.
struct Barrier {
  unsigned running = 0, arrived = 0;
  uint64_t released = 0;

  void release_if_complete() {
    if (arrived == 0 || arrived < running) return;
    arrived = 0;
    ++released;
  }
};

struct Fiber {
  ucontext_t context;
  Position position;
  const Barrier* waits_for = nullptr;
  uint64_t until = 0;
  bool ended = false;

  bool can_run() const {
    return !ended && (!waits_for || waits_for->released >= until);
  }
};

struct Warp {
  Barrier barrier;
  uint64_t slots[kLanes];
};

// The block that runs now.
struct Block {
  const std::function<void()>* kernel;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  ucontext_t scheduler;
  size_t running;  // index of the fiber

  Warp& warp() { return warps[running / kLanes]; }
};
Block block;

// Stacks are kept from block to block.
std::byte* stack(size_t fiber) {
  static std::vector<std::unique_ptr<std::byte[]>> stacks;
  while (stacks.size() <= fiber)
    stacks.emplace_back(new std::byte[kStackBytes]);
  return stacks[fiber].get();
}

void wait(Barrier& barrier) {
  Fiber& fiber = block.fibers[block.running];
  fiber.waits_for = &barrier;
  fiber.until = barrier.released + 1;
  ++barrier.arrived;
  barrier.release_if_complete();
  swapcontext(&fiber.context, &block.scheduler);
}

void run_fiber() {
  (*block.kernel)();
  block.fibers[block.running].ended = true;
  for (Barrier* barrier : {&block.barrier, &block.warp().barrier}) {
    --barrier->running;
    barrier->release_if_complete();
  }
}

void prepare(dim3 grid, dim3 size, dim3 index, std::byte* shared) {
  const unsigned threads = size.x * size.y * size.z;
  block.fibers.assign(threads, Fiber());
  block.warps.assign((threads + kLanes - 1) / kLanes, Warp());
  block.barrier = Barrier();
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    const dim3 thread(i % size.x, i / size.x % size.y, i / size.x / size.y);
    fiber.position = {thread, index, size, grid, i % kLanes, shared};
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack(i);
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &block.scheduler;
    makecontext(&fiber.context, &run_fiber, 0);
    ++block.barrier.running;
    ++block.warps[i / kLanes].barrier.running;
  }
}

// Lets each fiber that can run do so, once; returns how many did.
size_t turn(bool reversed) {
  size_t turns = 0;
  const size_t threads = block.fibers.size();
  for (size_t i = 0; i < threads; ++i) {
    block.running = reversed ? threads - 1 - i : i;
    Fiber& fiber = block.fibers[block.running];
    if (!fiber.can_run()) continue;
    ++turns;
    position = fiber.position;
    swapcontext(&block.scheduler, &fiber.context);
  }
  return turns;
}

}  // namespace

int& shared_limit(const void* kernel) {
  static std::map<const void*, int> limits;
  return limits.try_emplace(kernel, 48 * 1024).first->second;
}

void wait_for_block() { wait(block.barrier); }
void wait_for_warp() { wait(block.warp().barrier); }
uint64_t* warp_slots() { return block.warp().slots; }

void run(dim3 grid, dim3 size, size_t shared_bytes,
         const std::function<void()>& kernel) {
  std::vector<std::byte> shared(shared_bytes + kGuardBytes);
  block.kernel = &kernel;
  const bool reversed = descending();
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        std::fill(shared.begin(), shared.end(), kGuard);
        prepare(grid, size, dim3(x, y, z), shared.data());
        while (turn(reversed) > 0) continue;
        for (const Fiber& fiber : block.fibers)
          if (!fiber.ended)
            throw std::runtime_error(
                "emulated CUDA: a thread waits at a barrier that the others do "
                "not reach");
        for (size_t i = shared_bytes; i < shared.size(); ++i)
          if (shared[i] != kGuard)
            throw std::runtime_error(
                "emulated CUDA: a block wrote past its shared memory");
      }
}

}  // namespace emulated
