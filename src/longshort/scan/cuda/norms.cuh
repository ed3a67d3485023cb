// The gradient behind a norm of W_ih x, as the product with W_ih' reads it.
#pragma once
#include "arguments.cuh"

namespace longshort {

// z̄ of adjacent units of one gate to `dz`. row: t N + n.
template <int Units, class A>
DEVICE void store_input_gradient(const A& a, Index row, Index slot, Index u, const typename A::Wide (&dz)[Units]) {
  using E = typename A::Element;
  using R = typename A::Wide;
  constexpr int Parts = sizeof(E) == 2 ? 2 : 1;
  E rounded[Units], rest[Units];
  UNROLL for (int j = 0; j < Units; ++j) {
    narrow(dz[j], rounded[j]);
    const R left = dz[j] - wide(rounded[j]);
    narrow(left - left == R(0) ? left : R(0), rest[j]);  // nothing is left of what is not finite
  }
  E* to = a.dz + (row * Parts * a.G + slot) * a.pitch + u;
  store(to, rounded);
  if (Parts == 2) store(to + a.G * a.pitch, rest);
}

}  // namespace longshort
