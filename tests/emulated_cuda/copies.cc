// Copies to shared memory behind the back of the threads. A copy leaves NaN
// where it goes until the thread that asked for it has waited; only then the
// bytes are there.
#include <algorithm>
#include <vector>

#include "cuda_kernels/cuda/copy.h"

namespace emulated {
namespace {

struct Copy {
  std::byte* to;
  const std::byte* from;
  int size, bytes;  // what is written; of them, what is read
  Site site;
  uint64_t group = 0;   // 0: not committed
  std::byte first[16];  // the source when it was asked for
};

struct Copies {
  std::vector<Copy> under_way;
  uint64_t groups = 0;
};
std::vector<Copies> threads;  // of the block that runs

Copies& mine() {
  if (threads.size() <= running_thread()) threads.resize(running_thread() + 1);
  return threads[running_thread()];
}

// The copy under way of whichever thread that goes to some of these bytes.
const Copy* find(const std::byte* begin, size_t bytes) {
  for (const Copies& copies : threads)
    for (const Copy& copy : copies.under_way)
      if (copy.to < begin + bytes && begin < copy.to + copy.size) return &copy;
  return nullptr;
}

void finish(const Copy& copy) {
  if (memcmp(copy.from, copy.first, copy.bytes) != 0)
    fail(at("copy_async", copy.site) +
         ": the source must not change before the copy is waited for");
  memset(copy.to, 0, copy.size);
  memcpy(copy.to, copy.from, copy.bytes);
}

}  // namespace

void copy_async(int size, void* to, const void* from, int bytes, Site site) {
  const std::string name = at("copy_async", site);
  const std::string boundary =
      " must be on a " + std::to_string(size) + "-byte boundary";
  if (bytes < 0 || bytes > size)
    fail(name + ": bytes must be from 0 to " + std::to_string(size) + ", got " +
         std::to_string(bytes));
  if (reinterpret_cast<uintptr_t>(to) % size != 0)
    fail(name + ": to" + boundary);
  if (reinterpret_cast<uintptr_t>(from) % size != 0)
    fail(name + ": from" + boundary);
  if (!is_shared(to, size)) fail(name + ": to must be shared memory");
  if (is_shared(from, 1)) fail(name + ": from must be global memory");
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  if (const Copy* other = find(target, size))
    fail(name + ": to must not be where a copy is under way, that of " +
         at("copy_async", other->site));
  Copy copy = {target, source, size, bytes, site, 0, {}};
  memcpy(copy.first, source, bytes);
  memset(target, int(kUnwritten), size);
  mine().under_way.push_back(copy);
}

void commit_copies() {
  Copies& copies = mine();
  ++copies.groups;
  for (Copy& copy : copies.under_way)
    if (copy.group == 0) copy.group = copies.groups;
}

void wait_copies(unsigned groups) {
  Copies& copies = mine();
  const uint64_t last = copies.groups > groups ? copies.groups - groups : 0;
  const auto arrived = [last](const Copy& copy) {
    return copy.group != 0 && copy.group <= last;
  };
  for (const Copy& copy : copies.under_way)
    if (arrived(copy)) finish(copy);
  auto& all = copies.under_way;
  all.erase(std::remove_if(all.begin(), all.end(), arrived), all.end());
}

void end_copies() {
  if (threads.empty() || mine().under_way.empty()) return;
  const Copy& copy = mine().under_way[0];
  fail(at("copy_async", copy.site) +
       (copy.group == 0 ? ": a copy must be committed and waited for"
                        : ": a copy must be waited for") +
       ", but the thread has ended");
}

void forget_copies() { threads.clear(); }

void require_arrived(unsigned lane, const char* name, Site site,
                     const void* begin, size_t bytes) {
  const Copy* copy = find(static_cast<const std::byte*>(begin), bytes);
  if (copy)
    fail_in_lane(lane,
                 at(name, site) +
                     ": row must have arrived, but nobody has waited for " +
                     at("copy_async", copy->site));
}

}  // namespace emulated
