// Weight gradients of a chunk of steps: dW += sum over rows of (left row)^T (right row).
//
// The rows of all groups of a chunk are listed, packed once into panels, and each member sums its own
// share of dW's rows: no second copy of dW, and the order of the sum does not depend on timing.
#pragma once

#include "pairs.hpp"
#include "team.hpp"

namespace longshort::LONGSHORT_ISA {

// Lanes neighbouring columns of the left rows, and the rows of dW that they become.
struct RowGroup {
  Index column, row, count;  // count <= Lanes
};

// One weight gradient. Members other than the packing one only read it.
template <class Real>
struct WeightGradient {
  const Real** right = nullptr;  // rows of the chunk, in the form; `columns` values each
  Index columns = 0;
  Rows<Real> out;                // (rows, columns), absent if not wanted
  Real* panels = nullptr;        // room for the packed right rows

  Panels<Real> packed(Index words) const { return {panels, words, columns}; }
  Index panel_count() const { return out ? ceil_div(columns, PanelColumns<Real>) : 0; }
};

// Columns of one left matrix, transposed: the rows of dW of this member's share. depth: how many rows it had.
template <class Real, class Form = Whole<Real>>
class TransposedRows {
 public:
  static std::size_t bytes(Index groups, Index depth) {
    return static_cast<std::size_t>(groups * Lanes<Real> * stride_for(Form::words(depth))) * sizeof(Real);
  }

  void place(Real* room, Index most_rows) {
    room_ = room;
    stride_ = stride_for(Form::words(most_rows));
  }

  // sums: where to add each column's sum over the rows, at its column; null if not wanted.
  void fill(const RowGroup* groups, Index count, const Real* const* rows, Index depth, Real* sums) {
    for (Index i = 0; i < count; ++i) {
      const Vector<Real> sum = Form::transpose(room_ + i * Lanes<Real> * stride_, stride_, rows, groups[i].column, depth);
      if (sums) store(sums + groups[i].column, load(sums + groups[i].column) + sum);
    }
  }

  // out (+)= these rows times the packed right rows: some groups at a time, whose rows stay in cache while the panels
  // pass by.
  void accumulate(const RowGroup* groups, Index count, const WeightGradient<Real>& gradient, Index depth, bool first) const {
    const Index together = std::max<Index>(1, static_cast<Index>(GroupBytes / sizeof(Real)) / (Lanes<Real> * stride_));
    for (Index begin = 0; begin < count; begin += together)
      for (Index p = 0; p < gradient.panel_count(); ++p)
        for (Index i = begin; i < std::min(begin + together, count); ++i) {
          if (!first && i + 1 < count) fetch(groups[i + 1], gradient, p);
          accumulate_one(i, groups[i], gradient, p, depth, first);
        }
  }

  // The same for panel p of the i-th group alone, which may stand elsewhere in this dW.
  void accumulate_one(Index i, const RowGroup& group, const WeightGradient<Real>& gradient, Index p, Index depth, bool first) const {
    const Real* rows[Lanes<Real>];
    Real* out[Lanes<Real>];
    for (Index j = 0; j < group.count; ++j) {
      rows[j] = room_ + (i * Lanes<Real> + j) * stride_;
      out[j] = gradient.out.row(group.row + j);
    }
    multiply_panel<Real>(gradient.packed(Form::words(depth)), p, group.count, rows, first ? nullptr : const_cast<const Real**>(out), out, Form::tile);
  }

 private:
  static constexpr std::size_t GroupBytes = 256 * 1024;

  // What the sums of a group begin with is far away by now: the product before it hides the way.
  static void fetch(const RowGroup& group, const WeightGradient<Real>& gradient, Index p) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(Real));
    const Index column = p * PanelColumns<Real>, width = gradient.packed(0).width(p);
    for (Index j = 0; j < group.count; ++j)
      for (Index k = 0; k < width; k += line) __builtin_prefetch(gradient.out.row(group.row + j) + column + k, 1, 2);
  }

  // An odd number of cache lines: neighbouring rows fall into different sets.
  static Index stride_for(Index words) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(Real));
    const Index lines = ceil_div(words + Lanes<Real>, line);
    return (lines | 1) * line;
  }

  Real* room_ = nullptr;
  Index stride_ = 0;
};

}  // namespace longshort::LONGSHORT_ISA
