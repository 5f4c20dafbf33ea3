// Says what has gone wrong, and where.
#include <cstring>

#include "tests/emulated_cuda/block.h"

namespace emulated {
namespace {

// What a thread does that others wait for.
std::string doing(unsigned thread) {
  if (thread >= block.fibers.size())
    return "is not there: the block has " +
           std::to_string(block.fibers.size()) + " threads";
  const Fiber& fiber = block.fibers[thread];
  const Barrier& barrier = block.barriers[fiber.wait.barrier];
  switch (fiber.wait.kind) {
    case Wait::kBlock:
      return "waits at __syncthreads";
    case Wait::kThreads:
      return "waits at barrier " + std::to_string(fiber.wait.barrier) +
             " for " + std::to_string(barrier.threads) + " threads, of which " +
             std::to_string(barrier.arrived) + " have arrived";
    case Wait::kLanes:
      return "waits at " +
             at(fiber.wait.instruction.name, fiber.wait.instruction.site);
    default:
      return fiber.ended ? "has ended" : "runs";
  }
}

}  // namespace

std::string text(dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " +
         std::to_string(d.z) + ")";
}

std::string at(const char* name, Site site) {
  const char* slash = strrchr(site.file, '/');
  return std::string(name) + " (" + (slash ? slash + 1 : site.file) + ":" +
         std::to_string(site.line) + ")";
}

std::string of_block(const std::string& what) {
  return "emulated CUDA: " + kernel_name(block.launch->kernel) + ", block " +
         text(block.index) + what;
}

std::string of_thread(unsigned thread, const std::string& what) {
  return of_block(", thread " + text(block.fibers[thread].position.thread) +
                  ": " + what);
}

std::string hanging() {
  unsigned thread = 0;
  while (block.fibers[thread].ended) ++thread;
  std::string why = doing(thread);
  const Wait& wait = block.fibers[thread].wait;
  if (wait.kind != Wait::kLanes)
    return of_thread(thread, why + ", which the others do not reach");
  const unsigned first = first_of_warp(thread);
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const unsigned other = first + lane;
    const bool waits = other < block.fibers.size() &&
                       block.fibers[other].wait.kind == Wait::kLanes;
    if (wait.instruction.lanes >> lane & 1 && !waits)
      return of_thread(thread, why + " for lane " + std::to_string(lane) +
                                   ", which " + doing(other));
  }
  return of_thread(thread, why);
}

std::string faulting(const Fault& fault) {
  if (fault.signal == SIGFPE)
    return of_thread(block.running, "divides an integer by zero");
  std::string where = describe(fault.address);
  if (where.empty() && block.shared->guards(fault.address))
    where = "beside its shared memory";
  if (where.empty() && running().stack->pages.guards(fault.address))
    where = "past its stack";
  if (where.empty()) where = "an address outside of every buffer";
  const char* access = fault.access == Fault::kWrite  ? "writes "
                       : fault.access == Fault::kRead ? "reads "
                                                      : "reads or writes ";
  return of_thread(block.running, access + where);
}

}  // namespace emulated
