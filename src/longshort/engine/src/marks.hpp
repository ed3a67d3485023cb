// Whether weights are still those that were packed. Identity and version do not show a write through torch's `.data`;
// a sum over the bits of each row does, unless the write leaves every row's sum alone.
#pragma once

#include <atomic>

#include "packing.hpp"
#include "team.hpp"
#include "weights.hpp"

namespace longshort::LONGSHORT_ISA {

// The bits of a row, summed in 64-bit lanes. Lanes weigh differently, and so do vectors, from the last by 1, 3, 5, ...:
// values that trade places show, and one that changes does, for all these are odd.
template <class Real>
inline std::uint64_t mark_of_row(const Real* row, Index width) {
  WideWords sum{}, sums{};
  for_each_vector<Real>(width, [&](Index first, int count) {
    const Vector<Real> value = load_some(row + first, count);
    WideWords bits;
    std::memcpy(&bits, &value, sizeof bits);
    sums += sum;
    sum += bits;
  });
  sum += sums + sums;
  std::uint64_t mark = 0;
  for (int lane = 0; lane < RegisterBytes / 8; ++lane) mark += static_cast<std::uint64_t>(2 * lane + 1) * sum[lane];
  return mark;
}

// The rows of all weights but the bias, which is read anew at each call.
template <class Real>
class WeightRows {
 public:
  WeightRows(const Weights<Real>& w, const Variant& variant) {
    const Index G = variant.gate_count() * w.H, S = variant.sigmoid_count() * w.H;
    add(w.w_ih, G, w.C);
    add(w.w_hh, G, w.P);
    add(w.w_hr, w.P, w.H);
    add(w.w_gates, S, S);
    add({w.peephole, 0}, 1, S);
    add({w.gain_ih, 0}, 1, G);
    add({w.gain_hh, 0}, 1, G);
    add({w.gain_c, 0}, 1, w.H);
    add({w.shift_c, 0}, 1, w.H);
  }

  Index count() const { return count_; }
  Index bytes() const { return values_ * static_cast<Index>(sizeof(Real)); }

  // body(k, mark) for one member's share of the rows; ends early where it returns false.
  template <class Body>
  void each_mark(int members, int member, Body&& body) const {
    Index before = 0;
    for (int m = 0; m < matrices_; before += matrix_[m++].count) {
      const Matrix& matrix = matrix_[m];
      const Range share = part(matrix.count, members, member);
      for (Index r = share.first; r < share.last; ++r)
        if (!body(before + r, mark_of_row(matrix.rows.row(r), matrix.width))) return;
    }
  }

 private:
  struct Matrix {
    Rows<const Real> rows;
    Index count, width;
  };

  void add(Rows<const Real> rows, Index count, Index width) {
    if (!rows) return;
    matrix_[matrices_++] = {rows, count, width};
    count_ += count;
    values_ += count * width;
  }

  Matrix matrix_[9];
  int matrices_ = 0;
  Index count_ = 0, values_ = 0;
};

// Whether `from`, of the sizes that were packed, has the marks of the weights that were.
template <class Real>
bool holds(const Weights<Real>& from, const PackedWeights<Real>& packed, int threads) {
  constexpr Index worth_threads = 512 * 1024;  // bytes: fewer are summed sooner than a thread comes
  const WeightRows<Real> rows(from, packed.variant);
  if (rows.count() != static_cast<Index>(packed.marks.size())) return false;
  const int members = rows.bytes() < worth_threads ? 1 : threads;
  std::atomic<bool> same{true};
  run_team(members, [&](int member) {
    rows.each_mark(members, member, [&](Index k, std::uint64_t mark) {
      const bool equal = mark == packed.marks[static_cast<std::size_t>(k)];
      if (!equal) same.store(false, std::memory_order_relaxed);
      return equal;
    });
  });
  return same.load(std::memory_order_relaxed);
}

}  // namespace longshort::LONGSHORT_ISA
