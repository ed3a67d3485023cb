// The forms in which a step's weights are stored, and the product of a row with each.
//
//   Full      as packed: for each k the four gates of a block of units side by side
//   Bfloat16  16 bits: pairs of k share a 32-bit word of a unit, the four gates side by side
//   Int8      8 bits with one scale for each gate of each unit: four k share a word; activations become
//             8 bits too, with one scale a row, and the sums are exact integers
//
// A form turns a row into Activations (`prepare`), and multiplies several with a panel:
//   out[r][j] = start[r][j] + sum_k rows[r][k] * panel[k][j]        r < R, j < PanelColumns, depth >= 1
// A row's bits do not depend on R.
#pragma once

#include <utility>

#include "memory.hpp"
#include "packing.hpp"
#include "weights.hpp"

namespace longshort::LONGSHORT_ISA {

// Which products of short values the processor has, each kind with those before it.
enum class Dot { none, int8, bfloat16 };

struct Activations {
  const void* values = nullptr;
  float scale = 1;
};

template <class Real>
struct Full {
  using Word = Real;
  using Panel = const Real*;
  static constexpr Index group = 1;  // values of k in a word
  static std::size_t row_bytes(Index depth) { return Arena::padded(static_cast<std::size_t>(depth) * sizeof(Real)); }
  static Activations prepare(const Real* from, Index, char*) { return {from, 1}; }

  template <int R>
  static void multiply(const Activations* rows, Panel panel, Index depth, const Real* const* start, Real* const* out) {
    const Real* values[R];
    for (int r = 0; r < R; ++r) values[r] = static_cast<const Real*>(rows[r].values);
    tile<Real, R, Gates>(values, panel, depth, start, out);
  }
};

inline std::uint16_t rounded_to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>((bits >> 16) | 0x40);  // not-a-number stays one
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);                  // to nearest, ties to even
}

// Products of exact float32 activations: the weights are widened.
template <Dot dot>
struct Bfloat16 {
  using Word = std::uint32_t;
  using Panel = const std::uint32_t*;
  static constexpr Index group = 2;
  static std::size_t row_bytes(Index) { return 0; }
  static Activations prepare(const float* from, Index, char*) { return {from, 1}; }

  template <int R>
  static void multiply(const Activations* rows, Panel panel, Index depth, const float* const* start, float* const* out) {
    constexpr int L = Lanes<float>;
    typedef std::uint32_t Words __attribute__((vector_size(RegisterBytes)));
    Vector<float> sum[R][Gates];
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < Gates; ++q) sum[r][q] = load(start[r] + q * L);
    Index k = 0;
    do {
      Vector<float> low[R], high[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const float* row = static_cast<const float*>(rows[r].values);
        low[r] = broadcast<float>(row[k]);
        high[r] = k + 1 < depth ? broadcast<float>(row[k + 1]) : Vector<float>{};
      }
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) {
        Words words;
        std::memcpy(&words, panel + q * L, sizeof words);
        const Vector<float> first = (Vector<float>)(words << 16), second = (Vector<float>)(words & 0xffff0000u);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          sum[r][q] += low[r] * first;
          sum[r][q] += high[r] * second;
        }
      }
      panel += PanelColumns<float>;
    } while ((k += 2) < depth);
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < Gates; ++q) store(out[r] + q * L, sum[r][q]);
  }
};

// One panel of int8 weights with what turns its integer sums into numbers.
struct Int8Panel {
  const std::int8_t* values;
  const float* scale;
  const std::int32_t* offset;  // minus 128 times the sum over k of each column
};

inline float int8_scale(float largest, float poison) { return largest / 127 + poison; }

// The largest magnitude of a row; `poison` is zero, or not-a-number where a value is not finite.
inline float largest_of(const float* from, Index depth, float& poison) {
  constexpr int L = Lanes<float>;
  Vector<float> most{}, none{};
  Index k = 0;
  for (; k + L <= depth; k += L) {
    const Vector<float> value = load(from + k);
    most = maximum(most, maximum(value, -value));
    none += value * 0.0f;
  }
  float found = 0;
  poison = 0;
  for (int lane = 0; lane < L; ++lane) {
    found = std::max(found, most[lane]);
    poison += none[lane];
  }
  for (; k < depth; ++k) {
    found = std::max(found, std::abs(from[k]));
    poison += from[k] * 0.0f;
  }
  return found;
}

// Activations of 8 bits widened to 16, four for each word of weights in the order 0, 2, 1, 3: products of
// pairs of 16-bit values are what the sets without int8 products have.
template <Dot dot>
struct Int8 {
  using Word = std::int8_t;
  using Panel = Int8Panel;
  static constexpr Index group = 4;
  static std::size_t row_bytes(Index depth) { return Arena::padded(static_cast<std::size_t>(ceil_div(depth, 4) * 8)); }

  static Activations prepare(const float* from, Index depth, char* to) {
    float poison;
    const float largest = largest_of(from, depth, poison), scale = int8_scale(largest, poison);
    const float inverse = largest > 0 && poison == 0 ? 127 / largest : 0;
    auto* out = reinterpret_cast<std::int16_t*>(to);
    for (Index k = 0; k < ceil_div(depth, 4) * 4; ++k) {
      const float value = k < depth && inverse > 0 ? from[k] * inverse : 0;
      out[k / 4 * 4 + (k & 2) / 2 + (k & 1) * 2] = static_cast<std::int16_t>(std::nearbyint(value));
    }
    return {to, scale};
  }

  template <int R>
  static void multiply(const Activations* rows, Panel panel, Index depth, const float* const* start, float* const* out) {
    constexpr int L = Lanes<float>;
    typedef std::int32_t Sums __attribute__((vector_size(RegisterBytes)));
    Sums sum[R][Gates] = {};
    Index k = 0;
    do {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const std::int16_t* row = static_cast<const std::int16_t*>(rows[r].values) + k;
#pragma GCC unroll 4
        for (int q = 0; q < Gates; ++q) sum[r][q] += four_products(panel.values + 4 * q * L, row);
      }
      panel.values += 4 * PanelColumns<float>;
    } while ((k += 4) < depth);
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < Gates; ++q) {
        const Vector<float> scaled = __builtin_convertvector(sum[r][q], Vector<float>) * (load(panel.scale + q * L) * rows[r].scale);
        store(out[r] + q * L, load(start[r] + q * L) + scaled);
      }
  }

 private:
  typedef std::int32_t Words __attribute__((vector_size(RegisterBytes)));

  // Lanes words of weights times four activations each.
  static Words four_products(const std::int8_t* weights, const std::int16_t* row) {
#if defined(__AVX512F__)
    const __m512i words = _mm512_loadu_si512(weights);
    std::int32_t even, odd;
    std::memcpy(&even, row, 4);
    std::memcpy(&odd, row + 2, 4);
    const __m512i first = _mm512_madd_epi16(_mm512_srai_epi16(_mm512_slli_epi16(words, 8), 8), _mm512_set1_epi32(even));
    const __m512i second = _mm512_madd_epi16(_mm512_srai_epi16(words, 8), _mm512_set1_epi32(odd));
    return (Words)_mm512_add_epi32(first, second);
#elif defined(__AVX2__)
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
    std::int32_t even, odd;
    std::memcpy(&even, row, 4);
    std::memcpy(&odd, row + 2, 4);
    const __m256i first = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8), _mm256_set1_epi32(even));
    const __m256i second = _mm256_madd_epi16(_mm256_srai_epi16(words, 8), _mm256_set1_epi32(odd));
    return (Words)_mm256_add_epi32(first, second);
#else
    Words sum;
    for (int lane = 0; lane < Lanes<float>; ++lane, weights += 4)
      sum[lane] = weights[0] * row[0] + weights[1] * row[2] + weights[2] * row[1] + weights[3] * row[3];
    return sum;
#endif
  }
};

#if defined(__AVX512F__)
#define LONGSHORT_DOT_INT8 __attribute__((target("avx512vnni")))
#define LONGSHORT_DOT_BFLOAT16 __attribute__((target("avx512bf16")))

// Pairs of activations are rounded to 16 bits, and two products are added to a float32 sum at once.
template <>
struct Bfloat16<Dot::bfloat16> {
  using Word = std::uint32_t;
  using Panel = const std::uint32_t*;
  static constexpr Index group = 2;
  static std::size_t row_bytes(Index depth) { return Arena::padded(static_cast<std::size_t>(depth + 32) * 2); }

  LONGSHORT_DOT_BFLOAT16 static Activations prepare(const float* from, Index depth, char* to) {
    for (Index k = 0; k < depth; k += 16) {
      const auto valid = static_cast<__mmask16>(depth - k >= 16 ? 0xffff : (1u << (depth - k)) - 1);
      const __m256bh pairs = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(valid, from + k));
      std::memcpy(to + 2 * k, &pairs, sizeof pairs);
    }
    return {to, 1};
  }

  template <int R>
  LONGSHORT_DOT_BFLOAT16 static void multiply(const Activations* rows, Panel panel, Index depth, const float* const* start, float* const* out) {
    __m512 sum[R][Gates];
    const std::int32_t* pair[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      pair[r] = static_cast<const std::int32_t*>(rows[r].values);
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) sum[r][q] = _mm512_loadu_ps(start[r] + q * 16);
    }
    Index k = 0;
    do {
      __m512bh weight[Gates];
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) weight[q] = (__m512bh)_mm512_loadu_si512(panel + q * 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh value = (__m512bh)_mm512_set1_epi32(pair[r][k]);
#pragma GCC unroll 4
        for (int q = 0; q < Gates; ++q) sum[r][q] = _mm512_dpbf16_ps(sum[r][q], value, weight[q]);
      }
      panel += PanelColumns<float>;
    } while (2 * ++k < depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) _mm512_storeu_ps(out[r] + q * 16, sum[r][q]);
  }
};

// The products take unsigned activations: 128 is added to each, and the panel's offset takes it back.
struct Int8Dot {
  using Word = std::int8_t;
  using Panel = Int8Panel;
  static constexpr Index group = 4;
  static std::size_t row_bytes(Index depth) { return Arena::padded(static_cast<std::size_t>(depth + 16)); }

  LONGSHORT_DOT_INT8 static Activations prepare(const float* from, Index depth, char* to) {
    float poison;
    const float largest = largest_of(from, depth, poison);
    const __m512 inverse = _mm512_set1_ps(largest > 0 && poison == 0 ? 127 / largest : 0);
    for (Index k = 0; k < depth; k += 16) {
      const auto valid = static_cast<__mmask16>(depth - k >= 16 ? 0xffff : (1u << (depth - k)) - 1);
      const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(valid, from + k), inverse));
      const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
      std::memcpy(to + k, &bytes, sizeof bytes);
    }
    return {to, int8_scale(largest, poison)};
  }

  template <int R>
  LONGSHORT_DOT_INT8 static void multiply(const Activations* rows, Panel panel, Index depth, const float* const* start, float* const* out) {
    __m512i sum[R][Gates];
    const std::int32_t* four[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      four[r] = static_cast<const std::int32_t*>(rows[r].values);
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) sum[r][q] = _mm512_loadu_si512(panel.offset + q * 16);
    }
    const std::int8_t* values = panel.values;
    Index k = 0;
    do {
      __m512i weight[Gates];
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) weight[q] = _mm512_loadu_si512(values + q * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i value = _mm512_set1_epi32(four[r][k]);
#pragma GCC unroll 4
        for (int q = 0; q < Gates; ++q)  // the intrinsic makes gcc 12 copy each sum at each product, most through memory
          asm("vpdpbusd %2, %1, %0" : "+v"(sum[r][q]) : "v"(value), "v"(weight[q]));
      }
      values += 4 * PanelColumns<float>;
    } while (4 * ++k < depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) {
        const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(panel.scale + q * 16), _mm512_set1_ps(rows[r].scale));
        _mm512_storeu_ps(out[r] + q * 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][q]), scale, _mm512_loadu_ps(start[r] + q * 16)));
      }
  }
};

template <>
struct Int8<Dot::int8> : Int8Dot {};
template <>
struct Int8<Dot::bfloat16> : Int8Dot {};
#endif

constexpr Index MostInt8Depth = 65536;  // sums of 255 * 127 products stay below 2^31

// A panel of block `block`, from the places in StepWeights.
template <class Form, class Real>
inline typename Form::Panel panel_of(const void* values, const Real* scale, const std::int32_t* offset, Index depth, Index block) {
  const Index words = ceil_div(depth, Form::group) * PanelColumns<Real>, column = block * PanelColumns<Real>;
  if constexpr (std::is_same_v<typename Form::Panel, Int8Panel>)
    return {static_cast<const std::int8_t*>(values) + block * words * 4, scale + column, offset + column};
  else
    return static_cast<const typename Form::Word*>(values) + block * words;
}

// Short copies of packed weights, in `room`.
inline StepWeights<float> short_copies(const PackedWeights<float>& w, Stored stored, Room& room) {
  const Index blocks = block_count<float>(w.H), columns = blocks * PanelColumns<float>;
  const Index group = stored == Stored::int8 ? 4 : 2;
  const auto panel_bytes = [&](Index depth) { return Arena::padded(static_cast<std::size_t>(columns * ceil_div(depth, group) * 4)); };
  const std::size_t vector_bytes = Arena::padded(static_cast<std::size_t>(columns) * 4);
  const std::size_t size = panel_bytes(w.C) + panel_bytes(w.H) + 5 * vector_bytes;
  char* next = room.bytes(size);
  std::memset(next, 0, size);
  const auto take = [&](std::size_t bytes) { return std::exchange(next, next + bytes); };
  StepWeights<float> to{stored, w.C, w.H, reinterpret_cast<float*>(std::memcpy(take(vector_bytes), w.bias, static_cast<std::size_t>(columns) * 4))};
  const auto copy = [&](const float* from, Index depth, const void*& values, const float*& scales, const std::int32_t*& offsets) {
    char* out = take(panel_bytes(depth));
    values = out;
    auto* scale = reinterpret_cast<float*>(take(stored == Stored::int8 ? vector_bytes : 0));
    auto* offset = reinterpret_cast<std::int32_t*>(take(stored == Stored::int8 ? vector_bytes : 0));
    scales = scale;
    offsets = offset;
    for (Index block = 0; block < blocks; ++block, out += ceil_div(depth, group) * PanelColumns<float> * 4)
      for (int j = 0; j < PanelColumns<float>; ++j) {
        const float* column = from + block * PanelColumns<float> * depth + j;
        const Index place = block * PanelColumns<float> + j;
        if (stored == Stored::int8) {
          float largest = 0, poison = 0;
          for (Index k = 0; k < depth; ++k) {
            largest = std::max(largest, std::abs(column[k * PanelColumns<float>]));
            poison += column[k * PanelColumns<float>] * 0.0f;
          }
          scale[place] = int8_scale(largest, poison);
        }
        for (Index k = 0; k < depth; ++k) {
          const float value = column[k * PanelColumns<float>];
          char* word = out + (k / group * PanelColumns<float> + j) * 4;
          if (stored == Stored::bfloat16) {
            std::uint32_t pair;
            std::memcpy(&pair, word, 4);
            pair |= std::uint32_t{rounded_to_bfloat16(value)} << (k % 2 * 16);
            std::memcpy(word, &pair, 4);
          } else {
            const auto whole = static_cast<std::int8_t>(scale[place] > 0 ? std::nearbyint(value / scale[place]) : 0.0f);
            word[k % 4] = static_cast<char>(whole);
            offset[place] -= 128 * whole;
          }
        }
      }
  };
  copy(w.input, w.C, to.input, to.input_scale, to.input_offset);
  copy(w.recurrent, w.H, to.recurrent, to.recurrent_scale, to.recurrent_offset);
  return to;
}

template <class Real>
StepWeights<Real> store_weights(const PackedWeights<Real>& w, Stored stored, Room& room) {
  if constexpr (std::is_same_v<Real, float>) {
    if (stored != Stored::full) return short_copies(w, stored, room);
  }
  return {Stored::full, w.C, w.H, w.bias, w.input, w.recurrent};
}

}  // namespace longshort::LONGSHORT_ISA
