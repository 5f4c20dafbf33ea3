#include "tests/emulated_cuda/buffers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <new>
#include <vector>

namespace emulated {
namespace {

constexpr size_t kGuardBytes = 1 << 18;

size_t page_bytes() {
  static const size_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

// What was written to a page in the launch that runs.
struct Record {
  std::vector<std::byte> content, seen;  // the truth, and what blocks see of it
  std::vector<uint32_t> writers;         // of each part: 0, or block + 1
};

// An element of double counts as two parts, so that workspaces may hold either
// type.
struct Buffer {
  Buffer(const char* name, size_t bytes, size_t element)
      : name(name),
        element(element),
        part(std::min<size_t>(element, 4)),
        pages(bytes),
        begin(descending() ? pages.data() : pages.end() - bytes),
        end(begin + bytes) {
    pages.fill(kUnwritten);
  }

  std::string name;
  size_t element, part;
  Pages pages;
  std::byte *begin, *end;
  bool read_only = false;
  std::map<size_t, Record> records;  // of pages
  std::vector<size_t> written;       // pages, by the block that runs
};

std::list<Buffer>& buffers() {
  static std::list<Buffer> all;
  return all;
}

bool inside(const void* address, const std::byte* from, const std::byte* to) {
  const std::byte* at = static_cast<const std::byte*>(address);
  return at >= from && at < to;
}

// Of an address in the buffer's pages or the guards around them.
std::string place(const Buffer& buffer, const std::byte* at) {
  if (at < buffer.begin)
    return std::to_string(buffer.begin - at) +
           " bytes before the beginning of " + buffer.name;
  if (at >= buffer.end)
    return std::to_string(at - buffer.end) + " bytes past the end of " +
           buffer.name;
  return "element " + std::to_string((at - buffer.begin) / buffer.element) +
         " of " + buffer.name + (buffer.read_only ? ", which is an input" : "");
}

// Notes the writes of the newest of `blocks` to a page, and hides them.
std::string note_in(Buffer& buffer, size_t index,
                    const std::vector<dim3>& blocks) {
  Record& record = buffer.records[index];
  std::byte* page = buffer.pages.page(index);
  std::string found;
  for (size_t i = 0; i < page_bytes(); i += buffer.part) {
    std::byte *at = page + i, *seen = &record.seen[i];
    if (memcmp(at, seen, buffer.part) == 0) continue;
    uint32_t& writer = record.writers[i / buffer.part];
    if (found.empty() && (at < buffer.begin || at >= buffer.end))
      found = "writes " + place(buffer, at);
    else if (found.empty() && writer != 0)
      found = "writes " + place(buffer, at) + ", as block " +
              text(blocks[writer - 1]) + " does";
    writer = static_cast<uint32_t>(blocks.size());
    memcpy(&record.content[i], at, buffer.part);
    memset(at, int(kUnwritten), buffer.part);
    memset(seen, int(kUnwritten), buffer.part);
  }
  return found;
}

void protect(std::byte* begin, size_t bytes, int access) {
  if (mprotect(begin, bytes, access) != 0) throw std::bad_alloc();
}

}  // namespace

Pages::Pages(size_t bytes) {
  const size_t page = page_bytes();
  bytes_ = std::max<size_t>(1, (bytes + page - 1) / page) * page;
  void* all = mmap(nullptr, bytes_ + 2 * kGuardBytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(all) + kGuardBytes;
  make_writable();
}

Pages::~Pages() { munmap(data_ - kGuardBytes, bytes_ + 2 * kGuardBytes); }

void Pages::fill(std::byte value) { memset(data_, int(value), bytes_); }

void Pages::make_read_only() { protect(data_, bytes_, PROT_READ); }
void Pages::make_read_only(size_t index) {
  protect(page(index), page_bytes(), PROT_READ);
}
void Pages::make_writable() { protect(data_, bytes_, PROT_READ | PROT_WRITE); }
void Pages::make_writable(size_t index) {
  protect(page(index), page_bytes(), PROT_READ | PROT_WRITE);
}

bool Pages::holds(const void* address) const {
  return inside(address, data_, end());
}

bool Pages::guards(const void* address) const {
  return inside(address, data_ - kGuardBytes, data_) ||
         inside(address, end(), end() + kGuardBytes);
}

size_t Pages::page_of(const void* address) const {
  return (static_cast<const std::byte*>(address) - data_) / page_bytes();
}

std::byte* Pages::page(size_t index) const {
  return data_ + index * page_bytes();
}

std::string describe(const void* address) {
  for (const Buffer& buffer : buffers())
    if (buffer.pages.holds(address) || buffer.pages.guards(address))
      return place(buffer, static_cast<const std::byte*>(address));
  return "";
}

Writers::Writers() {
  for (Buffer& buffer : buffers()) buffer.pages.make_read_only();
}

Writers::~Writers() {
  for (Buffer& buffer : buffers()) {
    if (buffer.read_only) continue;
    buffer.pages.make_writable();
    for (const auto& [index, record] : buffer.records)
      std::copy(record.content.begin(), record.content.end(),
                buffer.pages.page(index));
    buffer.records.clear();
    buffer.written.clear();
  }
}

bool Writers::allow(const void* address) {
  for (Buffer& buffer : buffers()) {
    if (buffer.read_only || !buffer.pages.holds(address)) continue;
    const size_t index = buffer.pages.page_of(address);
    const std::byte* page = buffer.pages.page(index);
    Record& record = buffer.records[index];
    if (record.content.empty()) {
      record.content.assign(page, page + page_bytes());
      record.seen = record.content;
      record.writers.assign(page_bytes() / buffer.part, 0);
    }
    buffer.written.push_back(index);
    buffer.pages.make_writable(index);
    return true;
  }
  return false;
}

std::string Writers::note(dim3 block) {
  blocks_.push_back(block);
  std::string found;
  for (Buffer& buffer : buffers()) {
    for (const size_t index : buffer.written) {
      if (found.empty()) found = note_in(buffer, index, blocks_);
      buffer.pages.make_read_only(index);
    }
    buffer.written.clear();
  }
  return found;
}

}  // namespace emulated

// ---- For guarded.py.

#define SAN_EXPORTED extern "C" __attribute__((visibility("default")))

// Memory that ends at a guard page, or begins at one. Null if there is none.
SAN_EXPORTED void* emulated_cuda_allocate(const char* name, size_t bytes,
                                          size_t element) try {
  return emulated::buffers().emplace_back(name, bytes, element).begin;
} catch (const std::bad_alloc&) {
  return nullptr;
}

SAN_EXPORTED void emulated_cuda_make_read_only(void* data) {
  for (emulated::Buffer& buffer : emulated::buffers())
    if (buffer.begin == data) {
      buffer.read_only = true;
      buffer.pages.make_read_only();
    }
}

SAN_EXPORTED void emulated_cuda_release(void* data) {
  emulated::buffers().remove_if(
      [&](const emulated::Buffer& buffer) { return buffer.begin == data; });
}
