// The CPU kernels in the instruction set that the compiler was told to use: SSE2 on any x86-64,
// NEON on ARM.
#include "kernels.h"

#define UNIPHD_ISA baseline
#define UNIPHD_VECTOR_BYTES 16
#include "kernels_impl.h"
