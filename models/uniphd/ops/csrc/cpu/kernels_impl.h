// The CPU kernels, written once and compiled once per instruction set: kernels_<isa>.cpp sets
// UNIPHD_ISA and UNIPHD_VECTOR_BYTES, switches the compiler's target, and includes this file.
//
// Nothing from the standard library is used after the switch: an inline function of a header that
// was compiled for AVX-512 here could be the copy that the linker keeps for the whole program.

#ifndef UNIPHD_ISA
#error "include this file from kernels_<isa>.cpp"
#endif

#if defined(__has_builtin)  // GCC from 12, clang
#if __has_builtin(__builtin_shufflevector)
#define UNIPHD_HAS_SHUFFLE 1
#endif
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

template <int W, typename A>
UNIPHD_INLINE void add(A* target, const Vector<A, W>& lanes) {
  store<W>(target, load<W>(static_cast<const A*>(target)) + lanes);
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

// The sums of the lanes of a, b, c and d, added up pairwise.
template <typename A, int W>
UNIPHD_INLINE Vector<A, 4> sums(
    const Vector<A, W>& a, const Vector<A, W>& b, const Vector<A, W>& c, const Vector<A, W>& d) {
#if UNIPHD_HAS_SHUFFLE
  // Halves of different vectors are laid side by side, so that one addition serves several sums.
  if constexpr (W == 16) {
    const auto ab =
        __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
        __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    const auto cd =
        __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
        __builtin_shufflevector(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    const auto quads =  // [a a a a b b b b c c c c d d d d]
        __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
        __builtin_shufflevector(
            ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    const auto pairs = quads +
        __builtin_shufflevector(
            quads, quads, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const auto totals = pairs +
        __builtin_shufflevector(
            pairs, pairs, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return __builtin_shufflevector(totals, totals, 0, 4, 8, 12);
  } else if constexpr (W == 8) {
    const auto ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
        __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    const auto cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11) +
        __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
    const auto pairs = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
        __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);  // [a a c c b b d d]
    const auto totals = pairs + __builtin_shufflevector(pairs, pairs, 1, 0, 3, 2, 5, 4, 7, 6);
    return __builtin_shufflevector(totals, totals, 0, 4, 2, 6);
  } else if constexpr (W == 4) {
    const auto ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) +
        __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const auto cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) +
        __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) +
        __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  } else
#endif
  {
    return Vector<A, 4>{sum<A, W>(a), sum<A, W>(b), sum<A, W>(c), sum<A, W>(d)};
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
// a pixel or more outside, or NaN, is moved to just behind the last pixel, where it touches none
// and the conversion to an integer can't overflow.
template <typename A>
UNIPHD_INLINE void split(A location, A size, int32_t& before, A& fraction) {
  A position = location * size - A(0.5);
  position = (position > A(-1)) & (position < size) ? position : size;
  const int32_t truncated = int32_t(position);
  before = truncated - (A(truncated) > position);
  fraction = position - A(before);
}

// The four pixels around a point, in the order (top left, top right, bottom left, bottom right; -1
// for a pixel outside the map), and their weights: written to pixel and corner_weight [4, pitch].
// `right` and `bottom` become the fractions of the way to the right and the bottom pixels.
template <typename A>
UNIPHD_INLINE void locate(
    A location_x, A location_y, A weight, A width, A height, int32_t columns, int32_t rows,
    int32_t start, int64_t pitch, int32_t* corner_pixel, A* corner_weight, A& right, A& bottom) {
  int32_t x, y;
  split(location_x, width, x, right);
  split(location_y, height, y, bottom);
  const int32_t pixel = start + y * columns + x;
  const bool has_left = (x >= 0) & (x < columns);
  const bool has_right = x + 1 < columns;
  const bool has_top = (y >= 0) & (y < rows);
  const bool has_bottom = y + 1 < rows;
  corner_pixel[0] = has_top & has_left ? pixel : -1;
  corner_pixel[pitch] = has_top & has_right ? pixel + 1 : -1;
  corner_pixel[2 * pitch] = has_bottom & has_left ? pixel + columns : -1;
  corner_pixel[3 * pitch] = has_bottom & has_right ? pixel + columns + 1 : -1;
  const A top_weight = weight * (A(1) - bottom);
  const A bottom_weight = weight * bottom;
  corner_weight[0] = top_weight * (A(1) - right);
  corner_weight[pitch] = top_weight * right;
  corner_weight[2 * pitch] = bottom_weight * (A(1) - right);
  corner_weight[3 * pitch] = bottom_weight * right;
}

// A function of its own, because the compiler vectorises it only with these promises.
template <typename A>
void locate_all(
    int64_t samples, int64_t pitch, const A* __restrict locations, const A* __restrict weights,
    const A* __restrict width, const A* __restrict height, const int32_t* __restrict columns,
    const int32_t* __restrict rows, const int32_t* __restrict start,
    int32_t* __restrict corner_pixel, A* __restrict corner_weight) {
#pragma GCC ivdep
  for (int64_t sample = 0; sample < samples; ++sample) {
    A right, bottom;
    locate(
        locations[2 * sample], locations[2 * sample + 1], weights[sample], width[sample],
        height[sample], columns[sample], rows[sample], start[sample], pitch,
        corner_pixel + sample, corner_weight + sample, right, bottom);
  }
}

template <typename T>
void forward(const Inputs<T>& in, T* output, int64_t begin, int64_t end, void* scratch) {
  using A = typename Accumulate<T>::type;
  const int64_t samples = in.levels * in.points;
  const int64_t samples_per_row = in.heads * samples;
  const int64_t together = rows_together(in);
  const int64_t most = together * samples_per_row;
  const int64_t stride = in.heads * in.channels;
  // Working memory: per sample its level's size and first pixel, then four corners and weights.
  A* const zeros = static_cast<A*>(scratch);                  // [channels]
  A* const width = zeros + in.channels;                       // [most], as the next
  A* const height = width + most;
  A* const corner_weight = height + most;                     // [4, most]
  int32_t* const columns = reinterpret_cast<int32_t*>(corner_weight + 4 * most);  // [most]
  int32_t* const rows = columns + most;                       // [most]
  int32_t* const start = rows + most;                         // [most]
  int32_t* const corner_pixel = start + most;                 // [4, most]
  for (int64_t sample = 0; sample < most; ++sample) {
    const int64_t level = sample / in.points % in.levels;
    rows[sample] = int32_t(in.shapes[2 * level]);
    columns[sample] = int32_t(in.shapes[2 * level + 1]);
    start[sample] = int32_t(in.starts[level]);
    height[sample] = A(rows[sample]);
    width[sample] = A(columns[sample]);
  }
  for (int64_t channel = 0; channel < in.channels; ++channel) zeros[channel] = A(0);
  // The same memory read as T is zeros, too: T is never wider than A.
  const T* const outside = reinterpret_cast<const T*>(zeros);

  for (int64_t row = begin; row < end; row += together) {
    const int64_t rows_here = end - row < together ? end - row : together;
    locate_all(
        rows_here * samples_per_row, most, in.locations + row * samples_per_row * 2,
        in.weights + row * samples_per_row, width, height, columns, rows, start, corner_pixel,
        corner_weight);
    for (int64_t item = row * in.heads; item < (row + rows_here) * in.heads; ++item) {
      const int64_t image = item / (in.heads * in.queries);
      const T* const head_value =
          in.value + image * in.pixels * stride + item % in.heads * in.channels;
      T* const target = output + item * in.channels;
      const int32_t* const item_pixel = corner_pixel + (item - row * in.heads) * samples;
      const A* const item_weight = corner_weight + (item - row * in.heads) * samples;
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
            const int32_t pixel = item_pixel[corner * most + sample];
            const A weight = item_weight[corner * most + sample];
            const T* const from = pixel < 0 ? outside + channel : source + pixel * stride;
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
  A* const dot = corner_weight + 4 * most;                   // [most, 4]
  int32_t* const corner_pixel = reinterpret_cast<int32_t*>(dot + 4 * most);  // [4, most]
  for (int64_t channel = 0; channel < in.channels; ++channel) {
    zeros[channel] = A(0);
    waste[channel] = A(0);
  }
  const T* const outside = reinterpret_cast<const T*>(zeros);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t level = task % in.levels;
    const int64_t head = task / in.levels % in.heads;
    const int64_t image = task / (in.levels * in.heads);
    const int32_t rows = int32_t(in.shapes[2 * level]);
    const int32_t columns = int32_t(in.shapes[2 * level + 1]);
    const A height = A(rows);
    const A width = A(columns);
    const int64_t level_pixels = int64_t(rows) * columns;
    const int64_t first =
        (image * in.pixels + in.starts[level]) * stride + head * in.channels;
    const T* const __restrict level_value = in.value + first;
    for (int64_t i = 0; i < level_pixels * in.channels; ++i) grad_level[i] = A(0);

    for (int64_t query = 0; query < in.queries; query += together) {
      const int64_t queries = in.queries - query < together ? in.queries - query : together;
      const int64_t samples = queries * in.points;
      for (int64_t q = 0; q < queries; ++q) {
        const int64_t item = (image * in.queries + query + q) * in.heads + head;
        const int64_t source = item * samples_per_query + level * in.points;
        for (int64_t point = 0; point < in.points; ++point) {
          x[q * in.points + point] = in.locations[2 * (source + point)];
          y[q * in.points + point] = in.locations[2 * (source + point) + 1];
          weight[q * in.points + point] = in.weights[source + point];
        }
      }
#pragma GCC ivdep
      for (int64_t sample = 0; sample < samples; ++sample) {
        locate(
            x[sample], y[sample], weight[sample], width, height, columns, rows, 0, most,
            corner_pixel + sample, corner_weight + sample, right[sample], bottom[sample]);
      }
      for (int64_t i = 0; i < 4 * most; ++i) dot[i] = A(0);

      for (int64_t q = 0; q < queries; ++q) {
        const int64_t item = (image * in.queries + query + q) * in.heads + head;
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
                Vector<A, W> products[4];
#pragma GCC unroll 4
                for (int corner = 0; corner < 4; ++corner) {
                  const int64_t pixel = corner_pixel[corner * most + sample];
                  const A scale = corner_weight[corner * most + sample];
                  const T* const from =
                      (pixel < 0 ? outside : level_value + pixel * stride) + channel;
                  A* const to = (pixel < 0 ? waste : grad_level + pixel * in.channels) + channel;
                  products[corner] = Vector<A, W>{};
#pragma GCC unroll 4
                  for (int part = 0; part < N; ++part) {
                    products[corner] += gradient[part] * load<W>(from + part * W);
                    add<W>(to + part * W, scale * gradient[part]);
                  }
                }
                add<4>(
                    dot + 4 * sample,
                    sums<A, W>(products[0], products[1], products[2], products[3]));
              }
            });
      }

      // The derivatives of the bilinear formula, from the four products <gradient, pixel>.
#pragma GCC ivdep
      for (int64_t sample = 0; sample < samples; ++sample) {
        const A a = dot[4 * sample];
        const A b = dot[4 * sample + 1];
        const A c = dot[4 * sample + 2];
        const A d = dot[4 * sample + 3];
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
        const int64_t item = (image * in.queries + query + q) * in.heads + head;
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
