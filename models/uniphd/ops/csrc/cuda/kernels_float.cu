#include "kernels_impl.cuh"

namespace uniphd::cuda {

UNIPHD_INSTANTIATE(float)

}  // namespace uniphd::cuda
