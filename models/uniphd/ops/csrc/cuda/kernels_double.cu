#include "kernels_impl.cuh"

namespace uniphd::cuda {

UNIPHD_INSTANTIATE(double)

}  // namespace uniphd::cuda
