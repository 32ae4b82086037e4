// The CPU kernels, written once and compiled once per instruction set: kernels_<isa>.cpp sets
// UNIPHD_ISA and UNIPHD_VECTOR_BYTES, switches the compiler's target, and includes this file.
//
// Nothing from the standard library is used after the switch: an inline function of a header that
// was compiled for AVX-512 here could be the copy that the linker keeps for the whole program.

#ifndef UNIPHD_ISA
#error "include this file from kernels_<isa>.cpp"
#endif

#define UNIPHD_INLINE_LAMBDA __attribute__((always_inline))
#define UNIPHD_INLINE inline UNIPHD_INLINE_LAMBDA

namespace uniphd::cpu {
namespace {

template <typename A, int W>
struct VectorOf {
  typedef A type __attribute__((vector_size(W * sizeof(A))));
};
template <typename A, int W>
using Vector = typename VectorOf<A, W>::type;

// Reads W numbers and widens bfloat16 to float.
template <int W, typename T>
UNIPHD_INLINE Vector<typename Accumulate<T>::type, W> load(const T* source) {
  Vector<typename Accumulate<T>::type, W> lanes;
  if constexpr (sizeof(T) == sizeof(BFloat16Bits)) {
    Vector<uint16_t, W> halves;
    __builtin_memcpy(&halves, source, sizeof(halves));
    const Vector<uint32_t, W> bits = __builtin_convertvector(halves, Vector<uint32_t, W>) << 16;
    __builtin_memcpy(&lanes, &bits, sizeof(lanes));
  } else {
    __builtin_memcpy(&lanes, source, sizeof(lanes));
  }
  return lanes;
}

// Writes W numbers; to bfloat16 they are rounded to the nearest, ties to even, and NaN is kept.
template <int W, typename T>
UNIPHD_INLINE void store(T* target, const Vector<typename Accumulate<T>::type, W>& lanes) {
  if constexpr (sizeof(T) == sizeof(BFloat16Bits)) {
    Vector<uint32_t, W> bits;
    __builtin_memcpy(&bits, &lanes, sizeof(bits));
    const Vector<uint32_t, W> nan = (Vector<uint32_t, W>)(lanes != lanes);
    const Vector<uint32_t, W> rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Vector<uint16_t, W> halves =
        __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0u), Vector<uint16_t, W>);
    __builtin_memcpy(target, &halves, sizeof(halves));
  } else {
    __builtin_memcpy(target, &lanes, sizeof(lanes));
  }
}

// The lanes' sum, added up pairwise.
template <typename A, int W>
UNIPHD_INLINE A sum(const Vector<A, W>& lanes) {
  if constexpr (W == 1) {
    return lanes[0];
  } else {
    Vector<A, W / 2> halves[2];
    __builtin_memcpy(halves, &lanes, sizeof(lanes));
    return sum<A, W / 2>(halves[0] + halves[1]);
  }
}

// `count` vectors of `width` channels, as a type.
template <int width_, int count_>
struct Block {
  static constexpr int width = width_;
  static constexpr int count = count_;
};

// Calls body(Block, first channel) for blocks that cover all channels from left to right: four
// vectors at a time, and what remains in smaller and smaller ones.
template <typename A, typename Body>
UNIPHD_INLINE void for_channel_blocks(int64_t channels, const Body& body) {
  constexpr int W = UNIPHD_VECTOR_BYTES / sizeof(A);
  int64_t channel = 0;
  for (; channels - channel >= 4 * W; channel += 4 * W) body(Block<W, 4>(), channel);
  if (channels - channel >= 2 * W) {
    body(Block<W, 2>(), channel);
    channel += 2 * W;
  }
  if (channels - channel >= W) {
    body(Block<W, 1>(), channel);
    channel += W;
  }
  if constexpr (W > 8) {
    if (channels - channel >= 8) {
      body(Block<8, 1>(), channel);
      channel += 8;
    }
  }
  if constexpr (W > 4) {
    if (channels - channel >= 4) {
      body(Block<4, 1>(), channel);
      channel += 4;
    }
  }
  for (; channel < channels; ++channel) body(Block<1, 1>(), channel);
}

// One axis: from a coordinate to the pixel before it and the fraction behind it.  A point that is
// a pixel or more outside (or NaN) is moved to where it touches no pixel with a weight above 0, so
// that the conversion to an integer never overflows.
template <typename A>
UNIPHD_INLINE void split(A location, A size, int32_t& before, A& fraction) {
  A position = location * size - A(0.5);
  position = position > A(-1) ? position : A(-1);  // also what NaN becomes
  position = position < size ? position : size;
  const int32_t truncated = int32_t(position);
  before = truncated - (A(truncated) > position);
  fraction = position - A(before);
}

template <typename T>
void forward(
    const Inputs<T>& in, T* output, int64_t begin, int64_t end,
    void* scratch) {
  using A = typename Accumulate<T>::type;
  const int64_t samples = in.levels * in.points;
  const int64_t stride = in.heads * in.channels;
  // Working memory: per sample its level's size and first pixel, then four corners and weights.
  A* const width = static_cast<A*>(scratch);
  A* const height = width + samples;
  A* const corner_weight = height + samples;                            // [4, samples]
  A* const zeros = corner_weight + 4 * samples;                         // [channels]
  int32_t* const columns = reinterpret_cast<int32_t*>(zeros + in.channels);
  int32_t* const rows = columns + samples;
  int32_t* const start = rows + samples;
  int32_t* const corner_pixel = start + samples;                        // [4, samples]
  for (int64_t level = 0; level < in.levels; ++level) {
    for (int64_t point = 0; point < in.points; ++point) {
      const int64_t sample = level * in.points + point;
      rows[sample] = int32_t(in.shapes[2 * level]);
      columns[sample] = int32_t(in.shapes[2 * level + 1]);
      start[sample] = int32_t(in.starts[level]);
      height[sample] = A(rows[sample]);
      width[sample] = A(columns[sample]);
    }
  }
  for (int64_t channel = 0; channel < in.channels; ++channel) zeros[channel] = A(0);
  // The same memory read as T is zeros, too: T is never wider than A.
  const T* const outside = reinterpret_cast<const T*>(zeros);

  for (int64_t row = begin; row < end; ++row) {
    const T* const picture = in.value + row / in.queries * in.pixels * stride;
    for (int64_t head = 0; head < in.heads; ++head) {
      const int64_t item = row * in.heads + head;
      const A* const __restrict locations = in.locations + item * samples * 2;
      const A* const __restrict weights = in.weights + item * samples;
#pragma GCC ivdep
      for (int64_t sample = 0; sample < samples; ++sample) {
        int32_t x, y;
        A right, bottom;
        split(locations[2 * sample], width[sample], x, right);
        split(locations[2 * sample + 1], height[sample], y, bottom);
        const int32_t pixel = start[sample] + y * columns[sample] + x;
        const bool has_left = (x >= 0) & (x < columns[sample]);
        const bool has_right = x + 1 < columns[sample];
        const bool has_top = (y >= 0) & (y < rows[sample]);
        const bool has_bottom = y + 1 < rows[sample];
        corner_pixel[sample] = has_top & has_left ? pixel : -1;
        corner_pixel[samples + sample] = has_top & has_right ? pixel + 1 : -1;
        corner_pixel[2 * samples + sample] = has_bottom & has_left ? pixel + columns[sample] : -1;
        corner_pixel[3 * samples + sample] =
            has_bottom & has_right ? pixel + columns[sample] + 1 : -1;
        const A weight = weights[sample];
        const A top_weight = weight * (A(1) - bottom);
        const A bottom_weight = weight * bottom;
        corner_weight[sample] = top_weight * (A(1) - right);
        corner_weight[samples + sample] = top_weight * right;
        corner_weight[2 * samples + sample] = bottom_weight * (A(1) - right);
        corner_weight[3 * samples + sample] = bottom_weight * right;
      }
      const T* const head_value = picture + head * in.channels;
      T* const target = output + item * in.channels;
      for_channel_blocks<A>(in.channels, [&](auto block, int64_t channel) UNIPHD_INLINE_LAMBDA {
        constexpr int W = decltype(block)::width;
        constexpr int N = decltype(block)::count;
        // Several chains of additions hide the latency of each.
        constexpr int kChains = N >= 4 ? 2 : 4;
        Vector<A, W> sums[kChains][N] = {};
        const T* const __restrict source = head_value + channel;
        for (int64_t sample = 0; sample < samples; ++sample) {
#pragma GCC unroll 4
          for (int corner = 0; corner < 4; ++corner) {
            const int32_t pixel = corner_pixel[corner * samples + sample];
            const A weight = corner_weight[corner * samples + sample];
            const T* const from = pixel < 0 ? outside : source + pixel * stride;
#pragma GCC unroll 4
            for (int part = 0; part < N; ++part) {
              sums[corner % kChains][part] += weight * load<W>(from + part * W);
            }
          }
        }
#pragma GCC unroll 4
        for (int part = 0; part < N; ++part) {
          Vector<A, W> total = sums[0][part] + sums[1][part];
          if constexpr (kChains == 4) total += sums[2][part] + sums[3][part];
          store<W>(target + channel + part * W, total);
        }
      });
    }
  }
}

template <typename T>
void backward(
    const Inputs<T>& in, const T* grad_output, T* grad_value,
    typename Accumulate<T>::type* grad_locations, typename Accumulate<T>::type* grad_weights,
    int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  const int64_t stride = in.heads * in.channels;
  const int64_t samples_per_query = in.levels * in.points;
  const int64_t together = queries_together(in.points);
  const int64_t most = together * in.points;
  // Working memory, the large part first because it gains from its alignment.
  A* const grad_level = static_cast<A*>(scratch);            // [pixels of the level, channels]
  A* const waste = grad_level + in.pixels * in.channels;     // [channels]
  A* const zeros = waste + in.channels;                      // [channels]
  A* const x = zeros + in.channels;                          // [most], as the next four
  A* const y = x + most;
  A* const right = y + most;
  A* const bottom = right + most;
  A* const weight = bottom + most;
  A* const corner_weight = weight + most;                    // [4, most]
  A* const dot = corner_weight + 4 * most;                   // [4, most]
  int32_t* const corner_pixel = reinterpret_cast<int32_t*>(dot + 4 * most);  // [4, most]
  for (int64_t channel = 0; channel < in.channels; ++channel) {
    zeros[channel] = A(0);
    waste[channel] = A(0);
  }
  const T* const outside = reinterpret_cast<const T*>(zeros);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t level = task % in.levels;
    const int64_t head = task / in.levels % in.heads;
    const int64_t picture = task / (in.levels * in.heads);
    const int32_t rows = int32_t(in.shapes[2 * level]);
    const int32_t columns = int32_t(in.shapes[2 * level + 1]);
    const A height = A(rows);
    const A width = A(columns);
    const int64_t level_pixels = int64_t(rows) * columns;
    const int64_t first =
        (picture * in.pixels + in.starts[level]) * stride + head * in.channels;
    const T* const __restrict level_value = in.value + first;
    for (int64_t i = 0; i < level_pixels * in.channels; ++i) grad_level[i] = A(0);

    for (int64_t query = 0; query < in.queries; query += together) {
      const int64_t queries = in.queries - query < together ? in.queries - query : together;
      const int64_t samples = queries * in.points;
      for (int64_t q = 0; q < queries; ++q) {
        const int64_t item = (picture * in.queries + query + q) * in.heads + head;
        const int64_t source = item * samples_per_query + level * in.points;
        for (int64_t point = 0; point < in.points; ++point) {
          x[q * in.points + point] = in.locations[2 * (source + point)];
          y[q * in.points + point] = in.locations[2 * (source + point) + 1];
          weight[q * in.points + point] = in.weights[source + point];
        }
      }
#pragma GCC ivdep
      for (int64_t sample = 0; sample < samples; ++sample) {
        int32_t column, row;
        A right_part, bottom_part;
        split(x[sample], width, column, right_part);
        split(y[sample], height, row, bottom_part);
        const int32_t pixel = row * columns + column;
        const bool has_left = (column >= 0) & (column < columns);
        const bool has_right = column + 1 < columns;
        const bool has_top = (row >= 0) & (row < rows);
        const bool has_bottom = row + 1 < rows;
        corner_pixel[sample] = has_top & has_left ? pixel : -1;
        corner_pixel[most + sample] = has_top & has_right ? pixel + 1 : -1;
        corner_pixel[2 * most + sample] = has_bottom & has_left ? pixel + columns : -1;
        corner_pixel[3 * most + sample] = has_bottom & has_right ? pixel + columns + 1 : -1;
        right[sample] = right_part;
        bottom[sample] = bottom_part;
        const A top_weight = weight[sample] * (A(1) - bottom_part);
        const A bottom_weight = weight[sample] * bottom_part;
        corner_weight[sample] = top_weight * (A(1) - right_part);
        corner_weight[most + sample] = top_weight * right_part;
        corner_weight[2 * most + sample] = bottom_weight * (A(1) - right_part);
        corner_weight[3 * most + sample] = bottom_weight * right_part;
      }
      for (int64_t i = 0; i < 4 * most; ++i) dot[i] = A(0);

      for (int64_t q = 0; q < queries; ++q) {
        const int64_t item = (picture * in.queries + query + q) * in.heads + head;
        const T* const __restrict incoming = grad_output + item * in.channels;
        for_channel_blocks<A>(
            in.channels, [&](auto block, int64_t channel) UNIPHD_INLINE_LAMBDA {
        constexpr int W = decltype(block)::width;
        constexpr int N = decltype(block)::count;
              Vector<A, W> gradient[N];
#pragma GCC unroll 4
              for (int part = 0; part < N; ++part) {
                gradient[part] = load<W>(incoming + channel + part * W);
              }
              for (int64_t sample = q * in.points; sample < (q + 1) * in.points; ++sample) {
#pragma GCC unroll 4
                for (int corner = 0; corner < 4; ++corner) {
                  const int64_t pixel = corner_pixel[corner * most + sample];
                  const A scale = corner_weight[corner * most + sample];
                  const T* const from =
                      (pixel < 0 ? outside : level_value + pixel * stride) + channel;
                  A* const to = (pixel < 0 ? waste : grad_level + pixel * in.channels) + channel;
                  Vector<A, W> products = gradient[0] * load<W>(from);
                  store<W>(to, load<W>(static_cast<const A*>(to)) + scale * gradient[0]);
#pragma GCC unroll 4
                  for (int part = 1; part < N; ++part) {
                    products += gradient[part] * load<W>(from + part * W);
                    A* const part_to = to + part * W;
                    store<W>(
                        part_to,
                        load<W>(static_cast<const A*>(part_to)) + scale * gradient[part]);
                  }
                  dot[corner * most + sample] += sum<A, W>(products);
                }
              }
            });
      }

      // The derivatives of the bilinear formula, from the four products <gradient, pixel>.
#pragma GCC ivdep
      for (int64_t sample = 0; sample < samples; ++sample) {
        const A a = dot[sample];
        const A b = dot[most + sample];
        const A c = dot[2 * most + sample];
        const A d = dot[3 * most + sample];
        const A to_right = right[sample];
        const A to_bottom = bottom[sample];
        const A top = a + to_right * (b - a);
        const A low = c + to_right * (d - c);
        const A along_x = (b - a) + to_bottom * ((d - c) - (b - a));
        const A along_y = low - top;
        const A factor = weight[sample];
        weight[sample] = top + to_bottom * along_y;
        const A px = x[sample] * width - A(0.5);
        const A py = y[sample] * height - A(0.5);
        const bool inside = (px > A(-1)) & (px < width) & (py > A(-1)) & (py < height);
        x[sample] = inside ? factor * width * along_x : A(0);
        y[sample] = inside ? factor * height * along_y : A(0);
      }
      for (int64_t q = 0; q < queries; ++q) {
        const int64_t item = (picture * in.queries + query + q) * in.heads + head;
        const int64_t target = item * samples_per_query + level * in.points;
        for (int64_t point = 0; point < in.points; ++point) {
          grad_locations[2 * (target + point)] = x[q * in.points + point];
          grad_locations[2 * (target + point) + 1] = y[q * in.points + point];
          grad_weights[target + point] = weight[q * in.points + point];
        }
      }
    }

    for (int64_t pixel = 0; pixel < level_pixels; ++pixel) {
      const A* const from = grad_level + pixel * in.channels;
      T* const to = grad_value + first + pixel * stride;
      for_channel_blocks<A>(
          in.channels, [&](auto block, int64_t channel) UNIPHD_INLINE_LAMBDA {
        constexpr int W = decltype(block)::width;
        constexpr int N = decltype(block)::count;
#pragma GCC unroll 4
            for (int part = 0; part < N; ++part) {
              store<W>(to + channel + part * W, load<W>(from + channel + part * W));
            }
          });
    }
  }
}

}  // namespace

namespace UNIPHD_ISA {
extern const Kernels<float> f32 = {forward<float>, backward<float>};
extern const Kernels<double> f64 = {forward<double>, backward<double>};
extern const Kernels<BFloat16Bits> bf16 = {forward<BFloat16Bits>, backward<BFloat16Bits>};
}  // namespace UNIPHD_ISA

}  // namespace uniphd::cpu
