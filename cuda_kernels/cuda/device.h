// The few things the binding asks of the CUDA runtime, without its headers.
#ifndef CUDA_KERNELS_CUDA_DEVICE_H_
#define CUDA_KERNELS_CUDA_DEVICE_H_

namespace san {

// Devices that can be used; 0 where there is no driver or no GPU.
int cuda_device_count();

// Makes `device` current for its lifetime, then the previous one again.
// Throws std::runtime_error.
class CudaDeviceGuard {
 public:
  explicit CudaDeviceGuard(int device);
  ~CudaDeviceGuard();
  CudaDeviceGuard(const CudaDeviceGuard&) = delete;
  CudaDeviceGuard& operator=(const CudaDeviceGuard&) = delete;

 private:
  int previous_;
};

}  // namespace san

#endif  // CUDA_KERNELS_CUDA_DEVICE_H_
