#include <cuda_bf16.h>

#include "kernels_impl.cuh"

namespace uniphd::cuda {

template <>
struct Convert<__nv_bfloat16> {
  static __device__ __forceinline__ float widen(__nv_bfloat16 number) { return __bfloat162float(number); }
  static __device__ __forceinline__ __nv_bfloat16 narrow(float number) { return __float2bfloat16_rn(number); }
};

UNIPHD_INSTANTIATE(__nv_bfloat16)

}  // namespace uniphd::cuda
