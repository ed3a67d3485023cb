// Weight gradients of a chunk of steps: dW += sum over rows of (left row)^T (right row).
//
// The rows of all groups of a chunk are listed, packed once into panels, and each member sums its own
// share of dW's rows: no second copy of dW, and the order of the sum does not depend on timing.
#pragma once

#include "team.hpp"
#include "packing.hpp"

namespace longshort::LONGSHORT_ISA {

// Lanes neighbouring columns of the left rows, and the rows of dW that they become.
struct RowGroup {
  Index column, row, count;  // count <= Lanes
};

// One weight gradient. Members other than the packing one only read it.
template <class Real>
struct WeightGradient {
  const Real** right = nullptr;  // rows of the chunk; `columns` values each
  Index columns = 0;
  Rows<Real> out;                // (rows, columns), absent if not wanted
  Real* panels = nullptr;        // room for the packed right rows

  Panels<Real> packed(Index depth) const { return {panels, depth, columns}; }
  Index panel_count() const { return out ? ceil_div(columns, PanelColumns<Real>) : 0; }
};

// Columns of one left matrix, transposed: the rows of dW of this member's share.
template <class Real>
class TransposedRows {
 public:
  static std::size_t bytes(Index groups, Index depth) {
    return static_cast<std::size_t>(groups * Lanes<Real> * stride_for(depth)) * sizeof(Real);
  }

  void place(Real* room, Index most_rows) {
    room_ = room;
    stride_ = stride_for(most_rows);
  }

  // sums: where to add each column's sum over the rows, at its column; null if not wanted.
  void fill(const RowGroup* groups, Index count, const Real* const* rows, Index depth, Real* sums) {
    for (Index i = 0; i < count; ++i) {
      const Vector<Real> sum = transpose_rows<Real>(room_ + i * Lanes<Real> * stride_, stride_, rows, groups[i].column, depth);
      if (sums) store(sums + groups[i].column, load(sums + groups[i].column) + sum);
    }
  }

  // out (+)= these rows times the packed right rows.
  void accumulate(const RowGroup* groups, Index count, const WeightGradient<Real>& gradient, Index depth, bool first) const {
    for (Index p = 0; p < gradient.panel_count(); ++p)
      for (Index i = 0; i < count; ++i) accumulate_panel(i, groups[i], gradient, p, depth, first);
  }

  // The same for the i-th group alone, which may stand elsewhere in this dW.
  void accumulate_one(Index i, const RowGroup& group, const WeightGradient<Real>& gradient, Index depth, bool first) const {
    for (Index p = 0; p < gradient.panel_count(); ++p) accumulate_panel(i, group, gradient, p, depth, first);
  }

 private:
  void accumulate_panel(Index i, const RowGroup& group, const WeightGradient<Real>& gradient, Index p, Index depth, bool first) const {
    const Real* rows[Lanes<Real>];
    Real* out[Lanes<Real>];
    for (Index j = 0; j < group.count; ++j) {
      rows[j] = room_ + (i * Lanes<Real> + j) * stride_;
      out[j] = gradient.out.row(group.row + j);
    }
    multiply_panel<Real>(gradient.packed(depth), p, group.count, rows, first ? nullptr : const_cast<const Real**>(out), out);
  }

  // An odd number of cache lines: neighbouring rows fall into different sets.
  static Index stride_for(Index depth) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(Real));
    const Index lines = ceil_div(depth + Lanes<Real>, line);
    return (lines | 1) * line;
  }

  Real* room_ = nullptr;
  Index stride_ = 0;
};

}  // namespace longshort::LONGSHORT_ISA
