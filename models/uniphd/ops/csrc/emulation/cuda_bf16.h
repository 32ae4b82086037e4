// Stands in for CUDA's header; see cuda_runtime.h beside it.
#pragma once

#include <c10/util/BFloat16.h>

using __nv_bfloat16 = c10::BFloat16;

inline float __bfloat162float(__nv_bfloat16 number) { return number; }
inline __nv_bfloat16 __float2bfloat16_rn(float number) { return number; }
