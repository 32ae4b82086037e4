// Validation that the CPU and CUDA operators share: what they rely on for memory safety.
#pragma once

#include <ATen/core/Tensor.h>

namespace uniphd {

// The type that positions, weights and sums of a value's type are computed in.
inline at::ScalarType accumulate_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

// Raises ValueError unless ranks, sizes and types fit together (models/uniphd/ops/functional.py
// describes them); the numbers in spatial_shapes and level_start_index are not read.
inline void check_inputs(
    const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  TORCH_CHECK_VALUE(
      value.dim() == 4 && sampling_locations.dim() == 6 && attention_weights.dim() == 5 &&
          spatial_shapes.dim() == 2 && level_start_index.dim() == 1,
      "ms_deform_attn: expected value [B, S, M, D], spatial_shapes [L, 2], level_start_index [L],",
      " sampling_locations [B, Q, M, L, P, 2], attention_weights [B, Q, M, L, P]; got ",
      value.sizes(), ", ", spatial_shapes.sizes(), ", ", level_start_index.sizes(), ", ",
      sampling_locations.sizes(), ", ", attention_weights.sizes(), ".");
  const auto locations = sampling_locations.sizes();
  TORCH_CHECK_VALUE(
      locations[0] == value.size(0) && locations[2] == value.size(2) && locations[5] == 2 &&
          attention_weights.sizes() == locations.slice(0, 5) &&
          spatial_shapes.size(0) == locations[3] && spatial_shapes.size(1) == 2 &&
          level_start_index.size(0) == locations[3],
      "ms_deform_attn: the sizes do not fit together: value [B, S, M, D] = ", value.sizes(),
      ", spatial_shapes [L, 2] = ", spatial_shapes.sizes(), ", level_start_index [L] = ",
      level_start_index.sizes(), ", sampling_locations [B, Q, M, L, P, 2] = ", locations,
      ", attention_weights [B, Q, M, L, P] = ", attention_weights.sizes(), ".");
  for (const at::Tensor* tensor :
       {&spatial_shapes, &level_start_index, &sampling_locations, &attention_weights}) {
    TORCH_CHECK_VALUE(
        tensor->device() == value.device(), "ms_deform_attn: all tensors must be on ",
        value.device(), " like value; got one on ", tensor->device(), ".");
  }
  TORCH_CHECK_VALUE(
      spatial_shapes.scalar_type() == at::kLong && level_start_index.scalar_type() == at::kLong,
      "ms_deform_attn: spatial_shapes and level_start_index must be int64; got ",
      spatial_shapes.scalar_type(), " and ", level_start_index.scalar_type(), ".");
  const auto accumulate = accumulate_type(value.scalar_type());
  for (const at::Tensor* tensor : {&sampling_locations, &attention_weights}) {
    TORCH_CHECK_VALUE(
        at::isFloatingType(tensor->scalar_type()) &&
            at::promoteTypes(tensor->scalar_type(), accumulate) == accumulate,
        "ms_deform_attn: sampling_locations and attention_weights must be of ", accumulate,
        " or a shorter floating type for a value of ", value.scalar_type(), "; got ",
        tensor->scalar_type(), ".");
  }
  TORCH_CHECK_VALUE(
      value.size(1) < (int64_t(1) << 30), "ms_deform_attn: at most 2^30 - 1 pixels; got ",
      value.size(1), ".");
}

}  // namespace uniphd
