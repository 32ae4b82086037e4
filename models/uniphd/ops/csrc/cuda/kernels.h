// Interface of the CUDA kernels: plain device pointers, no PyTorch, which keeps nvcc fast.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace uniphd::cuda {

// The type that positions, weights and sums are computed in.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

// The geometry and the inputs, all contiguous on the device.
template <typename T>
struct Inputs {
  using A = typename Accumulate<T>::type;
  const T* value;          // [batch, pixels, heads, channels]
  const int64_t* shapes;   // [levels, 2] (height, width)
  const int64_t* starts;   // [levels] first pixel of each level
  const A* locations;      // [batch, queries, heads, levels, points, 2] (x, y)
  const A* weights;        // [batch, queries, heads, levels, points]
  int64_t batch, queries;  // all sizes are at least 1
  int pixels, heads, channels, levels, points;
};

// output [batch, queries, heads, channels].
template <typename T>
cudaError_t launch_forward(const Inputs<T>& in, T* output, cudaStream_t stream);

// Adds to grad_value [batch, pixels, heads, channels], which the caller has filled with zeros, and
// writes grad_locations and grad_weights, shaped as locations and weights.
template <typename T>
cudaError_t launch_backward(
    const Inputs<T>& in, const T* grad_output, typename Accumulate<T>::type* grad_value,
    typename Accumulate<T>::type* grad_locations, typename Accumulate<T>::type* grad_weights,
    cudaStream_t stream);

}  // namespace uniphd::cuda
