// Shuffles, votes and named barriers.
#include "cuda_kernels/cuda/warp.h"

namespace emulated {
namespace {

struct Exchange {
  uint64_t value, result;
  unsigned from;
};

void exchange_all(const Instruction& instruction, const Operands& operands) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!operands[lane]) continue;
    auto* mine = static_cast<Exchange*>(operands[lane]);
    if (mine->from >= kLanes || !operands[mine->from])
      fail_in_lane(lane, at(instruction.name, instruction.site) +
                             ": the lane that is read must take part, got " +
                             std::to_string(static_cast<int>(mine->from)));
    mine->result = static_cast<Exchange*>(operands[mine->from])->value;
  }
}

struct Vote {
  bool value;
  unsigned result;
};

void vote_all(const Instruction&, const Operands& operands) {
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane)
    if (operands[lane] && static_cast<Vote*>(operands[lane])->value)
      votes |= 1u << lane;
  for (void* operand : operands)
    if (operand) static_cast<Vote*>(operand)->result = votes;
}

struct BarrierArguments {
  int id, threads;
};

void require_one_barrier(const Instruction& instruction,
                         const Operands& operands) {
  const auto* first = static_cast<BarrierArguments*>(operands[0]);
  for (unsigned lane = 1; lane < kLanes; ++lane) {
    const auto* other = static_cast<BarrierArguments*>(operands[lane]);
    if (other->id != first->id || other->threads != first->threads)
      fail_in_lane(lane, at(instruction.name, instruction.site) +
                             ": id and threads must be the same in all lanes");
  }
}

}  // namespace

uint64_t exchange(const Instruction& instruction, uint64_t value,
                  unsigned from) {
  Exchange mine = {value, 0, from};
  meet(instruction, &mine, &exchange_all);
  return mine.result;
}

unsigned vote(const Instruction& instruction, bool value) {
  Vote mine = {value, 0};
  meet(instruction, &mine, &vote_all);
  return mine.result;
}

void wait_for_warp(const Instruction& instruction) {
  char nothing;
  meet(instruction, &nothing, [](const Instruction&, const Operands&) {});
}

void named_barrier(int id, int threads, Site site) {
  const dim3 size = position.block_size;
  const int most = size.x * size.y * size.z;
  if (id < 1 || id > 15)
    fail(at("barrier", site) + ": id must be from 1 to 15, got " +
         std::to_string(id));
  if (threads < 1 || threads > most || threads % static_cast<int>(kLanes) != 0)
    fail(at("barrier", site) + ": threads must be whole warps of the block's " +
         std::to_string(most) + " threads, got " + std::to_string(threads));
  BarrierArguments mine = {id, threads};
  meet({"barrier", site, ~0u}, &mine, &require_one_barrier);
  wait_for_threads(id, threads, site);
}

}  // namespace emulated
