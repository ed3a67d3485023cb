// The one product of the engine: a tile of rows times a panel of columns.
//
//   out[r][j] = start[r][j] + sum_k rows[r][k] * panel[k][j]        r < R, j < V * Lanes
//
// Input and recurrent products, the way back through both, and the weight gradients are all this tile.
// Sums run over k in order, one fused multiply-add each, whatever R is: a row's bits do not depend on
// the rows computed beside it.
#pragma once

#include <algorithm>

#include "call.hpp"
#include "simd.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr int PanelVectors = 4;                         // widest panel: the four gates of one block of units
constexpr int TileRows = RegisterCount == 32 ? 6 : 3;  // R * 4 sums, 4 weights and 1 value fit the registers

// How far ahead of the sums a panel is fetched into the second-level cache. Panels lie one behind the other, so past
// the end of one this is the next. Weights larger than the caches then cost a tenth of the time, not a quarter.
template <class Real>
constexpr Index PrefetchAhead = 65536 / static_cast<Index>(sizeof(Real));

template <class Real>
constexpr int PanelColumns = PanelVectors * Lanes<Real>;

// rows:  R pointers, each to `depth` readable values.
// panel: depth x (V * Lanes) values, contiguous.
// start: R pointers to V * Lanes readable values; may equal out.
// out:   R pointers to V * Lanes writable values.
template <class Real, int R, int V>
void tile(const Real* const* rows, const Real* panel, Index depth, const Real* const* start, Real* const* out) {
  Vector<Real> sum[R][V];
  const Real* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = load(start[r] + v * Lanes<Real>);
  }
  if (depth == 0) {  // apart, so that the sums below need never leave their registers
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) store(out[r] + v * Lanes<Real>, sum[r][v]);
    return;
  }
  Index k = 0;
  do {
    Vector<Real> weight[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) weight[v] = load(panel + v * Lanes<Real>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vector<Real> value = broadcast<Real>(row[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] += value * weight[v];
    }
    panel += V * Lanes<Real>;
#pragma GCC unroll 4
    for (int v = 0; v < V && R > 2; ++v) __builtin_prefetch(panel + PrefetchAhead<Real> + v * Lanes<Real>, 0, 2);
  } while (++k < depth);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out[r] + v * Lanes<Real>, sum[r][v]);
  }
}

template <class Real>
using Tile = void (*)(const Real* const*, const Real*, Index, const Real* const*, Real* const*);

template <class Real, int R>
constexpr Tile<Real> tile_of_width(int vectors) {
  constexpr Tile<Real> by_width[] = {tile<Real, R, 1>, tile<Real, R, 2>, tile<Real, R, 3>, tile<Real, R, 4>};
  return by_width[vectors - 1];
}

// 1 <= rows <= TileRows, 1 <= vectors <= PanelVectors.
template <class Real>
inline Tile<Real> tile_for(int rows, int vectors) {
  switch (rows) {
    case 1: return tile_of_width<Real, 1>(vectors);
    case 2: return tile_of_width<Real, 2>(vectors);
    case 3: return tile_of_width<Real, 3>(vectors);
    case 4: return tile_of_width<Real, TileRows == 6 ? 4 : 3>(vectors);
    case 5: return tile_of_width<Real, TileRows == 6 ? 5 : 3>(vectors);
    default: return tile_of_width<Real, TileRows>(vectors);
  }
}

template <class Real>
using TileFor = Tile<Real> (*)(int rows, int vectors);

// `count` rows cut into as few tiles as fit, as even as they get: calls body(first, rows).
template <class Body>
inline void for_each_tile(Index count, Body&& body) {
  const Index tiles = (count + TileRows - 1) / TileRows;
  for (Index i = 0, first = 0; i < tiles; ++i) {
    const Index rows = (count - first + (tiles - i) - 1) / (tiles - i);
    body(first, static_cast<int>(rows));
    first += rows;
  }
}

// Rows of many columns times a matrix packed in panels, where each row's place in memory is its own.
// The last panel may be narrower than PanelColumns; packing.hpp lays it out.
template <class Real>
struct Panels {
  const Real* data;   // panel p starts at data + p * PanelColumns * depth
  Index depth;        // rows of the matrix: the k of the sum
  Index columns;      // columns before padding

  Index count() const { return (columns + PanelColumns<Real> - 1) / PanelColumns<Real>; }
  Index width(Index p) const { return std::min<Index>(PanelColumns<Real>, columns - p * PanelColumns<Real>); }
  int vectors(Index p) const { return static_cast<int>((width(p) + Lanes<Real> - 1) / Lanes<Real>); }
  const Real* panel(Index p) const { return data + p * PanelColumns<Real> * depth; }
};

// out[r] = (start[r] or 0) + rows[r] @ panel for `count` rows, writing no column beyond the panel's own.
//   rows, start, out: `count` pointers; start and out point at column 0 of the whole matrix.
//   column, width: the panel's first column there, and how many it has.
//   tile: what tile_for() is to the rows and the panel.
//   finish(row of out, results): stores `width` results that are no whole vectors, or, with Apart, all of them.
template <class Real, bool Apart, class Finish>
inline void multiply_panel_by(TileFor<Real> tile, const Real* panel, Index depth, Index column, Index width, Index count,
                              const Real* const* rows, const Real* const* start, Real* const* out, Finish&& finish) {
  static constexpr Real Zeros[PanelColumns<Real>] = {};
  const int vectors = static_cast<int>((width + Lanes<Real> - 1) / Lanes<Real>);
  const bool whole = !Apart && width == vectors * Lanes<Real>;
  for_each_tile(count, [&](Index first, int tile_rows) {
    alignas(RegisterBytes) Real edge[TileRows][PanelColumns<Real>];
    const Real* from[TileRows];
    Real* to[TileRows];
    for (int r = 0; r < tile_rows; ++r) {
      from[r] = start ? start[first + r] + column : Zeros;
      to[r] = whole ? out[first + r] + column : edge[r];
      if (start && !whole) {
        std::memset(edge[r], 0, sizeof edge[r]);
        std::memcpy(edge[r], from[r], static_cast<std::size_t>(width) * sizeof(Real));
        from[r] = edge[r];
      }
    }
    tile(tile_rows, vectors)(rows + first, panel, depth, from, to);
    if (!whole) {
      for (int r = 0; r < tile_rows; ++r) finish(out[first + r], edge[r]);
    }
  });
}

template <class Real>
inline void multiply_panel(const Real* panel, Index depth, Index column, Index width, Index count, const Real* const* rows,
                           const Real* const* start, Real* const* out, TileFor<Real> tile = tile_for<Real>) {
  multiply_panel_by<Real, false>(tile, panel, depth, column, width, count, rows, start, out, [&](Real* row, const Real* made) {
    std::memcpy(row + column, made, static_cast<std::size_t>(width) * sizeof(Real));
  });
}

template <class Real>
inline void multiply_panel(const Panels<Real>& matrix, Index p, Index count, const Real* const* rows,
                           const Real* const* start, Real* const* out, TileFor<Real> tile = tile_for<Real>) {
  multiply_panel<Real>(matrix.panel(p), matrix.depth, p * PanelColumns<Real>, matrix.width(p), count, rows, start, out, tile);
}

}  // namespace longshort::LONGSHORT_ISA
