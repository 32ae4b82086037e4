// The operators on the CPU: checks, memory and threads around the kernels.

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "../checks.h"
#include "kernels.h"

namespace uniphd::cpu {
namespace {

using at::Tensor;

enum class InstructionSet { baseline, avx2, avx512 };

// The widest one that this processor offers and PyTorch itself would use, which the environment
// variable ATEN_CPU_CAPABILITY (default, avx2, avx512) bounds.
InstructionSet instruction_set() {
  static const InstructionSet found = [] {
#if defined(__x86_64__)
    const std::string capability = at::get_cpu_capability();
    __builtin_cpu_init();
    if (capability == "AVX512" && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
      return InstructionSet::avx512;
    }
    if ((capability == "AVX512" || capability == "AVX2") && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma")) {
      return InstructionSet::avx2;
    }
#endif
    return InstructionSet::baseline;
  }();
  return found;
}

#if defined(__x86_64__)
#define UNIPHD_CHOOSE(name)                                             \
  (instruction_set() == InstructionSet::avx512     ? avx512::name       \
       : instruction_set() == InstructionSet::avx2 ? avx2::name         \
                                                   : baseline::name)
#else
#define UNIPHD_CHOOSE(name) baseline::name
#endif

template <typename T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>() {
  return UNIPHD_CHOOSE(f32);
}
template <>
const Kernels<double>& kernels<double>() {
  return UNIPHD_CHOOSE(f64);
}
template <>
const Kernels<BFloat16Bits>& kernels<BFloat16Bits>() {
  return UNIPHD_CHOOSE(bf16);
}

// Raises ValueError unless the levels lie one after the other and fill all pixels.
void check_levels(const Tensor& spatial_shapes, const Tensor& level_start_index, int64_t pixels) {
  const auto* shapes = spatial_shapes.const_data_ptr<int64_t>();
  const auto* starts = level_start_index.const_data_ptr<int64_t>();
  int64_t end = 0;
  for (int64_t level = 0; level < spatial_shapes.size(0); ++level) {
    const int64_t height = shapes[2 * level];
    const int64_t width = shapes[2 * level + 1];
    TORCH_CHECK_VALUE(
        height >= 1 && width >= 1 && height <= pixels && width <= pixels,
        "ms_deform_attn: level ", level, " of spatial_shapes has height ", height, " and width ",
        width, "; both must be at least 1 and the areas must add up to S = ", pixels, ".");
    TORCH_CHECK_VALUE(
        starts[level] == end, "ms_deform_attn: level_start_index[", level, "] is ",
        starts[level], ", but the levels before it in spatial_shapes have ", end, " pixels.");
    end += height * width;
  }
  TORCH_CHECK_VALUE(
      end == pixels, "ms_deform_attn: the levels in spatial_shapes have ", end,
      " pixels together, but value has S = ", pixels, ".");
}

// The tensors behind Inputs: contiguous, positions and weights in the type of the sums.
struct Prepared {
  Tensor value, shapes, starts, locations, weights;

  Prepared(
      const Tensor& value_, const Tensor& spatial_shapes, const Tensor& level_start_index,
      const Tensor& sampling_locations, const Tensor& attention_weights) {
    check_inputs(
        value_, spatial_shapes, level_start_index, sampling_locations, attention_weights);
    shapes = spatial_shapes.contiguous();
    starts = level_start_index.contiguous();
    check_levels(shapes, starts, value_.size(1));
    // float16 has no arithmetic on most processors: it is computed in float32.
    const bool half = value_.scalar_type() == at::kHalf;
    value = (half ? value_.to(at::kFloat) : value_).contiguous();
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
        value.size(1),
        value.size(2),
        value.size(3),
        locations.size(1),
        locations.size(3),
        locations.size(4)};
  }
};

// Calls run(T()) with the C++ type of the value.
template <typename Run>
void dispatch(const Tensor& value, const Run& run) {
  switch (value.scalar_type()) {
    case at::kFloat:
      return run(float());
    case at::kDouble:
      return run(double());
    case at::kBFloat16:
      return run(BFloat16Bits());
    default:
      TORCH_CHECK_VALUE(
          false, "ms_deform_attn: value must be float32, float64, bfloat16 or float16; got ",
          value.scalar_type(), ".");
  }
}

Tensor working_memory(int64_t bytes) {
  return at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
}

Tensor forward(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  const Prepared prepared(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  const int64_t queries = sampling_locations.size(1);
  Tensor output = at::empty(
      {value.size(0), queries, value.size(2) * value.size(3)}, prepared.value.options());
  if (sampling_locations.numel() == 0 || output.numel() == 0) {
    return output.zero_().to(value.scalar_type());
  }
  dispatch(prepared.value, [&](auto type) {
    using T = decltype(type);
    const Inputs<T> in = prepared.inputs<T>();
    auto* const result = static_cast<T*>(output.mutable_data_ptr());
    // A thread is worth waking for some hundred thousand multiplications.
    const int64_t products = 4 * in.heads * in.levels * in.points * in.channels;
    const int64_t grain = std::max<int64_t>(1, (int64_t(1) << 18) / products);
    at::parallel_for(0, in.batch * in.queries, grain, [&](int64_t begin, int64_t end) {
      const Tensor scratch = working_memory(forward_scratch_bytes(in));
      kernels<T>().forward(in, result, begin, end, scratch.mutable_data_ptr());
    });
  });
  return output.to(value.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const Prepared prepared(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  TORCH_CHECK_VALUE(
      grad_output.dim() == 3 && grad_output.size(0) == value.size(0) &&
          grad_output.size(1) == sampling_locations.size(1) &&
          grad_output.size(2) == value.size(2) * value.size(3),
      "ms_deform_attn_backward: grad_output must be [B, Q, M * D]; got ", grad_output.sizes(),
      ".");
  if (value.numel() == 0 || sampling_locations.numel() == 0) {
    return {
        at::zeros_like(value, at::MemoryFormat::Contiguous),
        at::zeros_like(sampling_locations, at::MemoryFormat::Contiguous),
        at::zeros_like(attention_weights, at::MemoryFormat::Contiguous)};
  }
  const Tensor incoming = grad_output.to(prepared.value.scalar_type()).contiguous();
  Tensor grad_value = at::empty_like(prepared.value);
  Tensor grad_locations = at::empty_like(prepared.locations);
  Tensor grad_weights = at::empty_like(prepared.weights);
  dispatch(prepared.value, [&](auto type) {
    using T = decltype(type);
    using A = typename Accumulate<T>::type;
    const Inputs<T> in = prepared.inputs<T>();
    const auto* const gradient = static_cast<const T*>(incoming.const_data_ptr());
    auto* const to_value = static_cast<T*>(grad_value.mutable_data_ptr());
    auto* const to_locations = grad_locations.mutable_data_ptr<A>();
    auto* const to_weights = grad_weights.mutable_data_ptr<A>();
    at::parallel_for(0, in.batch * in.heads * in.levels, 1, [&](int64_t begin, int64_t end) {
      const Tensor scratch = working_memory(backward_scratch_bytes(in));
      kernels<T>().backward(
          in, gradient, to_value, to_locations, to_weights, begin, end,
          scratch.mutable_data_ptr());
    });
  });
  return {
      grad_value.to(value.scalar_type()),
      grad_locations.to(sampling_locations.scalar_type()),
      grad_weights.to(attention_weights.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(uniphd, CPU, library) {
  library.impl("ms_deform_attn", forward);
  library.impl("ms_deform_attn_backward", backward);
}

}  // namespace uniphd::cpu
