// Runs the threads of a block as fibers, each with a stack of its own, and ends
// a launch with an error.
//
// A fiber keeps its stack and context from block to block. Switching is setjmp
// and longjmp, which unlike swapcontext ask nothing of the system.
#undef _FORTIFY_SOURCE  // whose longjmp stays on one stack

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "tests/emulated_cuda/block.h"

namespace emulated {

Position position;
Block block;

bool descending() {
  const char* order = getenv("EMULATED_CUDA_ORDER");
  return order && strcmp(order, "descending") == 0;
}

int most_shared_bytes() {
  const char* bytes = getenv("EMULATED_CUDA_SHARED_BYTES");
  return bytes ? atoi(bytes) : 163 * 1024;
}

int& shared_limit(const void* kernel) {
  static std::map<const void*, int> limits;
  return limits.try_emplace(kernel, 48 * 1024).first->second;
}

namespace {

Stack& stack(size_t fiber) {
  static std::vector<std::unique_ptr<Stack>> stacks;
  while (stacks.size() <= fiber) stacks.emplace_back(new Stack);
  return *stacks[fiber];
}

// ---- Switching.

void leave_fiber(Stack& from) {
  if (_setjmp(from.context) == 0) _longjmp(block.scheduler, 1);
}

// Lets another fiber run until the running one need not wait any more.
void pause() { leave_fiber(*running().stack); }

void end_fiber();

// The life of a fiber: a kernel, and again one when it is called next.
void live() {
  Stack& mine = *running().stack;
  for (;;) {
    mine.ready = true;
    leave_fiber(mine);
    mine.ready = false;
    (*block.kernel)();
    end_fiber();
  }
}

void make_ready(Stack& stack) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack.pages.data();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, &live, 0);
  if (_setjmp(block.scheduler) == 0) setcontext(&context);
}

void enter_fiber() {
  position = running().position;
  block.in_fiber = true;
  if (_setjmp(block.scheduler) == 0) _longjmp(running().stack->context, 1);
  block.in_fiber = false;
}

bool on_fault(const Fault& fault) {
  if (!block.in_fiber) return false;
  if (fault.signal != SIGFPE && block.writers->allow(fault.address))
    return true;
  block.fault = fault;
  _longjmp(block.scheduler, 1);
}

// ---- Barriers.

void release(Wait::Kind kind, int barrier) {
  for (Fiber& fiber : block.fibers)
    if (fiber.wait.kind == kind && fiber.wait.barrier == barrier)
      fiber.wait = {};
}

void release_block_if_complete() {
  if (block.at_barrier == 0 || block.at_barrier < block.left) return;
  block.at_barrier = 0;
  release(Wait::kBlock, 0);
}

void end_fiber() {
  end_copies();
  running().ended = true;
  --block.left;
  release_block_if_complete();
}

// ---- Blocks.

void prepare(dim3 index, std::byte* shared) {
  const dim3 size = block.launch->block;
  const unsigned threads = size.x * size.y * size.z;
  block.index = index;
  block.fibers.clear();
  for (unsigned i = 0; i < threads; ++i) {
    const dim3 thread(i % size.x, i / size.x % size.y, i / size.x / size.y);
    block.fibers.push_back(
        {&stack(i),
         {thread, index, size, block.launch->grid, i % kLanes, shared},
         {},
         false});
  }
  block.left = threads;
  block.at_barrier = 0;
  block.barriers = {};
  forget_copies();
  for (block.running = 0; block.running < threads; ++block.running)
    if (!running().stack->ready) make_ready(*running().stack);
}

// Lets each fiber that can run do so, once. Returns whether to go on: none is
// in error, and some have run.
bool turn(bool reversed) {
  bool some = false;
  const unsigned threads = block.fibers.size();
  for (unsigned i = 0; i < threads; ++i) {
    block.running = reversed ? threads - 1 - i : i;
    if (running().ended || running().wait.kind != Wait::kNothing) continue;
    some = true;
    enter_fiber();
    if (block.fault.signal != 0 || !block.failure.empty()) return false;
  }
  return some;
}

// What has gone wrong in the block; empty if nothing has.
std::string failure() {
  if (block.fault.signal != 0) return faulting(block.fault);
  if (!block.failure.empty()) return block.failure;
  if (block.left > 0) return hanging();
  const std::byte* begin = block.fibers[0].position.shared;
  const std::byte* end = begin + block.launch->shared_bytes;
  for (const std::byte* at = block.shared->data(); at < block.shared->end();
       ++at)
    if ((at < begin || at >= end) && *at != kUnwritten)
      return of_block(": writes beside its shared memory");
  const std::string wrong = block.writers->note(block.index);
  return wrong.empty() ? "" : of_block(": " + wrong);
}

void run_block(dim3 index) {
  // On a boundary of 128 bytes; nothing behind it can be accessed.
  const size_t bytes = (block.launch->shared_bytes + 127) / 128 * 128;
  const bool reversed = descending();
  block.shared->fill(kUnwritten);
  prepare(index, block.shared->end() - bytes);
  block.failure.clear();
  block.fault = {};
  while (turn(reversed)) continue;
  const std::string wrong = failure();
  if (!wrong.empty()) throw std::runtime_error(wrong);
}

// ---- Warps.

Fiber& fiber_of_lane(unsigned lane) {
  return block.fibers[first_of_warp(block.running) + lane];
}

// Of a lane that waits at an instruction, else null.
const Wait* wait_of_lane(unsigned lane) {
  if (first_of_warp(block.running) + lane >= block.fibers.size())
    return nullptr;
  const Wait& wait = fiber_of_lane(lane).wait;
  return wait.kind == Wait::kLanes ? &wait : nullptr;
}

std::string hexadecimal(const Instruction& instruction) {
  char text[16];
  snprintf(text, sizeof text, "0x%08x", instruction.lanes);
  return text;
}

void require_same(const Instruction& mine, const Instruction& other,
                  unsigned lane) {
  if (strcmp(mine.name, other.name) != 0 || mine.site.line != other.site.line ||
      strcmp(mine.site.file, other.site.file) != 0)
    fail(at(mine.name, mine.site) +
         ": all lanes must be at one instruction, but lane " +
         std::to_string(lane) + " waits at " + at(other.name, other.site));
  if (mine.lanes != other.lanes)
    fail(at(mine.name, mine.site) +
         ": lanes must be the same in all lanes, got " + hexadecimal(mine) +
         ", and " + hexadecimal(other) + " in lane " + std::to_string(lane));
}

}  // namespace

void fail(const std::string& what) { fail_in_lane(position.lane, what); }

void fail_in_lane(unsigned lane, const std::string& what) {
  block.failure = of_thread(first_of_warp(block.running) + lane, what);
  _longjmp(block.scheduler, 1);
}

unsigned running_thread() { return block.running; }

bool is_shared(const void* begin, size_t bytes) {
  const std::byte* from = static_cast<const std::byte*>(begin);
  return from >= position.shared &&
         from + bytes <= position.shared + block.launch->shared_bytes;
}

void wait_for_block() {
  ++block.at_barrier;
  running().wait.kind = Wait::kBlock;
  release_block_if_complete();
  pause();
}

void wait_for_threads(int id, int threads, Site site) {
  Barrier& barrier = block.barriers[id];
  if (barrier.arrived > 0 && barrier.threads != threads)
    fail(at("barrier", site) + ": threads must be " +
         std::to_string(barrier.threads) +
         " as those say who wait at barrier " + std::to_string(id) + ", got " +
         std::to_string(threads));
  barrier.threads = threads;
  ++barrier.arrived;
  running().wait.kind = Wait::kThreads;
  running().wait.barrier = id;
  if (barrier.arrived == threads) {
    barrier = {};
    release(Wait::kThreads, id);
  }
  pause();
}

void meet(const Instruction& mine, void* operand,
          void (*perform)(const Instruction&, const Operands&)) {
  if (!(mine.lanes >> position.lane & 1))
    fail(at(mine.name, mine.site) + ": lanes must name the lane itself, got " +
         hexadecimal(mine));
  Wait& wait = running().wait;
  wait.kind = Wait::kLanes;
  wait.instruction = mine;
  wait.operand = operand;
  Operands operands = {};
  bool complete = true;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!(mine.lanes >> lane & 1)) continue;
    const Wait* other = wait_of_lane(lane);
    if (!other) {
      complete = false;
      continue;
    }
    require_same(mine, other->instruction, lane);
    operands[lane] = other->operand;
  }
  if (complete) {
    perform(mine, operands);
    for (unsigned lane = 0; lane < kLanes; ++lane)
      if (operands[lane]) fiber_of_lane(lane).wait = {};
  }
  pause();
}

void run(const Launch& launch, const std::function<void()>& kernel) {
  Signals signals(&on_fault);
  Writers writers;
  Pages shared(launch.shared_bytes);
  block.launch = &launch;
  block.kernel = &kernel;
  block.writers = &writers;
  block.shared = &shared;
  const dim3 grid = launch.grid;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t at = descending() ? blocks - 1 - i : i;
    const uint64_t plane = uint64_t(grid.x) * grid.y;
    run_block(dim3(at % grid.x, at % plane / grid.x, at / plane));
  }
}

}  // namespace emulated
