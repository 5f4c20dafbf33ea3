#include <map>

#include "cuda_kernels/cuda/copy.h"
#include "cuda_kernels/cuda/launch.h"
#include "cuda_kernels/cuda/matrix.h"
#include "tests/emulated_cuda/faulty_kernels.h"

namespace san::faults {
namespace {

// Shared memory is kSharedBytes; the sound parts of a kernel write out[0].
constexpr int kSharedBytes = 1024;

#define FAULT(name)                                      \
  __global__ void name([[maybe_unused]] const float* in, \
                       [[maybe_unused]] float* out, [[maybe_unused]] int size)

__device__ float* shared_floats() {
  return reinterpret_cast<float*>(shared_memory());
}
__device__ int thread() { return static_cast<int>(threadIdx.x); }

// ---- Lanes that do not meet.

FAULT(shuffle_of_some) {
  if (lane() != 31) out[0] = shuffle_xor(in[0], 1);
}
FAULT(shuffle_beside_barrier) {
  if (lane() != 7)
    out[0] = shuffle(in[0], 0);
  else
    __syncthreads();
}
FAULT(different_instructions) {
  if (lane() < 16)
    out[0] = shuffle(in[0], 0);
  else
    out[0] = ballot(true);
}
FAULT(different_places) {
  if (lane() < 16)
    out[0] = shuffle(in[0], 0);
  else
    out[0] = shuffle(in[1], 0);
}
FAULT(different_masks) {
  const bool low = lane() < 16;
  out[0] = shuffle(in[0], 0, low ? 0x1ffff : kAllLanes);
}
FAULT(mask_without_itself) { out[0] = shuffle(in[0], 0, 1); }
FAULT(shuffle_from_outside) {
  if (lane() < 16) out[0] = shuffle_xor(in[0], 16, 0xffff);
}
FAULT(shuffle_from_lane_32) { out[0] = shuffle(in[0], 32); }
FAULT(vote_of_some) {
  if (lane() > 0) out[0] = any(true);
}
FAULT(incomplete_warp) { out[0] = shuffle(in[0], 0); }
FAULT(syncthreads_of_some) {
  if (thread() < 40) __syncthreads();
  if (thread() >= 40) warp_sync(0xff000000 | 1u << lane());
}

// ---- Products and loads.

FAULT(divergent_product) {
  float sums[4] = {};
  if (lane() < 16) multiply_16x8x16<bfloat16>(sums, {0, 0, 0, 0}, {0, 0});
}
FAULT(product_of_incomplete_warp) {
  float sums[4] = {};
  multiply_16x8x16<float16>(sums, {0, 0, 0, 0}, {0, 0});
}
FAULT(unrounded_product) {
  float sums[4] = {};
  const uint32_t bits = float_bits(0.1f);
  multiply_16x8x8(sums, {tf32(1), tf32(2), bits, tf32(4)}, {tf32(1), tf32(2)});
}
FAULT(misaligned_load) {
  uint32_t to[4];
  load_matrices(to, shared_memory() + 16 * lane() + (lane() == 9 ? 8 : 0));
}
FAULT(load_past_the_end) {
  uint32_t to[2];
  load_transposed(to, shared_memory() + kSharedBytes - 16 * lane());
}
FAULT(load_of_global) {
  uint32_t to[1];
  const auto address = reinterpret_cast<uintptr_t>(in) / 16 * 16;
  load_matrices(to, reinterpret_cast<const void*>(address));
}
FAULT(divergent_load) {
  uint32_t to[1];
  if (lane() < 8) load_matrices(to, shared_memory() + 16 * lane());
}

// ---- Copies.

FAULT(load_before_waiting) {
  copy_async<4>(shared_floats() + thread(), in);
  commit_copies();
  uint32_t to[1];
  load_matrices(to, shared_memory() + 16 * (lane() % 8));
}
FAULT(read_before_waiting) {  // no error: what it reads is NaN
  copy_async<4>(shared_floats() + thread(), in);
  commit_copies();
  out[thread()] = shared_floats()[thread()];
  wait_copies<0>();
}
FAULT(wait_for_one_group_less) {  // likewise
  copy_async<4>(shared_floats() + thread(), in);
  commit_copies();
  wait_copies<1>();
  out[thread()] = shared_floats()[thread()];
  wait_copies<0>();
}
FAULT(no_barrier_behind_a_copy) {  // NaN in one of the two orders
  copy_async<4>(shared_floats() + thread(), in);
  commit_copies();
  wait_copies<0>();
  out[thread()] = shared_floats()[(thread() + 16) % 32];
}
FAULT(forgotten_wait) {
  copy_async<4>(shared_floats() + thread(), in);
  commit_copies();
}
FAULT(forgotten_commit) {
  copy_async<4>(shared_floats() + thread(), in);
  wait_copies<0>();
}
FAULT(misaligned_copy_to) { copy_async<16>(shared_floats() + 2, in); }
FAULT(misaligned_copy_from) {
  copy_async<8>(shared_floats(),
                reinterpret_cast<const char*>(in) + 4 * size - 12);
}
FAULT(copy_to_global) { copy_async<4>(out, in); }
FAULT(copy_past_the_end) { copy_async<4>(shared_floats() + 256, in); }
FAULT(copy_from_shared) { copy_async<4>(shared_floats(), shared_floats()); }
FAULT(copy_of_too_much) { copy_async<4>(shared_floats(), in, 5); }
FAULT(two_copies_to_one_place) {
  for (int i = 0; i < 2; ++i) copy_async<4>(shared_floats() + thread(), in);
}
FAULT(copy_of_what_changes) {
  out[thread()] = 0;
  copy_async<4>(shared_floats() + thread(), out + thread());
  out[thread()] = 1;
  commit_copies();
  wait_copies<0>();
}
FAULT(copy_past_the_input) { copy_async<4>(shared_floats(), in + size); }

// ---- Named barriers.

FAULT(barrier_of_half_a_warp) { barrier(1, 16); }
FAULT(barrier_of_too_many) { barrier(1, 96); }
FAULT(barrier_that_some_miss) {
  if (thread() < 32) barrier(3, 64);
}
FAULT(barrier_of_different_counts) { barrier(1, thread() < 32 ? 64 : 32); }
FAULT(barrier_of_different_lanes) { barrier(1 + lane() % 2, 64); }
FAULT(divergent_barrier) {
  if (lane() < 16) barrier(1, 64);
}
FAULT(barrier_zero) { barrier(0, 64); }

// ---- Memory.

FAULT(read_past_the_end) { out[0] = in[size]; }
FAULT(read_before_the_beginning) { out[0] = in[-1]; }
FAULT(write_past_the_end) { out[size + thread()] = 1; }
FAULT(write_before_the_beginning) { out[-2] = 1; }
FAULT(write_far_past_the_end) { out[size + (1 << 30)] = 1; }
FAULT(write_to_an_input) { const_cast<float*>(in)[1] = 1; }
FAULT(read_of_null) { out[0] = *reinterpret_cast<const float*>(size / 1000); }
FAULT(read_past_shared_memory) { out[0] = shared_floats()[kSharedBytes / 4]; }
FAULT(write_before_shared_memory) { shared_floats()[-1] = 1; }
FAULT(large_array) {
  volatile char local[1 << 18];
  for (int i = (1 << 18) - 1; i >= 0; i -= 1024) local[i] = 1;
  out[0] = local[size];
}
FAULT(division_by_zero) { out[0] = static_cast<float>(size / (size / 1000)); }
FAULT(nothing_written) {}
FAULT(one_element_unwritten) {
  for (int i = 0; i < size; ++i)
    if (i != 5) out[i] = 1;
}
FAULT(two_writers) {
  if (thread() == 0) out[3] = blockIdx.x + 1;
}
FAULT(two_writers_of_one_value) {
  if (thread() == 0) out[3] = 1;
}
FAULT(two_writers_of_what_was_there) {
  if (thread() == 0) out[3] = in[3] + blockIdx.x;
}
FAULT(reader_of_another_block) {  // no error: what it reads is NaN
  if (thread() != 0) return;
  for (int i = blockIdx.x; i < size; i += gridDim.x) out[i] = 1;
  if (blockIdx.x == 1) out[1] = out[0];
}

struct Fault {
  void (*kernel)(const float*, float*, int);
  int threads = 32, blocks = 1;
};

const std::map<std::string, Fault>& all() {
  static const std::map<std::string, Fault> faults = {
#define ONE(name, ...)            \
  {                               \
    #name, { &name, __VA_ARGS__ } \
  }
      ONE(shuffle_of_some),
      ONE(shuffle_beside_barrier),
      ONE(different_instructions),
      ONE(different_places),
      ONE(different_masks),
      ONE(mask_without_itself),
      ONE(shuffle_from_outside),
      ONE(shuffle_from_lane_32),
      ONE(vote_of_some),
      ONE(incomplete_warp, 40),
      ONE(syncthreads_of_some, 64),
      ONE(divergent_product),
      ONE(product_of_incomplete_warp, 48),
      ONE(unrounded_product),
      ONE(misaligned_load),
      ONE(load_past_the_end),
      ONE(load_of_global),
      ONE(divergent_load),
      ONE(load_before_waiting),
      ONE(read_before_waiting),
      ONE(wait_for_one_group_less),
      ONE(no_barrier_behind_a_copy),
      ONE(forgotten_wait),
      ONE(forgotten_commit),
      ONE(misaligned_copy_to),
      ONE(misaligned_copy_from),
      ONE(copy_to_global),
      ONE(copy_past_the_end),
      ONE(copy_from_shared),
      ONE(copy_of_too_much),
      ONE(two_copies_to_one_place),
      ONE(copy_of_what_changes),
      ONE(copy_past_the_input),
      ONE(barrier_of_half_a_warp, 64),
      ONE(barrier_of_too_many, 64),
      ONE(barrier_that_some_miss, 64),
      ONE(barrier_of_different_counts, 64),
      ONE(barrier_of_different_lanes, 64),
      ONE(divergent_barrier, 64),
      ONE(barrier_zero, 64),
      ONE(read_past_the_end),
      ONE(read_before_the_beginning),
      ONE(write_past_the_end),
      ONE(write_before_the_beginning),
      ONE(write_far_past_the_end),
      ONE(write_to_an_input),
      ONE(read_of_null),
      ONE(read_past_shared_memory),
      ONE(write_before_shared_memory),
      ONE(large_array),
      ONE(division_by_zero),
      ONE(nothing_written),
      ONE(one_element_unwritten),
      ONE(two_writers, 32, 2),
      ONE(two_writers_of_one_value, 32, 2),
      ONE(two_writers_of_what_was_there, 32, 2),
      ONE(reader_of_another_block, 32, 2),
#undef ONE
  };
  return faults;
}

}  // namespace

std::vector<std::string> names() {
  std::vector<std::string> names;
  for (const auto& [name, fault] : all()) names.push_back(name);
  return names;
}

void run(const std::string& name, const float* in, float* out, int size) {
  const Fault& fault = all().at(name);
  LaunchShape shape;
  shape.grid = dim3(fault.blocks);
  shape.block = dim3(fault.threads);
  shape.shared_bytes = kSharedBytes;
  launch(fault.kernel, shape, nullptr, in, out, size);
}

}  // namespace san::faults
