// The CUDA kernels, compiled for one type by each of the kernels_<type>.cu.
//
// An item is one head of one query.  A group of G neighbouring lanes works on an item, each lane on
// V neighbouring channels, which it reads and writes as one vector; a warp holds 32 / G items and
// needs no other warp.  The arithmetic of positions is done once per sample, not once per channel:
// the warp's lanes share out the samples of its items among themselves and leave each sample's four
// pixels and weights in shared memory.
//
// The same source is compiled for the CPU by the tests, which stand in for a GPU (emulation/).
#pragma once

#undef NDEBUG  // the assertions below are errors of the caller's, not of this code
#include <cassert>
#include <climits>
#include <type_traits>

#include "kernels.h"

#ifndef UNIPHD_DEVICE_ASSERT
#define UNIPHD_DEVICE_ASSERT(condition) assert(condition)
#endif

namespace uniphd::cuda {

constexpr int kLanes = 32;
constexpr int kWarps = 4;  // of a block
constexpr unsigned kAllLanes = 0xffffffffu;

// Samples of an item that are prepared together: at most 128 per warp, to bound shared memory.
template <int G>
constexpr int kChunk = G >= 4 ? 16 : G == 2 ? 8 : 2;
constexpr int kMostSharedBytes = 48 * 1024;  // what every GPU gives a block

// Conversion between T and the type of the sums; kernels_half.cu and kernels_bfloat16.cu have their
// own, because PyTorch's flags for nvcc take the implicit ones away.
template <typename T>
struct Convert {
  static __device__ __forceinline__ T widen(T number) { return number; }
  static __device__ __forceinline__ T narrow(T number) { return number; }
};

// V neighbouring numbers that are moved at once.
template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T items[V];
};

// What a sample reads: its four pixels in the order (top left, top right, bottom left, bottom
// right), -1 where outside of the map, and their weights.
template <typename A>
struct alignas(16) Corners {
  int pixel[4];
  A weight[4];
};

// A sampling point on its level.
template <typename A>
struct Point {
  int level, rows, columns;
  int first;         // pixel of the level
  int x, y;          // pixel to the top left of the point
  A right, bottom;   // fractions of the way to the pixels to the right and to the bottom
  bool inside;       // touches a pixel; else only level is set
};

// Raises the device's assertion unless the levels lie one after the other and fill all pixels.
template <typename T>
__device__ void check_levels(const Inputs<T>& in) {
  int64_t end = 0;
  for (int level = 0; level < in.levels; ++level) {
    const int64_t height = in.shapes[2 * level];
    const int64_t width = in.shapes[2 * level + 1];
    const bool spatial_shapes_are_at_least_1_and_fit_into_value =
        height >= 1 && width >= 1 && height <= in.pixels && width <= in.pixels;
    UNIPHD_DEVICE_ASSERT(spatial_shapes_are_at_least_1_and_fit_into_value);
    const bool level_start_index_is_the_sum_of_the_areas_before = in.starts[level] == end;
    UNIPHD_DEVICE_ASSERT(level_start_index_is_the_sum_of_the_areas_before);
    end += height * width;
  }
  const bool areas_of_spatial_shapes_add_up_to_the_pixels_of_value = end == in.pixels;
  UNIPHD_DEVICE_ASSERT(areas_of_spatial_shapes_add_up_to_the_pixels_of_value);
}

template <typename T, typename A = typename Accumulate<T>::type>
__device__ __forceinline__ Point<A> locate(const Inputs<T>& in, int64_t index, int sample) {
  Point<A> point;
  point.level = sample / in.points;
  const int64_t rows = in.shapes[2 * point.level];
  const int64_t columns = in.shapes[2 * point.level + 1];
  const int64_t first = in.starts[point.level];
  // A wrong geometry is reported by check_levels; here it must not lead out of the memory.
  const bool fits = rows >= 1 && columns >= 1 && rows <= in.pixels && columns <= in.pixels &&
      first >= 0 && first <= in.pixels - rows * columns;
  const A x = in.locations[2 * index] * A(columns) - A(0.5);
  const A y = in.locations[2 * index + 1] * A(rows) - A(0.5);
  // False for NaN, too.
  point.inside = fits && x > A(-1) && x < A(columns) && y > A(-1) && y < A(rows);
  if (point.inside) {
    point.rows = int(rows);
    point.columns = int(columns);
    point.first = int(first);
    const A left = floor(x);
    const A top = floor(y);
    point.x = int(left);
    point.y = int(top);
    point.right = x - left;
    point.bottom = y - top;
  }
  return point;
}

template <typename T, typename A = typename Accumulate<T>::type>
__device__ __forceinline__ Corners<A> corners(const Inputs<T>& in, int64_t index, int sample) {
  const Point<A> point = locate(in, index, sample);
  Corners<A> result;
  if (!point.inside) {
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      result.pixel[corner] = -1;
      result.weight[corner] = A(0);
    }
    return result;
  }
  const A weight = in.weights[index];
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int x = point.x + (corner & 1);
    const int y = point.y + (corner >> 1);
    const bool exists = x >= 0 && x < point.columns && y >= 0 && y < point.rows;
    const A across = corner & 1 ? point.right : A(1) - point.right;
    const A down = corner >> 1 ? point.bottom : A(1) - point.bottom;
    result.pixel[corner] = exists ? point.first + y * point.columns + x : -1;
    result.weight[corner] = weight * down * across;
  }
  return result;
}

// The corners of samples [begin, begin + count) of the warp's items, shared out among its lanes.
template <typename T, int G, typename A = typename Accumulate<T>::type>
__device__ __forceinline__ void prepare(
    const Inputs<T>& in, int64_t first_item, int64_t items, int begin, int count,
    Corners<A> (&prepared)[kLanes / G][kChunk<G> + 1]) {
  const int samples = in.levels * in.points;
  for (int i = int(threadIdx.x) % kLanes; i < kLanes / G * count; i += kLanes) {
    const int64_t item = first_item + i / count;
    const int sample = begin + i % count;
    if (item < items) {
      prepared[i / count][i % count] = corners(in, item * samples + sample, sample);
    }
  }
}

// V numbers, one vector instruction; zeros where there is no pixel.
template <int V, typename T>
__device__ __forceinline__ Pack<T, V> read(const T* source, bool exists) {
  Pack<T, V> pack;
  if (exists) {
    pack = *reinterpret_cast<const Pack<T, V>*>(source);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) pack.items[v] = Convert<T>::narrow(0);
  }
  return pack;
}

template <typename T, int V, int G>
__global__ void __launch_bounds__(kWarps* kLanes) forward_kernel(Inputs<T> in, T* output) {
  using A = typename Accumulate<T>::type;
  // One more than a chunk, so that the groups of a warp read from different banks.
  __shared__ Corners<A> shared[kWarps][kLanes / G][kChunk<G> + 1];
  const int warp = int(threadIdx.x) / kLanes;
  const int group = int(threadIdx.x) % kLanes / G;
  const int member = int(threadIdx.x) % G;
  auto& prepared = shared[warp];
  if (blockIdx.x == 0 && threadIdx.x == 0) check_levels(in);

  const int64_t items = in.batch * in.queries * in.heads;
  const int64_t stride = int64_t(in.heads) * in.channels;
  const int samples = in.levels * in.points;
  const int64_t step = int64_t(gridDim.x) * kWarps * (kLanes / G);
  // The condition is the same for all lanes of a warp, so that all reach its synchronisations.
  for (int64_t first = (int64_t(blockIdx.x) * kWarps + warp) * (kLanes / G); first < items;
       first += step) {
    const int64_t item = first + group;
    const bool active = item < items;
    const int64_t image = item / (in.heads * in.queries);
    const T* const value =
        in.value + image * in.pixels * stride + item % in.heads * in.channels;
    for (int block = 0; block < in.channels; block += G * V) {
      const int channel = block + member * V;
      const bool used = active && channel < in.channels;
      A sums[V] = {};
      for (int begin = 0; begin < samples; begin += kChunk<G>) {
        const int count = min(kChunk<G>, samples - begin);
        if (block == 0 || samples > kChunk<G>) {
          __syncwarp();  // the last chunk has been read
          prepare<T, G>(in, first, items, begin, count, prepared);
          __syncwarp();
        }
        if (!used) continue;
#pragma unroll 2
        for (int sample = 0; sample < count; ++sample) {
          const Corners<A> from = prepared[group][sample];
          Pack<T, V> pixels[4];
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            pixels[corner] = read<V>(
                value + from.pixel[corner] * stride + channel, from.pixel[corner] >= 0);
          }
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
              sums[v] += from.weight[corner] * Convert<T>::widen(pixels[corner].items[v]);
            }
          }
        }
      }
      if (used) {
        Pack<T, V> result;
#pragma unroll
        for (int v = 0; v < V; ++v) result.items[v] = Convert<T>::narrow(sums[v]);
        *reinterpret_cast<Pack<T, V>*>(output + item * in.channels + channel) = result;
      }
    }
  }
}

// From compute capability 9.0 on, four float32 are added atomically by one instruction.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kVectorAtomics = true;
#else
constexpr bool kVectorAtomics = false;
#endif

// Which channels of a block of G * V a lane of the backward pass works on.  Either way, the lanes
// of a group touch whole sectors of memory with every atomic instruction: neighbouring channels
// where an instruction adds vectors, else every G-th.
template <typename A, int V, int G>
struct LaneChannels {
  static constexpr bool kNeighbours = kVectorAtomics && V == 4 && sizeof(A) == sizeof(float);
  int first, channels;

  __device__ LaneChannels(int block, int channels_) : channels(channels_) {
    const int member = int(threadIdx.x) % G;
    first = block + (kNeighbours ? member * V : member);
  }

  // The lane's channels of a row; zeros where there are none.
  template <typename T>
  __device__ __forceinline__ void read_row(const T* row, bool exists, A (&result)[V]) const {
    if constexpr (kNeighbours) {
      const auto pack = read<V>(row + first, exists && first < channels);
#pragma unroll
      for (int v = 0; v < V; ++v) result[v] = Convert<T>::widen(pack.items[v]);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool used = exists && first + v * G < channels;
        result[v] = used ? Convert<T>::widen(row[first + v * G]) : A(0);
      }
    }
  }

  __device__ __forceinline__ void add_to_row(A* row, A factor, const A (&terms)[V]) const {
    if constexpr (kNeighbours) {
      if (first < channels) {
        atomicAdd(
            reinterpret_cast<float4*>(row + first),
            make_float4(
                factor * terms[0], factor * terms[1], factor * terms[2], factor * terms[3]));
      }
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (first + v * G < channels) atomicAdd(row + first + v * G, factor * terms[v]);
      }
    }
  }
};

// Adds the four numbers up over a group's lanes and leaves the sums in shared memory.  Every step
// halves what a lane still has to add up, instead of adding all four up in every lane.
template <int G, typename A>
__device__ __forceinline__ void reduce(const A (&terms)[4], bool keep_old, A (&sums)[4]) {
  const int member = int(threadIdx.x) % G;
  const auto put = [&](int corner, A sum) {
    sums[corner] = keep_old ? sums[corner] + sum : sum;
  };
  if constexpr (G == 1) {
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) put(corner, terms[corner]);
  } else {
    const bool odd = member & 1;
    A a = odd ? terms[2] : terms[0];
    A b = odd ? terms[3] : terms[1];
    a += __shfl_xor_sync(kAllLanes, odd ? terms[0] : terms[2], 1);
    b += __shfl_xor_sync(kAllLanes, odd ? terms[1] : terms[3], 1);
    if constexpr (G == 2) {
      put(2 * member, a);
      put(2 * member + 1, b);
    } else {
      const bool second = member & 2;
      A sum = second ? b : a;
      sum += __shfl_xor_sync(kAllLanes, second ? a : b, 2);
#pragma unroll
      for (int mask = 4; mask < G; mask *= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
      if (member < 4) put(2 * (member & 1) + (member >> 1), sum);
    }
  }
}

// The derivatives of the bilinear formula for one sample, from the products <gradient, pixel>.
template <typename T, typename A = typename Accumulate<T>::type>
__device__ __forceinline__ void finish(
    const Inputs<T>& in, int64_t index, int sample, const A (&dots)[4], A* grad_locations,
    A* grad_weights) {
  const Point<A> point = locate(in, index, sample);
  A along_x = A(0);
  A along_y = A(0);
  A sampled = A(0);
  if (point.inside) {
    const A weight = in.weights[index];
    const A top = dots[0] + point.right * (dots[1] - dots[0]);
    const A low = dots[2] + point.right * (dots[3] - dots[2]);
    const A top_slope = dots[1] - dots[0];
    const A low_slope = dots[3] - dots[2];
    sampled = top + point.bottom * (low - top);
    along_x = weight * A(point.columns) * (top_slope + point.bottom * (low_slope - top_slope));
    along_y = weight * A(point.rows) * (low - top);
  }
  grad_locations[2 * index] = along_x;
  grad_locations[2 * index + 1] = along_y;
  grad_weights[index] = sampled;
}

template <typename T, int V, int G, typename A = typename Accumulate<T>::type>
__global__ void __launch_bounds__(kWarps* kLanes) backward_kernel(
    Inputs<T> in, const T* grad_output, A* grad_value, A* grad_locations, A* grad_weights) {
  __shared__ Corners<A> shared[kWarps][kLanes / G][kChunk<G> + 1];
  __shared__ A shared_dots[kWarps][kLanes / G][kChunk<G> + 1][4];
  static_assert(sizeof(shared) + sizeof(shared_dots) <= kMostSharedBytes);
  const int warp = int(threadIdx.x) / kLanes;
  const int group = int(threadIdx.x) % kLanes / G;
  auto& prepared = shared[warp];
  auto& dots = shared_dots[warp];
  if (blockIdx.x == 0 && threadIdx.x == 0) check_levels(in);

  const int64_t items = in.batch * in.queries * in.heads;
  const int64_t stride = int64_t(in.heads) * in.channels;
  const int samples = in.levels * in.points;
  const int64_t step = int64_t(gridDim.x) * kWarps * (kLanes / G);
  for (int64_t first = (int64_t(blockIdx.x) * kWarps + warp) * (kLanes / G); first < items;
       first += step) {
    const int64_t item = first + group;
    const bool active = item < items;
    const int64_t image = item / (in.heads * in.queries);
    const int64_t value_offset =
        image * in.pixels * stride + item % in.heads * in.channels;
    for (int begin = 0; begin < samples; begin += kChunk<G>) {
      const int count = min(kChunk<G>, samples - begin);
      prepare<T, G>(in, first, items, begin, count, prepared);
      __syncwarp();
      for (int block = 0; block < in.channels; block += G * V) {
        const LaneChannels<A, V, G> lane(block, in.channels);
        A gradient[V];
        lane.read_row(grad_output + item * in.channels, active, gradient);
        for (int sample = 0; sample < count; ++sample) {
          A products[4] = {};
          if (active) {
            const Corners<A> at = prepared[group][sample];
            A pixels[4][V];
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              lane.read_row(
                  in.value + value_offset + at.pixel[corner] * stride, at.pixel[corner] >= 0,
                  pixels[corner]);
            }
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
              for (int v = 0; v < V; ++v) products[corner] += gradient[v] * pixels[corner][v];
              if (at.pixel[corner] >= 0) {
                lane.add_to_row(
                    grad_value + value_offset + at.pixel[corner] * stride, at.weight[corner],
                    gradient);
              }
            }
          }
          reduce<G>(products, block > 0, dots[group][sample]);
        }
      }
      __syncwarp();
      for (int i = int(threadIdx.x) % kLanes; i < kLanes / G * count; i += kLanes) {
        const int64_t finished = first + i / count;
        const int sample = begin + i % count;
        if (finished < items) {
          finish(
              in, finished * samples + sample, sample, dots[i / count][i % count],
              grad_locations, grad_weights);
        }
      }
      // The next chunk's first synchronisation comes before it overwrites the dots.
    }
  }
}

template <typename Kernel, typename... Arguments>
cudaError_t launch(
    Kernel kernel, int64_t items, int group, cudaStream_t stream, Arguments... arguments) {
  const int64_t per_block = kWarps * (kLanes / group);
  const int64_t blocks = (items + per_block - 1) / per_block;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks < INT_MAX ? blocks : INT_MAX));
  config.blockDim = dim3(kWarps * kLanes);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Calls run with the smallest group whose lanes hold all channels in vectors of V, at most a warp.
template <int V, typename Run>
cudaError_t choose_group(int channels, const Run& run) {
  const int lanes = (channels + V - 1) / V;
  if (lanes <= 1) return run(std::integral_constant<int, 1>());
  if (lanes <= 2) return run(std::integral_constant<int, 2>());
  if (lanes <= 4) return run(std::integral_constant<int, 4>());
  if (lanes <= 8) return run(std::integral_constant<int, 8>());
  if (lanes <= 16) return run(std::integral_constant<int, 16>());
  return run(std::integral_constant<int, 32>());
}

template <int V, typename T>
bool is_aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (V * sizeof(T)) == 0;
}

template <typename T>
cudaError_t launch_forward(const Inputs<T>& in, T* output, cudaStream_t stream) {
  constexpr int V = 16 / sizeof(T);
  const int64_t items = in.batch * in.queries * in.heads;
  if (in.channels % V == 0 && is_aligned<V>(in.value) && is_aligned<V>(output)) {
    return choose_group<V>(in.channels, [&](auto group) {
      constexpr int G = decltype(group)::value;
      return launch(forward_kernel<T, V, G>, items, G, stream, in, output);
    });
  }
  return launch(forward_kernel<T, 1, kLanes>, items, kLanes, stream, in, output);
}

template <typename T>
cudaError_t launch_backward(
    const Inputs<T>& in, const T* grad_output, typename Accumulate<T>::type* grad_value,
    typename Accumulate<T>::type* grad_locations, typename Accumulate<T>::type* grad_weights,
    cudaStream_t stream) {
  using A = typename Accumulate<T>::type;
  // Vectors of the sums' type, not of T, are what fills whole sectors in the atomic additions.
  constexpr int V = 16 / sizeof(A);
  const int64_t items = in.batch * in.queries * in.heads;
  if (in.channels % V == 0 && is_aligned<V>(in.value) && is_aligned<V>(grad_output) &&
      is_aligned<V>(grad_value)) {
    return choose_group<V>(in.channels, [&](auto group) {
      constexpr int G = decltype(group)::value;
      return launch(
          backward_kernel<T, V, G>, items, G, stream, in, grad_output, grad_value,
          grad_locations, grad_weights);
    });
  }
  return launch(
      backward_kernel<T, 1, kLanes>, items, kLanes, stream, in, grad_output, grad_value,
      grad_locations, grad_weights);
}

#define UNIPHD_INSTANTIATE(T)                                                            \
  template cudaError_t launch_forward<T>(const Inputs<T>&, T*, cudaStream_t);            \
  template cudaError_t launch_backward<T>(                                               \
      const Inputs<T>&, const T*, Accumulate<T>::type*, Accumulate<T>::type*,            \
      Accumulate<T>::type*, cudaStream_t);

}  // namespace uniphd::cuda
