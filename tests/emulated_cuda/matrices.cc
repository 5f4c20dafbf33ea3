// Products of matrices, and their loads from shared memory.
//
// Layouts of the fragments: PTX ISA, "Matrix Fragments for mma.m16n8k16 with
// floating point type", "... for mma.m16n8k8", "ldmatrix". In a lane, `group`
// is lane / 4 and `member` lane % 4.
#include <algorithm>
#include <cmath>

#include "cuda_kernels/cuda/matrix.h"

namespace emulated {
namespace {

constexpr int kRows = 16, kColumns = 8, kMostDepth = 16;

// 16 bits of a register: its lower or its upper half.
uint16_t half_of(uint32_t word, int half) {
  return static_cast<uint16_t>(word >> (16 * half));
}

double value_of(Element element, uint32_t word, int half) {
  switch (element) {
    case Element::kBfloat16:
      return float(san::bfloat16{half_of(word, half)});
    case Element::kFloat16:
      return float(san::float16{half_of(word, half)});
    default:
      return san::bits_float(word);
  }
}

struct Operand {
  double a[kRows][kMostDepth], b[kMostDepth][kColumns];
};

// The depth that register `r` of a lane holds: `half` of two.
int depth_of(Element element, int member, int r, int half) {
  return element == Element::kTf32 ? member + 4 * r : 2 * member + 8 * r + half;
}

void collect(Element element, const Operands& operands, Operand& to) {
  const int halves = element == Element::kTf32 ? 1 : 2;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const auto* from = static_cast<Matrices*>(operands[lane]);
    const int group = lane / 4, member = lane % 4;
    for (int half = 0; half < halves; ++half)
      for (int r = 0; r < 2; ++r) {
        const int k = depth_of(element, member, r, half);
        to.b[k][group] = value_of(element, from->b[r], half);
        for (int i = 0; i < 2; ++i)
          to.a[group + 8 * i][k] = value_of(element, from->a[2 * r + i], half);
      }
  }
}

// In float, term by term.
float sum_in_turn(float sum, const double* products, int count) {
  for (int k = 0; k < count; ++k) sum = static_cast<float>(sum + products[k]);
  return sum;
}

// From the last term on, as tensor cores do it: some terms at a time, each cut
// off at the last bit of the largest (Fasi, Higham, Mikaitis and Pranesh,
// "Numerical behavior of NVIDIA tensor cores", 2021; later chips keep more
// bits).
float sum_aligned(float sum, const double* products, int count, int at_a_time) {
  for (int end = count; end > 0; end -= at_a_time) {
    double exact = sum, largest = std::fabs(sum);
    for (int k = end - at_a_time; k < end; ++k) {
      exact += products[k];
      largest = std::max(largest, std::fabs(products[k]));
    }
    if (!std::isfinite(exact) || largest == 0) {
      sum = static_cast<float>(exact);
      continue;
    }
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
    double total = std::trunc(sum / unit);
    for (int k = end - at_a_time; k < end; ++k)
      total += std::trunc(products[k] / unit);
    sum = static_cast<float>(total * unit);
  }
  return sum;
}

void multiply_all(Element element, const Operands& operands) {
  const int depth = element == Element::kTf32 ? 8 : 16;
  const bool aligned = descending();
  Operand operand;
  collect(element, operands, operand);
  for (unsigned lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double products[kMostDepth];
      for (int k = 0; k < depth; ++k)
        products[k] = operand.a[row][k] * operand.b[k][column];
      float& sum = static_cast<Matrices*>(operands[lane])->sums[i];
      sum = aligned ? sum_aligned(sum, products, depth, depth / 2)
                    : sum_in_turn(sum, products, depth);
    }
}

struct Load {
  const void* row;
  uint32_t* to;
};

void load_all(int count, bool transposed, const Instruction& instruction,
              const Operands& operands) {
  for (int lane = 0; lane < 8 * count; ++lane) {
    const void* row = static_cast<Load*>(operands[lane])->row;
    const std::string name = at(instruction.name, instruction.site);
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
      fail_in_lane(lane,
                   name + ": row must be on a 16-byte boundary, got " +
                       std::to_string(reinterpret_cast<uintptr_t>(row) % 16) +
                       " bytes behind one");
    if (!is_shared(row, 16))
      fail_in_lane(lane, name + ": row must be 16 bytes of shared memory");
    require_arrived(lane, instruction.name, instruction.site, row, 16);
  }
  for (unsigned lane = 0; lane < kLanes; ++lane)
    for (int m = 0; m < count; ++m) {
      uint16_t pair[2];
      for (int half = 0; half < 2; ++half) {
        const int near = lane / 4, far = lane % 4 * 2 + half;
        const int row = transposed ? far : near;
        const int column = transposed ? near : far;
        const auto* from = static_cast<const char*>(
            static_cast<Load*>(operands[8 * m + row])->row);
        memcpy(&pair[half], from + 2 * column, 2);
      }
      static_cast<Load*>(operands[lane])->to[m] =
          pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
}

template <int kCount, bool kTransposed>
void load_counted(const Instruction& instruction, const Operands& operands) {
  load_all(kCount, kTransposed, instruction, operands);
}

template <Element kElement>
void multiply_elements(const Instruction&, const Operands& operands) {
  multiply_all(kElement, operands);
}

bool is_rounded(uint32_t word) {
  return (word & 0x1fff) == 0 || (word & 0x7f800000) == 0x7f800000;
}

}  // namespace

void multiply(Element element, const Matrices& matrices, Site site) {
  Matrices mine = matrices;
  switch (element) {
    case Element::kBfloat16:
      return meet({"multiply_16x8x16<bfloat16>", site, ~0u}, &mine,
                  &multiply_elements<Element::kBfloat16>);
    case Element::kFloat16:
      return meet({"multiply_16x8x16<float16>", site, ~0u}, &mine,
                  &multiply_elements<Element::kFloat16>);
    case Element::kTf32:
      for (const uint32_t* word :
           {mine.a, mine.a + 1, mine.a + 2, mine.a + 3, mine.b, mine.b + 1})
        if (!is_rounded(*word))
          fail(at("multiply_16x8x8", site) +
               ": elements must be rounded by tf32(), got " +
               std::to_string(san::bits_float(*word)));
      return meet({"multiply_16x8x8", site, ~0u}, &mine,
                  &multiply_elements<Element::kTf32>);
  }
}

void load_matrices(int count, bool transposed, uint32_t* to, const void* row,
                   Site site) {
  Load mine = {row, to};
  const Instruction instruction = {
      transposed ? "load_transposed" : "load_matrices", site, ~0u};
  switch (2 * count + transposed) {
    case 2:
      return meet(instruction, &mine, &load_counted<1, false>);
    case 3:
      return meet(instruction, &mine, &load_counted<1, true>);
    case 4:
      return meet(instruction, &mine, &load_counted<2, false>);
    case 5:
      return meet(instruction, &mine, &load_counted<2, true>);
    case 8:
      return meet(instruction, &mine, &load_counted<4, false>);
    default:
      return meet(instruction, &mine, &load_counted<4, true>);
  }
}

}  // namespace emulated
