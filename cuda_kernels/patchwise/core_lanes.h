// The fused patchwise core on the CPU where weight channels fill vectors.
#ifndef CUDA_KERNELS_PATCHWISE_CORE_LANES_H_
#define CUDA_KERNELS_PATCHWISE_CORE_LANES_H_

#include "cuda_kernels/patchwise/tasks.h"

namespace san::patchwise {

// Whether the functions below take the task, by its sizes alone.
bool takes_lanes(const PatchwiseCoreForward& task);
bool takes_lanes(const PatchwiseCoreBackward& task);

void run_in_lanes(const PatchwiseCoreForward& task);
void run_in_lanes(const PatchwiseCoreBackward& task);

}  // namespace san::patchwise

#endif  // CUDA_KERNELS_PATCHWISE_CORE_LANES_H_
