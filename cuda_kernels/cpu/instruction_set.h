// The CPU's instruction sets, and tables of inner loops for each of them.
//
// A family of operators compiles the file of its inner loops once per set, with
// that set's flags. Such a file shows one function for each table of loops,
// named by SAN_TABLE; the family's other files call the loops through the table
// that a chooser, made by SAN_CHOOSE_TABLE, finds for the set in use.
#ifndef CUDA_KERNELS_CPU_INSTRUCTION_SET_H_
#define CUDA_KERNELS_CPU_INSTRUCTION_SET_H_

namespace san {

// Instruction sets in ascending order.
constexpr const char* kInstructionSets[] = {"baseline", "avx2", "avx512"};
// The highest index of kInstructionSets that this processor can run.
int best_instruction_set();
// The index in use: the best one, unless use_instruction_set() asked for less.
int instruction_set();
// For all later kernels of all threads; at most best_instruction_set().
void use_instruction_set(int index);
// Whether the set in use multiplies pairs of bfloat16 (pairs.h) faster than
// anything else here does: the processor has avx512_bf16 and no AMX, with which
// PyTorch is faster.
bool multiplies_bfloat16();

}  // namespace san

// name_SET, of the set that this file is being compiled for.
#if defined(__AVX512F__)
#define SAN_TABLE(name) name##_avx512
#elif defined(__AVX2__)
#define SAN_TABLE(name) name##_avx2
#else
#define SAN_TABLE(name) name##_baseline
#endif

// The tables of all instruction sets, in their order; `call` is what follows
// the name. Other processors than x86 have the baseline alone.
#ifdef __x86_64__
#define SAN_TABLES(name, call) \
  name##_baseline call, name##_avx2 call, name##_avx512 call
#else
#define SAN_TABLES(name, call) name##_baseline call
#endif

// Defines name<T>(), the Table<T> for the set in use. Not for files that are
// compiled for a set: others might be given their code.
#define SAN_CHOOSE_TABLE(Table, name)                           \
  template <typename T>                                         \
  Table<T> name##_baseline();                                   \
  template <typename T>                                         \
  Table<T> name##_avx2();                                       \
  template <typename T>                                         \
  Table<T> name##_avx512();                                     \
  template <typename T>                                         \
  const Table<T>& name() {                                      \
    static const Table<T> tables[] = {SAN_TABLES(name, <T>())}; \
    return tables[instruction_set()];                           \
  }

#endif  // CUDA_KERNELS_CPU_INSTRUCTION_SET_H_
