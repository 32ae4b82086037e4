// The CUDA kernels, run on the CPU, as operators forward and backward of the library that the macro
// UNIPHD_EMULATION names.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#ifdef UNIPHD_EMULATION_ARCHITECTURE  // after PyTorch's headers, which have their own use for it
#define __CUDA_ARCH__ UNIPHD_EMULATION_ARCHITECTURE
#endif
#include "kernels_bfloat16.cu"
#include "kernels_double.cu"
#include "kernels_float.cu"
#include "kernels_half.cu"

namespace {

using at::Tensor;
using namespace uniphd::cuda;

template <typename T>
Inputs<T> inputs(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
    const Tensor& weights) {
  using A = typename Accumulate<T>::type;
  return {
      value.const_data_ptr<T>(), shapes.const_data_ptr<int64_t>(),
      starts.const_data_ptr<int64_t>(), locations.const_data_ptr<A>(),
      weights.const_data_ptr<A>(), value.size(0), locations.size(1), int(value.size(1)),
      int(value.size(2)), int(value.size(3)), int(locations.size(3)), int(locations.size(4))};
}

template <typename Run>
void dispatch(const Tensor& value, bool descending, const Run& run) {
  emulation_descending = descending;
  emulation_failed_assertions = 0;
  cudaError_t error = 1;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, value.scalar_type(), "emulation",
      [&] { error = run(static_cast<scalar_t*>(nullptr)); });
  TORCH_CHECK(error == 0, "a kernel did not finish");
  TORCH_CHECK(
      emulation_failed_assertions == 0, emulation_failed_assertions,
      " assertions failed on the device");
}

Tensor forward(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
    const Tensor& weights, bool descending) {
  Tensor output = at::full(
      {value.size(0), locations.size(1), value.size(2) * value.size(3)}, NAN, value.options());
  dispatch(value, descending, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch_forward<T>(
        inputs<T>(value, shapes, starts, locations, weights), output.mutable_data_ptr<T>(),
        nullptr);
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& shapes, const Tensor& starts,
    const Tensor& locations, const Tensor& weights, bool descending) {
  Tensor grad_value = at::zeros(value.sizes(), locations.options());
  Tensor grad_locations = at::full_like(locations, NAN);
  Tensor grad_weights = at::full_like(weights, NAN);
  dispatch(value, descending, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Accumulate<T>::type;
    return launch_backward<T>(
        inputs<T>(value, shapes, starts, locations, weights), grad_output.const_data_ptr<T>(),
        grad_value.mutable_data_ptr<A>(), grad_locations.mutable_data_ptr<A>(),
        grad_weights.mutable_data_ptr<A>(), nullptr);
  });
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY(UNIPHD_EMULATION, library) {
  library.def(
      "forward(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights, "
      "bool descending) -> Tensor",
      forward);
  library.def(
      "backward(Tensor grad_output, Tensor value, Tensor shapes, Tensor starts, "
      "Tensor locations, Tensor weights, bool descending) -> (Tensor, Tensor, Tensor)",
      backward);
}
