// The operators on NVIDIA GPUs: checks and memory around the kernels.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "kernels.h"

namespace uniphd::cuda {
namespace {

using at::Tensor;

// The tensors behind Inputs: contiguous, positions and weights in the type of the sums.
struct Prepared {
  Tensor value, shapes, starts, locations, weights;

  Prepared(
      const Tensor& value_, const Tensor& spatial_shapes, const Tensor& level_start_index,
      const Tensor& sampling_locations, const Tensor& attention_weights) {
    check_inputs(
        value_, spatial_shapes, level_start_index, sampling_locations, attention_weights);
    for (const int64_t size :
         {value_.size(2), value_.size(3), sampling_locations.size(3), sampling_locations.size(4),
          sampling_locations.size(3) * sampling_locations.size(4)}) {
      TORCH_CHECK_VALUE(
          size < (int64_t(1) << 30),
          "ms_deform_attn: heads, channels, levels and points must be fewer than 2^30; got value ",
          value_.sizes(), " and sampling_locations ", sampling_locations.sizes(), ".");
    }
    value = value_.contiguous();
    shapes = spatial_shapes.contiguous();
    starts = level_start_index.contiguous();
    const auto accumulate = accumulate_type(value.scalar_type());
    locations = sampling_locations.to(accumulate).contiguous();
    weights = attention_weights.to(accumulate).contiguous();
  }

  template <typename T>
  Inputs<T> inputs() const {
    using A = typename Accumulate<T>::type;
    return {
        static_cast<const T*>(value.const_data_ptr()),
        shapes.const_data_ptr<int64_t>(),
        starts.const_data_ptr<int64_t>(),
        locations.const_data_ptr<A>(),
        weights.const_data_ptr<A>(),
        value.size(0),
        locations.size(1),
        int(value.size(1)),
        int(value.size(2)),
        int(value.size(3)),
        int(locations.size(3)),
        int(locations.size(4))};
  }
};

// Calls run(null pointer to the C++ type of the value) and raises what CUDA reports.
template <typename Run>
void dispatch(const Tensor& value, const Run& run) {
  switch (value.scalar_type()) {
    case at::kFloat:
      C10_CUDA_CHECK(run(static_cast<float*>(nullptr)));
      return;
    case at::kDouble:
      C10_CUDA_CHECK(run(static_cast<double*>(nullptr)));
      return;
    case at::kHalf:
      C10_CUDA_CHECK(run(static_cast<__half*>(nullptr)));
      return;
    case at::kBFloat16:
      C10_CUDA_CHECK(run(static_cast<__nv_bfloat16*>(nullptr)));
      return;
    default:
      TORCH_CHECK_VALUE(
          false, "ms_deform_attn: value must be float32, float64, bfloat16 or float16; got ",
          value.scalar_type(), ".");
  }
}

Tensor forward(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Prepared prepared(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  Tensor output = at::empty(
      {value.size(0), sampling_locations.size(1), value.size(2) * value.size(3)},
      value.options());
  if (value.numel() == 0 || sampling_locations.numel() == 0) return output.zero_();
  dispatch(value, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch_forward<T>(
        prepared.inputs<T>(), static_cast<T*>(output.mutable_data_ptr()),
        c10::cuda::getCurrentCUDAStream());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  // The gradients of the values are added up atomically, in whatever order the GPU runs.
  at::globalContext().alertNotDeterministic("ms_deform_attn_backward_cuda");
  const c10::cuda::CUDAGuard guard(value.device());
  const Prepared prepared(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  TORCH_CHECK_VALUE(
      grad_output.dim() == 3 && grad_output.size(0) == value.size(0) &&
          grad_output.size(1) == sampling_locations.size(1) &&
          grad_output.size(2) == value.size(2) * value.size(3) &&
          grad_output.device() == value.device(),
      "ms_deform_attn_backward: grad_output must be [B, Q, M * D] on ", value.device(), "; got ",
      grad_output.sizes(), " on ", grad_output.device(), ".");
  if (value.numel() == 0 || sampling_locations.numel() == 0) {
    return {
        at::zeros_like(value, at::MemoryFormat::Contiguous),
        at::zeros_like(sampling_locations, at::MemoryFormat::Contiguous),
        at::zeros_like(attention_weights, at::MemoryFormat::Contiguous)};
  }
  const Tensor incoming = grad_output.to(value.scalar_type()).contiguous();
  const Tensor grad_value = at::zeros(value.sizes(), prepared.locations.options());
  const Tensor grad_locations = at::empty_like(prepared.locations);
  const Tensor grad_weights = at::empty_like(prepared.weights);
  dispatch(value, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Accumulate<T>::type;
    return launch_backward<T>(
        prepared.inputs<T>(), static_cast<const T*>(incoming.const_data_ptr()),
        grad_value.mutable_data_ptr<A>(), grad_locations.mutable_data_ptr<A>(),
        grad_weights.mutable_data_ptr<A>(), c10::cuda::getCurrentCUDAStream());
  });
  return {
      grad_value.to(value.scalar_type()),
      grad_locations.to(sampling_locations.scalar_type()),
      grad_weights.to(attention_weights.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(uniphd, CUDA, library) {
  library.impl("ms_deform_attn", forward);
  library.impl("ms_deform_attn_backward", backward);
}

}  // namespace uniphd::cuda
