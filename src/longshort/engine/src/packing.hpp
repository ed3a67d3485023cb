// Weights in the order in which the products read them.
//
// Blocked order: units in blocks of Lanes; inside a block the gates i, f, g, o side by side. Unit u of
// gate q stands at column (u / Lanes) * 4 * Lanes + q * Lanes + u % Lanes, and a block is one panel.
// Units beyond H in the last block have zero weights, so they stay at exactly zero.
#pragma once

#include "product.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr int Gates = 4;  // i, f, g, o: the order of torch.nn.LSTM, everywhere in the engine

inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

template <class Real>
inline Index block_count(Index units) {
  return ceil_div(units, Lanes<Real>);
}

// Where a gate's rows stand in a stacked weight of (gates x H, K): -1 where the variant has no such gate.
struct GateRows {
  Index first[Gates];
};

// How far ahead each of many rows is fetched that are transposed together: so many are no stream to the processor.
constexpr Index LinesAhead = 8;

// to[k][q][lane] <- from[first[q] + unit][k] for one block of units and k < depth.
//   from: rows `row_stride` apart, K contiguous values each. to: depth x PanelColumns values.
template <class Real>
inline void pack_block(Real* to, const Real* from, Index row_stride, GateRows gates, Index units, Index depth,
                       Index block) {
  constexpr int L = Lanes<Real>;
  const Index unit = block * L, valid = std::min<Index>(L, units - unit);
  for (int q = 0; q < Gates; ++q) {
    const bool absent = gates.first[q] < 0;
    const Real* source = from + (absent ? 0 : (gates.first[q] + unit) * row_stride);
    for (Index k = 0; k < depth; k += L) {
      const int steps = static_cast<int>(std::min<Index>(L, depth - k));
      Vector<Real> square[L];
      for (int j = 0; j < L; ++j) {
        __builtin_prefetch(source + std::min<Index>(j, valid - 1) * row_stride + k + LinesAhead * L);
        if (absent || j >= valid) square[j] = Vector<Real>{};
        else if (steps == L) square[j] = load(source + j * row_stride + k);
        else square[j] = load_first(source + j * row_stride + k, steps);
      }
      transpose<Real>(square);
      for (int j = 0; j < steps; ++j) store(to + (k + j) * PanelColumns<Real> + q * L, square[j]);
    }
  }
}

// body(first, count) for vectors of `count` <= Lanes values that cover 0 ... values - 1.
template <class Real, class Body>
inline void for_each_vector(Index values, Body&& body) {
  Index first = 0;
  for (; first + Lanes<Real> <= values; first += Lanes<Real>) body(first, Lanes<Real>);
  if (first < values) body(first, static_cast<int>(values - first));
}

template <class Real>
inline Vector<Real> load_some(const Real* from, int count) {
  return count == Lanes<Real> ? load(from) : load_first(from, count);
}

template <class Real>
inline void store_some(Real* to, Vector<Real> value, int count) {
  if (count == Lanes<Real>) store(to, value);
  else store_first(to, value, count);
}

// to[k] = from[k] * mask[k], or a copy without a mask.
template <class Real>
inline void copy_masked(Real* to, const Real* from, const Real* mask, Index values) {
  if (!mask) return void(std::memcpy(to, from, static_cast<std::size_t>(values) * sizeof(Real)));
  for_each_vector<Real>(values, [&](Index first, int count) {
    store_some(to + first, load_some(from + first, count) * load_some(mask + first, count), count);
  });
}

// One value per gate and unit, (gates x H), in blocked order.
template <class Real>
inline void pack_vector(Real* to, const Real* from, GateRows gates, Index units) {
  for (Index block = 0; block < block_count<Real>(units); ++block)
    for (int q = 0; q < Gates; ++q)
      for (int lane = 0; lane < Lanes<Real>; ++lane) {
        const Index unit = block * Lanes<Real> + lane;
        *to++ = gates.first[q] < 0 || unit >= units ? Real(0) : from[gates.first[q] + unit];
      }
}

template <class Real>
inline void unpack_vector(Real* to, const Real* from, GateRows gates, Index units) {
  for (int q = 0; q < Gates; ++q) {
    if (gates.first[q] < 0) continue;
    for (Index unit = 0; unit < units; ++unit)
      to[gates.first[q] + unit] =
          from[(unit / Lanes<Real>)*PanelColumns<Real> + q * Lanes<Real> + unit % Lanes<Real>];
  }
}

// Panel p of a matrix whose k runs over gates and units in blocked order: the way back through `from`.
//   to[k][j] <- from[first[q] + unit][p * PanelColumns + j], with k = the blocked place of (q, unit).
template <class Real>
inline void pack_back_panel(Real* to, const Real* from, Index row_stride, GateRows gates, Index units,
                            Index columns, Index p) {
  const Panels<Real> shape{nullptr, 0, columns};
  const Index width = shape.width(p), stride = shape.vectors(p) * Lanes<Real>;
  for (Index block = 0; block < block_count<Real>(units); ++block)
    for (int q = 0; q < Gates; ++q)
      for (int lane = 0; lane < Lanes<Real>; ++lane, to += stride) {
        const Index unit = block * Lanes<Real> + lane;
        std::memset(to, 0, static_cast<std::size_t>(stride) * sizeof(Real));
        if (gates.first[q] < 0 || unit >= units) continue;
        std::memcpy(to, from + (gates.first[q] + unit) * row_stride + p * PanelColumns<Real>,
                    static_cast<std::size_t>(width) * sizeof(Real));
      }
}

// Panel p of rows that are gathered one by one: to[k][j] <- rows[k][p * PanelColumns + j].
template <class Real>
inline void pack_rows(Real* to, const Real* const* rows, Index depth, Index columns, Index p) {
  const Panels<Real> shape{nullptr, depth, columns};
  const Index width = shape.width(p), stride = shape.vectors(p) * Lanes<Real>;
  const Index whole = width / Lanes<Real> * Lanes<Real>;
  for (Index k = 0; k < depth; ++k, to += stride) {
    const Real* from = rows[k] + p * PanelColumns<Real>;
    for (Index j = 0; j < whole; j += Lanes<Real>) store(to + j, load(from + j));
    if (whole < stride) store(to + whole, load_first(from + whole, static_cast<int>(width - whole)));
  }
}

// to[j][k] <- rows[k][j] for Lanes columns j; returns the sum over k of each column.
// to: Lanes rows, `to_stride` apart, of depth rounded up to Lanes writable values; those beyond depth become 0.
template <class Real>
inline Vector<Real> transpose_rows(Real* to, Index to_stride, const Real* const* rows, Index column, Index depth) {
  constexpr int L = Lanes<Real>;
  Vector<Real> sum{};
  for (Index k = 0; k < depth; k += L) {
    Vector<Real> square[L];
    for (int j = 0; j < L; ++j) {
      square[j] = k + j < depth ? load(rows[k + j] + column) : Vector<Real>{};
      sum += square[j];
    }
    transpose<Real>(square);
    for (int j = 0; j < L; ++j) store(to + j * to_stride + k, square[j]);
  }
  return sum;
}

}  // namespace longshort::LONGSHORT_ISA
