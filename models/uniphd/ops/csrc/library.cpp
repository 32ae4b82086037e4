// Declares the operators uniphd::ms_deform_attn and uniphd::ms_deform_attn_backward: schemas,
// shapes of their results (Meta) and derivatives.  The kernels register themselves from
// cpu/ms_deform_attn_cpu.cpp and cuda/ms_deform_attn_cuda.cpp.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

namespace uniphd {
namespace {

using at::Tensor;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

Tensor forward(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("uniphd::ms_deform_attn", "")
                             .typed<decltype(forward)>();
  return op.call(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
}

Gradients backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("uniphd::ms_deform_attn_backward", "")
                             .typed<decltype(backward)>();
  return op.call(
      grad_output, value, spatial_shapes, level_start_index, sampling_locations,
      attention_weights);
}

Tensor forward_meta(
    const Tensor& value, const Tensor& /*spatial_shapes*/, const Tensor& /*level_start_index*/,
    const Tensor& sampling_locations, const Tensor& /*attention_weights*/) {
  return at::empty_symint(
      {value.sym_size(0), sampling_locations.sym_size(1), value.sym_size(2) * value.sym_size(3)},
      value.options());
}

Gradients backward_meta(
    const Tensor& /*grad_output*/, const Tensor& value, const Tensor& /*spatial_shapes*/,
    const Tensor& /*level_start_index*/, const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const auto like = [](const Tensor& tensor) {
    return at::empty_symint(tensor.sym_sizes(), tensor.options());
  };
  return {like(value), like(sampling_locations), like(attention_weights)};
}

class BackwardFunction : public torch::autograd::Function<BackwardFunction> {
 public:
  static variable_list forward(
      torch::autograd::AutogradContext* /*context*/, const Tensor& grad_output,
      const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
      const Tensor& sampling_locations, const Tensor& attention_weights) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [grad_value, grad_locations, grad_weights] = uniphd::backward(
        grad_output, value, spatial_shapes, level_start_index, sampling_locations,
        attention_weights);
    return {grad_value, grad_locations, grad_weights};
  }

  static variable_list backward(
      torch::autograd::AutogradContext* /*context*/, const variable_list& /*gradients*/) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "The compiled ms_deform_attn has no second derivatives; set "
        "UNIPHD_MS_DEFORM_ATTN=pytorch to use the pure PyTorch implementation.");
  }
};

Gradients backward_autograd(
    const Tensor& grad_output, const Tensor& value, const Tensor& spatial_shapes,
    const Tensor& level_start_index, const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const auto gradients = BackwardFunction::apply(
      grad_output, value, spatial_shapes, level_start_index, sampling_locations,
      attention_weights);
  return {gradients[0], gradients[1], gradients[2]};
}

class ForwardFunction : public torch::autograd::Function<ForwardFunction> {
 public:
  static Tensor forward(
      torch::autograd::AutogradContext* context, const Tensor& value,
      const Tensor& spatial_shapes, const Tensor& level_start_index,
      const Tensor& sampling_locations, const Tensor& attention_weights) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward(
        {value, spatial_shapes, level_start_index, sampling_locations, attention_weights});
    return uniphd::forward(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  }

  static variable_list backward(
      torch::autograd::AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    auto [grad_value, grad_locations, grad_weights] = uniphd::backward(
        gradients[0], saved[0], saved[1], saved[2], saved[3], saved[4]);
    return {grad_value, Tensor(), Tensor(), grad_locations, grad_weights};
  }
};

Tensor forward_autograd(
    const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
    const Tensor& sampling_locations, const Tensor& attention_weights) {
  return ForwardFunction::apply(
      value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
}

}  // namespace

TORCH_LIBRARY(uniphd, library) {
  library.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights) "
      "-> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(uniphd, Meta, library) {
  library.impl("ms_deform_attn", forward_meta);
  library.impl("ms_deform_attn_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(uniphd, Autograd, library) {
  library.impl("ms_deform_attn", forward_autograd);
  library.impl("ms_deform_attn_backward", backward_autograd);
}

}  // namespace uniphd
