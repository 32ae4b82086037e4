#include <cuda_fp16.h>

#include "kernels_impl.cuh"

namespace uniphd::cuda {

template <>
struct Convert<__half> {
  static __device__ __forceinline__ float widen(__half number) { return __half2float(number); }
  static __device__ __forceinline__ __half narrow(float number) { return __float2half_rn(number); }
};

UNIPHD_INSTANTIATE(__half)

}  // namespace uniphd::cuda
