// The plain cell on one block of units of one row, forward and back; equations (4) to (8) of
// scan/definition.py without options.
#pragma once

#include "activation.hpp"
#include "packing.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr int TapeFields = 5;  // i, f, g, o after their activations, and c after the step

// a:    PanelColumns pre-activations in blocked order.
// c:    Lanes values, the cell before the step; becomes the cell after it.
// tape: TapeFields * Lanes values to keep for the way back, if Keep.
// Returns h.
template <class Real, bool Keep>
inline Vector<Real> plain_cell(const Real* a, Real* c, Real* tape) {
  constexpr int L = Lanes<Real>;
  const Vector<Real> i = sigmoid<Real>(load(a)), f = sigmoid<Real>(load(a + L));
  const Vector<Real> g = tanh<Real>(load(a + 2 * L)), o = sigmoid<Real>(load(a + 3 * L));
  const Vector<Real> cell = f * load(c) + i * g;
  store(c, cell);
  if constexpr (Keep) {
    store(tape, i);
    store(tape + L, f);
    store(tape + 2 * L, g);
    store(tape + 3 * L, o);
    store(tape + 4 * L, cell);
  }
  return o * tanh<Real>(cell);
}

// tape: what plain_cell kept for this step; c_before: the cell before it.
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
