// The product of two whole matrices, out = bias + a b', on the same tiles as the recurrence.
//
// Depth is taken in pieces whose panel stays in the second-level cache: packed there, and multiplied at once with all
// rows. Rows whose values are not contiguous are copied some at a time, for all panels. Sums run over the depth in
// order, so a value's bits depend neither on the threads nor on the layout.
#pragma once

#include "packing.hpp"
#include "team.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr Index DepthTogether = 1024;
constexpr Index CopiedRows = 48;        // rows of a that are copied together
constexpr Index PanelsWorthSplitting = 16;  // fewer panels a thread, and a thread's last one weighs too much

template <class Real>
class Product {
 public:
  // rows, panels: this member's share of out.
  Product(const MatrixCall<Real>& call, Range rows, Range panels)
      : call_(call), rows_(rows), panels_(panels), copies_(call.a.column_stride != 1),
        arena_(static_cast<std::size_t>(panel_values() * panels_together() + CopiedRows * copy_stride()) * sizeof(Real) + 256) {
    packed_ = reinterpret_cast<Real*>(arena_.take(static_cast<std::size_t>(panel_values() * panels_together()) * sizeof(Real)));
    copy_ = reinterpret_cast<Real*>(arena_.take(static_cast<std::size_t>(CopiedRows * copy_stride()) * sizeof(Real)));
    from_.resize(static_cast<std::size_t>(rows.size()));
    start_.resize(from_.size());
    out_.resize(from_.size());
  }

  void run() {
    for (Index r = 0; r < rows_.size(); ++r) {
      out_[static_cast<std::size_t>(r)] = call_.out.row(rows_.first + r);
      start_[static_cast<std::size_t>(r)] = call_.bias;
    }
    if (call_.C == 0) return fill();
    for (Index first = 0; first < call_.C; first += DepthTogether) {
      const Index depth = std::min(DepthTogether, call_.C - first);
      if (copies_) multiply_copies(first, depth);
      else multiply_rows(first, depth);
      for (Index r = 0; r < rows_.size(); ++r) start_[static_cast<std::size_t>(r)] = out_[static_cast<std::size_t>(r)];
    }
  }

 private:
  Index panel_values() const { return std::min(DepthTogether, call_.C) * PanelColumns<Real>; }
  Index panels_together() const { return copies_ ? panels_.size() : 1; }
  Index copy_stride() const { return copies_ ? ceil_div(std::min(DepthTogether, call_.C), Lanes<Real>) * Lanes<Real> + Lanes<Real> : 0; }
  Index width(Index p) const { return std::min<Index>(PanelColumns<Real>, call_.K - p * PanelColumns<Real>); }

  void fill() {
    for (Real* row : out_)
      for (Index p = panels_.first; p < panels_.last; ++p)
        for (Index k = p * PanelColumns<Real>; k < p * PanelColumns<Real> + width(p); ++k) row[k] = call_.bias ? call_.bias[k] : Real(0);
  }

  void multiply_rows(Index first, Index depth) {
    for (Index r = 0; r < rows_.size(); ++r) from_[static_cast<std::size_t>(r)] = call_.a.at(rows_.first + r, first);
    for (Index p = panels_.first; p < panels_.last; ++p) {
      pack(packed_, p, first, depth);
      multiply(packed_, p, depth, 0, rows_.size(), from_.data());
    }
  }

  void multiply_copies(Index first, Index depth) {
    for (Index p = panels_.first; p < panels_.last; ++p) pack(packed_ + (p - panels_.first) * panel_values(), p, first, depth);
    for (Index r = 0; r < rows_.size(); r += CopiedRows) {
      const Index count = std::min(CopiedRows, rows_.size() - r);
      transpose_into(copy_, copy_stride(), call_.a.at(rows_.first + r, first), call_.a.column_stride, depth, count);
      for (Index k = 0; k < count; ++k) from_[static_cast<std::size_t>(k)] = copy_ + k * copy_stride();
      for (Index p = panels_.first; p < panels_.last; ++p) multiply(packed_ + (p - panels_.first) * panel_values(), p, depth, r, count, from_.data());
    }
  }

  void multiply(const Real* panel, Index p, Index depth, Index row, Index count, const Real* const* from) {
    const Real* const* start = start_.data() + row;
    multiply_panel<Real>(panel, depth, p * PanelColumns<Real>, width(p), count, from, *start ? start : nullptr, out_.data() + row);
  }

  // Panel p of rows first ... of b': to[k][j] <- b[p * PanelColumns + j][first + k], zero beyond the last column.
  void pack(Real* to, Index p, Index first, Index depth) const {
    constexpr int L = Lanes<Real>;
    const Index stride = ceil_div(width(p), L) * L;
    const Real* from = call_.b.at(p * PanelColumns<Real>, first);
    if (call_.b.column_stride == 1) return transpose_into(to, stride, from, call_.b.row_stride, width(p), depth);
    for (Index k = 0; k < depth; ++k, from += call_.b.column_stride, to += stride)
      for (Index j = 0; j < stride; j += L) store(to + j, load_some(from + j, static_cast<int>(std::min<Index>(L, width(p) - j))));
  }

  // to[j][k] <- from[k][j] for j < columns, k < depth; what is beyond depth, up to a whole vector, becomes 0.
  static void transpose_into(Real* to, Index to_stride, const Real* from, Index from_stride, Index depth, Index columns) {
    constexpr int L = Lanes<Real>;
    for (Index j = 0; j < columns; j += L) {
      const int wide = static_cast<int>(std::min<Index>(L, columns - j));
      for (Index k = 0; k < depth; k += L) {
        Vector<Real> square[L];
        for (int i = 0; i < L; ++i) {
          const Real* row = from + std::min(k + i, depth - 1) * from_stride + j;
          __builtin_prefetch(row + LinesAhead * L);
          square[i] = k + i < depth ? load_some(row, wide) : Vector<Real>{};
        }
        transpose<Real>(square);
        for (int i = 0; i < wide; ++i) store(to + (j + i) * to_stride + k, square[i]);
      }
    }
  }

  const MatrixCall<Real>& call_;
  const Range rows_, panels_;
  const bool copies_;
  Arena arena_;
  Real *packed_ = nullptr, *copy_ = nullptr;
  std::vector<const Real*> from_, start_;
  std::vector<Real*> out_;
};

template <class Real>
void run_product(const MatrixCall<Real>& call) {
  if (call.M == 0 || call.K == 0) return;
  const Index panels = ceil_div(call.K, PanelColumns<Real>);
  const bool splits_panels = panels >= PanelsWorthSplitting * call.threads;
  const Index pieces = splits_panels ? panels : call.M;
  const int threads = call.M * call.K * call.C < ProductsWorthTeam ? 1 : static_cast<int>(std::clamp<Index>(pieces, 1, call.threads));
  std::vector<std::unique_ptr<Product<Real>>> members;
  for (int i = 0; i < threads; ++i) {
    const Range own = part(pieces, threads, i);
    members.push_back(std::make_unique<Product<Real>>(call, splits_panels ? Range{0, call.M} : own, splits_panels ? own : Range{0, panels}));
  }
  run_team(threads, [&](int i) { members[static_cast<std::size_t>(i)]->run(); });
}

}  // namespace longshort::LONGSHORT_ISA
