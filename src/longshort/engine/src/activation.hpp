// exp, sigmoid and tanh on vectors, by range reduction and a polynomial.
//
// Largest error against the exact value, over all finite inputs (tests/engine/test_activation.py):
//   float32  exp 1.3, sigmoid 2.6, tanh 3.2 units in the last place
//   float64  exp 1.5, sigmoid 2.7, tanh 3.3
// Not-a-number stays not-a-number.
#pragma once

#include "simd.hpp"

namespace longshort::LONGSHORT_ISA {

// exp(r) - 1 = r (1 + r * sum_k Tail[k] r^k) on |r| <= log(2)/2; `Tail` interpolates at Chebyshev nodes.
// Log2High has so few bits that n * Log2High is exact, so the remainder is, fused or not.
template <class Real>
struct ExpTable;

template <>
struct ExpTable<float> {
  static constexpr float Tail[] = {0.5f, 0.16666576845993976f, 0.041666554437685939f, 0.0083632029715758550f,
                                   0.0013926213466332443f};
  static constexpr int Terms = 5;
  static constexpr float Log2e = 1.4426950408889634f, Log2High = 0.693359375f, Log2Low = -2.12194440e-4f;
  static constexpr float Limit = 87.0f;  // 2^n and its inverse stay normal numbers
};

template <>
struct ExpTable<double> {
  static constexpr double Tail[] = {0.50000000000000010262,    0.16666666666666667456,   0.041666666666623991516,
                                    0.0083333333333300513464,  0.0013888888917281793308, 0.00019841269863105968748,
                                    0.000024801521190217727651, 2.7557268378684192873e-6, 2.7620138719973995569e-7,
                                    2.5100424157005066788e-8};
  static constexpr int Terms = 10;
  static constexpr double Log2e = 1.4426950408889634074;
  static constexpr double Log2High = 6.93145751953125e-1, Log2Low = 1.42860682030941723212e-6;
  static constexpr double Limit = 690.0;
};

// x = n log 2 + r; returns n and exp(r) - 1, from which exp and exp - 1 follow without cancellation.
template <class Real>
struct Reduced {
  Vector<Real> n, rest;
};

template <class Real>
inline Reduced<Real> reduce(Vector<Real> x) {
  using Table = ExpTable<Real>;
  const Vector<Real> n = nearest(x * Table::Log2e);
  const Vector<Real> r = (x - n * Table::Log2High) - n * Table::Log2Low;
  Vector<Real> slope = broadcast<Real>(Table::Tail[Table::Terms - 1]);
#pragma GCC unroll 10
  for (int k = Table::Terms - 2; k >= 0; --k) slope = slope * r + Table::Tail[k];
  return {n, r * (slope * r + Real(1))};
}

// Keeps not-a-number.
template <class Real>
inline Vector<Real> clamp(Vector<Real> x, Real limit) {
  return maximum(broadcast<Real>(-limit), minimum(broadcast<Real>(limit), x));
}

template <class Real>
inline Vector<Real> exp(Vector<Real> x) {
  const Reduced<Real> e = reduce<Real>(clamp<Real>(x, ExpTable<Real>::Limit));
  return scale(e.rest + Real(1), e.n);
}

template <class Real>
inline Vector<Real> sigmoid(Vector<Real> x) {
  return reciprocal(exp<Real>(-x) + Real(1));
}

// tanh x = (e - 1) / (e + 1) with e = exp(2x); beyond 22 it is 1 in either precision.
template <class Real>
inline Vector<Real> tanh(Vector<Real> x) {
  const Reduced<Real> e = reduce<Real>(clamp<Real>(x + x, Real(44)));
  const Vector<Real> power = scale(broadcast<Real>(Real(1)), e.n);
  const Vector<Real> expm1 = power * e.rest + (power - Real(1));
  const Vector<Real> sum = expm1 + Real(2), inverse = reciprocal(sum), quotient = expm1 * inverse;
  return quotient + inverse * (expm1 - quotient * sum);
}

// Keras before version 3: a straight line from 0 at -2.5 to 1 at 2.5.
template <class Real>
inline Vector<Real> hard_sigmoid(Vector<Real> x) {
  const Vector<Real> line = x * Real(0.2) + Real(0.5);
  return maximum(Vector<Real>{}, minimum(broadcast<Real>(Real(1)), line));
}

}  // namespace longshort::LONGSHORT_ISA
