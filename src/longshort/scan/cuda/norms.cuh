// The gradient behind a norm of W_ih x, as the product with W_ih' reads it.
#pragma once
#include "call.cuh"

namespace longshort {

// z̄ of adjacent units of one gate to `dz`. row: t N + n.
template <int Units, class A>
DEVICE void store_input_gradient(const A& a, Index row, Index slot, Index u, const typename A::Wide (&dz)[Units]) {
  using E = typename A::Element;
  using R = typename A::Wide;
  constexpr int Parts = sizeof(E) == 2 ? 2 : 1;
  E rounded[Units], rest[Units];
  UNROLL for (int j = 0; j < Units; ++j) {
    R left = dz[j];
    rounded[j] = taken<E>(left);
    narrow(left, rest[j]);
  }
  E* to = a.dz + (row * Parts * a.G + slot) * a.pitch + u;
  store(to, rounded);
  if (Parts == 2) store(to + a.G * a.pitch, rest);
}

}  // namespace longshort
