// Finds the name of a kernel in the symbol table of its library: kernels have
// internal linkage, so that the dynamic linker does not know them.
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/emulated_cuda/emulator.h"

namespace emulated {
namespace {

std::vector<char> read(const char* file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The mangled name of the function at this offset; empty if there is none.
std::string symbol_at(const std::vector<char>& library, size_t offset) {
  if (library.size() < sizeof(Elf64_Ehdr)) return "";
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(library.data());
  const auto* sections =
      reinterpret_cast<const Elf64_Shdr*>(library.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    const Elf64_Shdr& section = sections[i];
    if (section.sh_type != SHT_SYMTAB) continue;
    const char* names = library.data() + sections[section.sh_link].sh_offset;
    const auto* symbols =
        reinterpret_cast<const Elf64_Sym*>(library.data() + section.sh_offset);
    for (size_t s = 0; s < section.sh_size / sizeof *symbols; ++s)
      if (ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC &&
          symbols[s].st_value == offset)
        return names + symbols[s].st_name;
  }
  return "";
}

// Without "void " and the parameters.
std::string shortened(std::string name) {
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);
  if (name.empty() || name.back() != ')') return name;
  int depth = 0;
  size_t at = name.size();
  do {
    --at;
    depth += name[at] == ')' ? 1 : name[at] == '(' ? -1 : 0;
  } while (at > 0 && depth > 0);
  return name.substr(0, at);
}

}  // namespace

std::string kernel_name(const void* kernel) {
  Dl_info library = {};
  std::string name;
  if (dladdr(kernel, &library))
    name = symbol_at(read(library.dli_fname),
                     static_cast<const char*>(kernel) -
                         static_cast<const char*>(library.dli_fbase));
  if (name.empty()) return "a kernel without a name";
  int status = 0;
  char* demangled =
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (demangled) name = shortened(demangled);
  free(demangled);
  return name;
}

}  // namespace emulated
