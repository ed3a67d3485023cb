// The plain cell on one block of units of one row, forward and back; equations (4) to (8) of
// scan/definition.py without options.
#pragma once

#include "activation.hpp"
#include "packing.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr int TapeFields = 5;  // i, f, g, o after their activations, and c after the step

// The cell in parts of about equal length, so that a product that waits for memory can go on between them: part<0>(),
// then each after the one before it, or all at once.
//   a: PanelColumns pre-activations in blocked order.
//   c: Lanes values, the cell before the step; becomes the cell after it.
template <class Real>
struct PlainCell {
  static constexpr int L = Lanes<Real>;
  static constexpr int parts = 5;
  const Real* a;
  Real* c;
  Vector<Real> i, f, g, o, cell, h;

  template <int Part>
  void part() {
    if constexpr (Part == 0) i = sigmoid<Real>(load(a));
    if constexpr (Part == 1) f = sigmoid<Real>(load(a + L));
    if constexpr (Part == 2) g = tanh<Real>(load(a + 2 * L));
    if constexpr (Part == 3) {
      o = sigmoid<Real>(load(a + 3 * L));
      cell = f * load(c) + i * g;
      store(c, cell);
    }
    if constexpr (Part == 4) h = o * tanh<Real>(cell);
  }

  [[gnu::always_inline]] void run() {  // h and the gates then stay in their registers, whatever else the compiler has to inline
    part<0>();
    part<1>();
    part<2>();
    part<3>();
    part<4>();
  }

  Vector<Real> gate(int q) const { return q == 0 ? i : q == 1 ? f : q == 2 ? g : o; }

  // tape: TapeFields * L values for the way back.
  void keep(Real* tape) const {
    for (int q = 0; q < Gates; ++q) store(tape + q * L, gate(q));
    store(tape + Gates * L, cell);
  }
};

// out = start + row @ panel, summed as tile() does for one row, with the cell of another block in between: a product of
// one row waits for its panel most of the time.
template <class Real>
inline void tile_beside_cell(const Real* row, const Real* panel, Index depth, const Real* start, Real* out, PlainCell<Real>& cell) {
  Vector<Real> sum[Gates];
#pragma GCC unroll 4
  for (int q = 0; q < Gates; ++q) sum[q] = load(start + q * Lanes<Real>);
  Index k = 0;
  const auto share = [&](int part) {
    for (const Index until = depth * part / (PlainCell<Real>::parts + 1); k < until; ++k) {
      const Vector<Real> value = broadcast<Real>(row[k]);
#pragma GCC unroll 4
      for (int q = 0; q < Gates; ++q) sum[q] += value * load(panel + q * Lanes<Real>);
      panel += PanelColumns<Real>;
    }
  };
  share(1);
  cell.template part<0>();
  share(2);
  cell.template part<1>();
  share(3);
  cell.template part<2>();
  share(4);
  cell.template part<3>();
  share(5);
  cell.template part<4>();
  share(6);
#pragma GCC unroll 4
  for (int q = 0; q < Gates; ++q) store(out + q * Lanes<Real>, sum[q]);
}

// `blocks` blocks of one row, one after the other.
//   first(out): puts the pre-activations of block 0 into out.
//   next(k, out, cell): those of the k-th, and runs the cell of the block before (with tile_beside_cell).
//   place(k): the k-th block's place of c. finish(k, cell): takes the cell that has run.
template <class Real, class First, class Next, class Place, class Finish>
inline void cells_of_one_row(Index blocks, First&& first, Next&& next, Place&& place, Finish&& finish) {
  alignas(RegisterBytes) Real a[2][PanelColumns<Real>];
  first(a[0]);
  for (Index k = 1; k <= blocks; ++k) {
    PlainCell<Real> cell;
    cell.a = a[(k - 1) % 2];
    cell.c = place(k - 1);
    if (k < blocks) next(k, a[k % 2], cell);
    else cell.run();
    finish(k - 1, cell);
  }
}

// tape: what PlainCell kept for this step; c_before: the cell before it.
// dh:   gradient of h. dc: gradient of the cell after the step; becomes that of the cell before it.
// da:   PanelColumns gradients of the pre-activations, written.
template <class Real>
inline void plain_cell_back(const Real* tape, Vector<Real> c_before, Vector<Real> dh, Real* dc, Real* da) {
  constexpr int L = Lanes<Real>;
  const Vector<Real> i = load(tape), f = load(tape + L), g = load(tape + 2 * L), o = load(tape + 3 * L);
  const Vector<Real> squashed = tanh<Real>(load(tape + 4 * L));
  const Vector<Real> dcell = load(dc) + dh * o * (Real(1) - squashed * squashed);
  store(da, dcell * g * i * (Real(1) - i));
  store(da + L, dcell * c_before * f * (Real(1) - f));
  store(da + 2 * L, dcell * i * (Real(1) - g * g));
  store(da + 3 * L, dh * squashed * o * (Real(1) - o));
  store(dc, dcell * f);
}

}  // namespace longshort::LONGSHORT_ISA
