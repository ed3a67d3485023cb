// How long the sequences of a thread's cells are, in a persistent kernel.
#pragma once
#include "call.cuh"

namespace longshort {

// Stay: whether the cells are those of the same sequences at every step; then their lengths stay in registers.
template <int Cells, bool Stay, class F>
struct Lengths {
  F has;
  int of[Cells];

  DEVICE_MEMBER explicit Lengths(const F& options) : has(options) {}

  // length: of cell k, which the thread owns.
  template <class A>
  DEVICE_MEMBER void keep(const A& a, int k, Index n) {
    of[k] = has(Ragged) && Stay ? static_cast<int>(constant(a.lengths + n)) : 0;
  }
  // (8): whether step t of cell k's sequence n is one of its own.
  template <class A>
  DEVICE_MEMBER bool active(const A& a, int k, Index n, Index t) const {
    return Stay ? !has(Ragged) || static_cast<int>(t) < of[k] : longshort::active(a, has, n, t);
  }
};

}  // namespace longshort
