// bfloat16 in pairs: two neighbours of a row share a 32-bit word, and a product adds both of their products to a float32
// sum at once. A word stands where a float stands elsewhere, so a matrix of pairs is packed, multiplied and handed on like
// one of half as many floats. Only the set with such products computes with them.
//
// A form says how x, h, y and the gradients of x and y lie in memory: Whole as values, Rounded as float32 where h takes values of 16
// bits after each step, Pairs as words. Cells, sums, gates and the tape are float32 in all but the first.
#pragma once

#include "packing.hpp"
#include "rounding.hpp"

namespace longshort::LONGSHORT_ISA {

template <class Real>
struct Whole {
  static constexpr bool paired = false;
  static Index words(Index values) { return values; }
  static Tile<Real> tile(int rows, int vectors) { return tile_for<Real>(rows, vectors); }

  // Values first ... first + count - 1 of a row, and back. 0 <= count <= Lanes.
  static Vector<Real> load(const Real* row, Index first, int count) { return load_some(row + first, count); }
  static void store(Real* row, Index first, Vector<Real> value, int count) { store_some(row + first, value, count); }

  // h as the next step reads it.
  static Vector<Real> held(Vector<Real> h, Rounding) { return h; }

  static void pack_back(Real* to, Rows<const Real> from, GateRows gates, Index units, Index columns, Index p) {
    pack_back_panel<Real>(to, from.data, from.stride, gates, units, columns, p);
  }
  static void pack_panel(Real* to, const Real* const* rows, Index depth, Index columns, Index p) {
    pack_rows<Real>(to, rows, depth, columns, p);
  }
  static Vector<Real> transpose(Real* to, Index to_stride, const Real* const* rows, Index column, Index depth) {
    return transpose_rows<Real>(to, to_stride, rows, column, depth);
  }
};

struct Rounded : Whole<float> {
  static Vector<float> held(Vector<float> h, Rounding rounding) {
    return rounding == Rounding::bfloat16 ? rounded_to_bfloat16(h) : rounded_to_float16(h);
  }
};

#if defined(__AVX512F__)
// tile() on words: `depth` words a row.
template <int R, int V>
__attribute__((target("avx512bf16"))) void tile_of_pairs(const float* const* rows, const float* panel, Index depth, const float* const* start,
                                                         float* const* out) {
  __m512 sum[R][V];
  const std::int32_t* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = reinterpret_cast<const std::int32_t*>(rows[r]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_loadu_ps(start[r] + v * 16);
  }
  if (depth == 0) {
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) _mm512_storeu_ps(out[r] + v * 16, sum[r][v]);
    return;
  }
  Index k = 0;
  do {
    __m512bh weight[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) weight[v] = (__m512bh)_mm512_loadu_si512(panel + v * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh value = (__m512bh)_mm512_set1_epi32(row[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], value, weight[v]);
    }
    panel += V * 16;
#pragma GCC unroll 4
    for (int v = 0; v < V && R > 2; ++v) __builtin_prefetch(panel + PrefetchAhead<float> + v * 16, 0, 2);
  } while (++k < depth);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out[r] + v * 16, sum[r][v]);
  }
}

template <int R>
constexpr Tile<float> tile_of_pairs_of_width(int vectors) {
  constexpr Tile<float> by_width[] = {tile_of_pairs<R, 1>, tile_of_pairs<R, 2>, tile_of_pairs<R, 3>, tile_of_pairs<R, 4>};
  return by_width[vectors - 1];
}

struct Pairs {
  static constexpr bool paired = true;
  static Index words(Index values) { return ceil_div(values, 2); }

  static Tile<float> tile(int rows, int vectors) {
    switch (rows) {
      case 1: return tile_of_pairs_of_width<1>(vectors);
      case 2: return tile_of_pairs_of_width<2>(vectors);
      case 3: return tile_of_pairs_of_width<3>(vectors);
      case 4: return tile_of_pairs_of_width<4>(vectors);
      case 5: return tile_of_pairs_of_width<5>(vectors);
      default: return tile_of_pairs_of_width<6>(vectors);
    }
  }

  static Vector<float> held(Vector<float> h, Rounding) { return h; }  // store() rounds
  static Vector<float> load(const float* row, Index first, int count) {
    return (Vector<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(values(row, first, count)), 16);
  }
  static void store(float* row, Index first, Vector<float> value, int count) {
    const __m512i bits = (__m512i)rounded_to_bfloat16(value);
    _mm256_mask_storeu_epi16(reinterpret_cast<std::uint16_t*>(row) + first, first_lanes(count), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }

  // A pair of neighbouring rows of gates and units shares the words of a row of the panel.
  static void pack_back(float* to, Rows<const float> from, GateRows gates, Index units, Index columns, Index p) {
    for (Index block = 0; block < block_count<float>(units); ++block)
      for (int q = 0; q < Gates; ++q)
        for (int lane = 0; lane < 16; lane += 2) {
          const Index unit = block * 16 + lane;
          const auto row = [&](Index u) { return gates.first[q] < 0 || u >= units ? nullptr : from.row(gates.first[q] + u); };
          to = interleave(to, row(unit), row(unit + 1), columns, p);
        }
  }

  // to[k][j] <- (rows[2 k][j], rows[2 k + 1][j]) for the columns j of panel p. depth: rows.
  static void pack_panel(float* to, const float* const* rows, Index depth, Index columns, Index p) {
    for (Index k = 0; k < depth; k += 2) to = interleave(to, rows[k], k + 1 < depth ? rows[k + 1] : nullptr, columns, p);
  }

  // to[j][k] <- (rows[2 k], rows[2 k + 1]) in column j, rounded, for 16 columns of float32; returns each column's sum.
  static Vector<float> transpose(float* to, Index to_stride, const float* const* rows, Index column, Index depth) {
    Vector<float> sum{};
    for (Index k = 0; k < depth; k += 16) {
      Vector<float> square[16];
      for (int j = 0; j < 16; ++j) {
        square[j] = k + j < depth ? longshort::LONGSHORT_ISA::load(rows[k + j] + column) : Vector<float>{};
        sum += square[j];
      }
      longshort::LONGSHORT_ISA::transpose<float>(square);
      for (int j = 0; j < 16; ++j) store(to + j * to_stride, k, square[j], 16);
    }
    return sum;
  }

 private:
  static __mmask16 first_lanes(Index count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); }
  static __m256i values(const float* row, Index first, Index count) {
    return _mm256_maskz_loadu_epi16(first_lanes(count), reinterpret_cast<const std::uint16_t*>(row) + first);
  }

  // One row of panel p; returns where the next one lies. An absent row is zero.
  static float* interleave(float* to, const float* low, const float* high, Index columns, Index p) {
    const Panels<float> shape{nullptr, 0, columns};
    const Index first = p * PanelColumns<float>, width = shape.width(p);
    for (Index j = 0; j < width; j += 16, to += 16) {
      const auto half = [&](const float* row) { return row ? _mm512_cvtepu16_epi32(values(row, first + j, width - j)) : _mm512_setzero_si512(); };
      _mm512_storeu_si512(to, _mm512_or_si512(half(low), _mm512_slli_epi32(half(high), 16)));
    }
    return to;
  }
};
#endif

// multiply_panel() on rows of a form and without a start: each result becomes a value of the form.
template <class Form, class Real>
inline void multiply_rows_into(const Panels<Real>& matrix, Index p, Index count, const Real* const* rows, Real* const* out) {
  const Index column = p * PanelColumns<Real>, width = matrix.width(p);
  multiply_panel_by<Real, Form::paired>(Form::tile, matrix.panel(p), matrix.depth, column, width, count, rows, nullptr, out,
      [&](Real* row, const Real* made) {
        for_each_vector<Real>(width, [&](Index first, int lanes) { Form::store(row, column + first, load(made + first), lanes); });
      });
}

}  // namespace longshort::LONGSHORT_ISA
