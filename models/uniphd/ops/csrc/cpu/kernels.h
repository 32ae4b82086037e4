// Interface of the CPU kernels: plain pointers, no PyTorch, so that every instruction set's copy
// of the kernels (kernels_*.cpp) shares nothing with the rest of the library but these structs.
#pragma once

#include <cstdint>

namespace uniphd::cpu {

// A bfloat16 number as it lies in memory: the upper half of a float32.
struct BFloat16Bits {
  uint16_t bits;
};

// The type that positions, weights and sums are computed in.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

// The geometry and the inputs, all contiguous.
template <typename T>
struct Inputs {
  using A = typename Accumulate<T>::type;
  const T* value;                // [batch, pixels, heads, channels]
  const int64_t* shapes;         // [levels, 2] (height, width)
  const int64_t* starts;         // [levels] first pixel of each level
  const A* locations;            // [batch, queries, heads, levels, points, 2] (x, y)
  const A* weights;              // [batch, queries, heads, levels, points]
  int64_t batch, pixels, heads, channels, queries, levels, points;
};

// Rows of batch * queries that the forward pass handles together, so that the arithmetic of
// positions fills vectors.
template <typename T>
int64_t rows_together(const Inputs<T>& in) {
  const int64_t samples = in.heads * in.levels * in.points;
  return samples >= 128 ? 1 : 128 / samples;
}

// Queries that the backward pass handles together, so that its arithmetic fills vectors.
constexpr int64_t queries_together(int64_t points) {
  return points >= 64 ? 1 : 64 / points;
}

// Bytes of working memory that one thread needs.
template <typename T>
int64_t forward_scratch_bytes(const Inputs<T>& in) {
  using A = typename Accumulate<T>::type;
  const int64_t samples = rows_together(in) * in.heads * in.levels * in.points;
  return (6 * samples + in.channels) * sizeof(A) + 7 * samples * sizeof(int32_t);
}
template <typename T>
int64_t backward_scratch_bytes(const Inputs<T>& in) {
  using A = typename Accumulate<T>::type;
  const int64_t samples = queries_together(in.points) * in.points;
  return (13 * samples + (in.pixels + 2) * in.channels) * sizeof(A) +
      4 * samples * sizeof(int32_t);
}

// One copy of the kernels, compiled for one instruction set.
template <typename T>
struct Kernels {
  using A = typename Accumulate<T>::type;
  // output [batch, queries, heads, channels], the rows [begin, end) of its batch * queries.
  void (*forward)(const Inputs<T>& in, T* output, int64_t begin, int64_t end, void* scratch);
  // Gradients of the tasks [begin, end) of batch * heads * levels.  Each task owns its part of
  // every gradient, so the tasks need no synchronisation and no order.
  void (*backward)(
      const Inputs<T>& in, const T* grad_output, T* grad_value, A* grad_locations,
      A* grad_weights, int64_t begin, int64_t end, void* scratch);
};

#define UNIPHD_DECLARE_KERNELS(isa)      \
  namespace isa {                        \
  extern const Kernels<float> f32;       \
  extern const Kernels<double> f64;      \
  extern const Kernels<BFloat16Bits> bf16; \
  }

UNIPHD_DECLARE_KERNELS(baseline)
UNIPHD_DECLARE_KERNELS(avx2)
UNIPHD_DECLARE_KERNELS(avx512)

}  // namespace uniphd::cpu
