// The plain form of the published operator, written anew for the benchmark to compare with: one
// thread per output channel, which computes the positions for itself, and atomic additions for all
// gradients.  Values, positions and weights are of one type; gradients are added up in float32.

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

namespace {

using at::Tensor;

struct Sizes {
  int pixels, heads, channels, queries, levels, points;
  const int64_t* shapes;
  const int64_t* starts;
};

// What one thread finds at one sample.
struct Sample {
  int64_t row[4];      // offsets of the four pixels, -1 where outside
  float across, down;  // fractions
  int width, height;
  bool inside;
};

template <typename T>
__device__ Sample locate(const Sizes& s, int64_t index, int level, const T* locations) {
  Sample found;
  found.height = int(s.shapes[2 * level]);
  found.width = int(s.shapes[2 * level + 1]);
  const float x = float(locations[2 * index]) * found.width - 0.5f;
  const float y = float(locations[2 * index + 1]) * found.height - 0.5f;
  found.inside = x > -1 && y > -1 && x < found.width && y < found.height;
  if (found.inside) {
    const int left = int(floorf(x));
    const int top = int(floorf(y));
    found.across = x - left;
    found.down = y - top;
    for (int corner = 0; corner < 4; ++corner) {
      const int column = left + corner % 2;
      const int row = top + corner / 2;
      const bool exists = column >= 0 && row >= 0 && column < found.width && row < found.height;
      found.row[corner] =
          exists ? (s.starts[level] + row * found.width + column) * s.heads * s.channels : -1;
    }
  }
  return found;
}

template <typename T>
__global__ void forward_kernel(
    Sizes s, int64_t total, const T* value, const T* locations, const T* weights, T* output) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= total) return;
  const int channel = thread % s.channels;
  const int64_t item = thread / s.channels;
  const int head = item % s.heads;
  const int64_t image = item / s.heads / s.queries;
  const T* const base = value +
      (image * s.pixels * s.heads + head) * s.channels + channel;
  float sum = 0;
  for (int level = 0; level < s.levels; ++level) {
    for (int point = 0; point < s.points; ++point) {
      const int64_t index = (item * s.levels + level) * s.points + point;
      const Sample at = locate(s, index, level, locations);
      if (!at.inside) continue;
      for (int corner = 0; corner < 4; ++corner) {
        if (at.row[corner] < 0) continue;
        const float share = (corner % 2 ? at.across : 1 - at.across) *
            (corner / 2 ? at.down : 1 - at.down);
        sum += float(weights[index]) * share * float(base[at.row[corner]]);
      }
    }
  }
  output[thread] = T(sum);
}

template <typename T>
__global__ void backward_kernel(
    Sizes s, int64_t total, const T* grad_output, const T* value, const T* locations,
    const T* weights, float* grad_value, float* grad_locations, float* grad_weights) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= total) return;
  const int channel = thread % s.channels;
  const int64_t item = thread / s.channels;
  const int head = item % s.heads;
  const int64_t image = item / s.heads / s.queries;
  const int64_t base = (image * s.pixels * s.heads + head) * s.channels + channel;
  const float gradient = float(grad_output[thread]);
  for (int level = 0; level < s.levels; ++level) {
    for (int point = 0; point < s.points; ++point) {
      const int64_t index = (item * s.levels + level) * s.points + point;
      const Sample at = locate(s, index, level, locations);
      if (!at.inside) continue;
      const float weight = float(weights[index]);
      float along_x = 0, along_y = 0, sampled = 0;
      for (int corner = 0; corner < 4; ++corner) {
        if (at.row[corner] < 0) continue;
        const float across = corner % 2 ? at.across : 1 - at.across;
        const float down = corner / 2 ? at.down : 1 - at.down;
        const float pixel = float(value[base + at.row[corner]]);
        atomicAdd(grad_value + base + at.row[corner], gradient * weight * across * down);
        sampled += across * down * pixel;
        along_x += (corner % 2 ? down : -down) * pixel;
        along_y += (corner / 2 ? across : -across) * pixel;
      }
      atomicAdd(grad_weights + index, gradient * sampled);
      atomicAdd(grad_locations + 2 * index, gradient * weight * at.width * along_x);
      atomicAdd(grad_locations + 2 * index + 1, gradient * weight * at.height * along_y);
    }
  }
}

constexpr int kThreads = 256;

Sizes sizes(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations) {
  return {
      int(value.size(1)), int(value.size(2)), int(value.size(3)), int(locations.size(1)),
      int(locations.size(3)), int(locations.size(4)), shapes.const_data_ptr<int64_t>(),
      starts.const_data_ptr<int64_t>()};
}

Tensor forward(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
    const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  Tensor output = at::empty(
      {value.size(0), locations.size(1), value.size(2) * value.size(3)}, value.options());
  const int64_t total = output.numel();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, value.scalar_type(), "plain_forward", [&] {
        forward_kernel<scalar_t>
            <<<(total + kThreads - 1) / kThreads, kThreads, 0,
               c10::cuda::getCurrentCUDAStream()>>>(
                sizes(value, shapes, starts, locations), total, value.const_data_ptr<scalar_t>(),
                locations.const_data_ptr<scalar_t>(), weights.const_data_ptr<scalar_t>(),
                output.mutable_data_ptr<scalar_t>());
      });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad_output, const Tensor& value, const Tensor& shapes, const Tensor& starts,
    const Tensor& locations, const Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const auto zeros = [&](const Tensor& like) {
    return at::zeros(like.sizes(), like.options().dtype(at::kFloat));
  };
  Tensor grad_value = zeros(value);
  Tensor grad_locations = zeros(locations);
  Tensor grad_weights = zeros(weights);
  const int64_t total = grad_output.numel();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, value.scalar_type(), "plain_backward", [&] {
        backward_kernel<scalar_t>
            <<<(total + kThreads - 1) / kThreads, kThreads, 0,
               c10::cuda::getCurrentCUDAStream()>>>(
                sizes(value, shapes, starts, locations), total,
                grad_output.const_data_ptr<scalar_t>(), value.const_data_ptr<scalar_t>(),
                locations.const_data_ptr<scalar_t>(), weights.const_data_ptr<scalar_t>(),
                grad_value.mutable_data_ptr<float>(), grad_locations.mutable_data_ptr<float>(),
                grad_weights.mutable_data_ptr<float>());
      });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const auto type = value.scalar_type();
  return {grad_value.to(type), grad_locations.to(type), grad_weights.to(type)};
}

}  // namespace

TORCH_LIBRARY(uniphd_comparison, library) {
  library.def(
      "plain(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights) "
      "-> Tensor");
  library.def(
      "plain_backward(Tensor grad_output, Tensor value, Tensor shapes, Tensor starts, "
      "Tensor locations, Tensor weights) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(uniphd_comparison, CUDA, library) {
  library.impl("plain", forward);
  library.impl("plain_backward", backward);
}
