// The Python module: the functions of every family, and what they share. Each
// function reads its arguments, checks them against each other and runs what
// the tensors' device and the options ask for. Nothing after these checks can
// fail on a bad argument.
#include <pybind11/pybind11.h>

#include <iterator>
#include <string>
#include <vector>

#include "cuda_kernels/binding/options.h"
#include "cuda_kernels/cpu/instruction_set.h"
#include "cuda_kernels/cuda/device.h"
#include "cuda_kernels/norm_relu/binding.h"
#include "cuda_kernels/pairwise/binding.h"
#include "cuda_kernels/patchwise/binding.h"
#include "cuda_kernels/pointwise/binding.h"
#include "cuda_kernels/resize/binding.h"
#include "cuda_kernels/window_ops/binding.h"

namespace py = pybind11;

namespace san {
namespace {

constexpr char kCudaDeviceCountDoc[] =
    "The CUDA devices that can be used: 0 without a driver, without a GPU, or\n"
    "in a build without CUDA.";

constexpr char kBuiltWithCudaDoc[] =
    "Whether this build contains the CUDA kernels.";

constexpr char kInstructionSetsDoc[] =
    "The instruction sets that the fast CPU kernels can use on this "
    "processor,\n"
    "in ascending order. The last one is in use.";

constexpr char kUseInstructionSetDoc[] =
    "Makes all later fast CPU kernels use one of instruction_sets().\n\n"
    "For tests and benchmarks.\n\n"
    "Raises:\n"
    "  ValueError: the name is not one of them.\n";

constexpr char kTakesBfloat16Doc[] =
    "Whether pointwise_forward and pairwise_forward take bfloat16 on the CPU:\n"
    "the processor multiplies pairs of it (avx512_bf16), in the instruction\n"
    "set in use, and has no AMX, which PyTorch uses.";

#ifdef SAN_NO_CUDA
constexpr bool kBuiltWithCuda = false;
#else
constexpr bool kBuiltWithCuda = true;
#endif

// Names of the instruction sets that this processor can run, the best last.
py::list instruction_sets() {
  py::list names;
  for (int i = 0; i <= best_instruction_set(); ++i)
    names.append(kInstructionSets[i]);
  return names;
}

void use_set_named(py::handle name) {
  const std::vector<std::string> known(
      std::begin(kInstructionSets),
      std::begin(kInstructionSets) + best_instruction_set() + 1);
  use_instruction_set(static_cast<int>(
      checked_choice("use_instruction_set", "name", name, known)));
}

int device_count() {
#ifdef SAN_NO_CUDA
  return 0;
#else
  return cuda_device_count();
#endif
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "Compiled kernels; see the package cuda_kernels.";
  define_window_ops(module);
  define_pairwise(module);
  define_patchwise(module);
  define_norm_relu(module);
  define_pointwise(module);
  define_resize(module);
  module.def("cuda_device_count", &device_count, kCudaDeviceCountDoc);
  module.def(
      "built_with_cuda", [] { return kBuiltWithCuda; }, kBuiltWithCudaDoc);
  module.def("instruction_sets", &instruction_sets, kInstructionSetsDoc);
  module.def("use_instruction_set", &use_set_named, py::arg("name"),
             kUseInstructionSetDoc);
  module.def("takes_bfloat16", &multiplies_bfloat16, kTakesBfloat16Doc);
}

}  // namespace san
