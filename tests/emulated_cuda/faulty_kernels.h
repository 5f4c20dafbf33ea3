// Kernels with a fault each, which the emulator must find.
#ifndef TESTS_EMULATED_CUDA_FAULTY_KERNELS_H_
#define TESTS_EMULATED_CUDA_FAULTY_KERNELS_H_

#include <string>
#include <vector>

namespace san::faults {

// Their names.
std::vector<std::string> names();
// Runs one of them on `size` floats to read and as many to write. Throws
// std::runtime_error where it goes wrong, std::out_of_range for another name.
void run(const std::string& name, const float* in, float* out, int size);

}  // namespace san::faults

#endif  // TESTS_EMULATED_CUDA_FAULTY_KERNELS_H_
