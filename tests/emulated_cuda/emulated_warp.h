// Stands in for the device's side of cuda_kernels/cuda/warp.h, matrix.h
// and copy.h, which say what these do. The place of a call is an argument
// more, for errors.
#ifndef TESTS_EMULATED_CUDA_EMULATED_WARP_H_
#define TESTS_EMULATED_CUDA_EMULATED_WARP_H_

#include <cstring>
#include <type_traits>

#include "cuda_kernels/scalar_types.h"
#include "tests/emulated_cuda/emulator.h"

namespace emulated {

// Gives each lane the value of the lane `from`.
uint64_t exchange(const Instruction& instruction, uint64_t value,
                  unsigned from);
unsigned vote(const Instruction& instruction, bool value);
void wait_for_warp(const Instruction& instruction);
void named_barrier(int id, int threads, Site site);

struct Matrices {
  float* sums;
  const uint32_t *a, *b;
};
enum class Element { kBfloat16, kFloat16, kTf32 };
void multiply(Element element, const Matrices& matrices, Site site);
void load_matrices(int count, bool transposed, uint32_t* to, const void* row,
                   Site site);

void copy_async(int size, void* to, const void* from, int bytes, Site site);
void commit_copies();
void wait_copies(unsigned groups);

template <typename T>
T exchange(const Instruction& instruction, T value, unsigned from) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange(instruction, bits, from);
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulated

namespace san {

inline int lane() { return emulated::position.lane; }

template <typename T>
T shuffle(T value, int from, unsigned lanes = kAllLanes,
          emulated::Site site = emulated::Site::here()) {
  return emulated::exchange<T>({"shuffle", site, lanes}, value, from);
}
template <typename T>
T shuffle_xor(T value, int bits, unsigned lanes = kAllLanes,
              emulated::Site site = emulated::Site::here()) {
  return emulated::exchange<T>({"shuffle_xor", site, lanes}, value,
                               emulated::position.lane ^ bits);
}
template <typename T>
T shuffle_down(T value, int step, unsigned lanes = kAllLanes,
               emulated::Site site = emulated::Site::here()) {
  const unsigned from = emulated::position.lane + step;
  return emulated::exchange<T>(
      {"shuffle_down", site, lanes}, value,
      from < emulated::kLanes ? from : emulated::position.lane);
}
inline unsigned ballot(bool value, unsigned lanes = kAllLanes,
                       emulated::Site site = emulated::Site::here()) {
  return emulated::vote({"ballot", site, lanes}, value);
}
inline bool any(bool value, unsigned lanes = kAllLanes,
                emulated::Site site = emulated::Site::here()) {
  return emulated::vote({"any", site, lanes}, value) != 0;
}
inline bool all(bool value, unsigned lanes = kAllLanes,
                emulated::Site site = emulated::Site::here()) {
  return emulated::vote({"all", site, lanes}, value) == lanes;
}
inline void warp_sync(unsigned lanes = kAllLanes,
                      emulated::Site site = emulated::Site::here()) {
  emulated::wait_for_warp({"warp_sync", site, lanes});
}
inline void barrier(int id, int threads,
                    emulated::Site site = emulated::Site::here()) {
  emulated::named_barrier(id, threads, site);
}

template <typename T>
void multiply_16x8x16(float (&sums)[4], const uint32_t (&a)[4],
                      const uint32_t (&b)[2],
                      emulated::Site site = emulated::Site::here()) {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>);
  emulated::multiply(std::is_same_v<T, bfloat16> ? emulated::Element::kBfloat16
                                                 : emulated::Element::kFloat16,
                     {sums, a, b}, site);
}
inline void multiply_16x8x8(float (&sums)[4], const uint32_t (&a)[4],
                            const uint32_t (&b)[2],
                            emulated::Site site = emulated::Site::here()) {
  emulated::multiply(emulated::Element::kTf32, {sums, a, b}, site);
}
inline uint32_t tf32(float value) {
  // To nearest, ties away from zero: a carry may raise the exponent.
  if (value != value) return 0x7fffffff;
  const uint32_t bits = float_bits(value);
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  return finite ? (bits + 0x1000) & ~0x1fffu : bits;
}
template <int kCount>
void load_matrices(uint32_t (&to)[kCount], const void* row,
                   emulated::Site site = emulated::Site::here()) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  emulated::load_matrices(kCount, false, to, row, site);
}
template <int kCount>
void load_transposed(uint32_t (&to)[kCount], const void* row,
                     emulated::Site site = emulated::Site::here()) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  emulated::load_matrices(kCount, true, to, row, site);
}

template <int kBytes>
void copy_async(void* to, const void* from, int bytes = kBytes,
                emulated::Site site = emulated::Site::here()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulated::copy_async(kBytes, to, from, bytes, site);
}
inline void commit_copies() { emulated::commit_copies(); }
template <int kGroups>
void wait_copies() {
  emulated::wait_copies(kGroups);
}

}  // namespace san

#endif  // TESTS_EMULATED_CUDA_EMULATED_WARP_H_
