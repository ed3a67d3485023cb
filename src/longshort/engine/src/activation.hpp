// exp, sigmoid and tanh on vectors, by range reduction and a polynomial.
//
// Largest error against the exact value, over all finite inputs (tests/engine/test_activation.py):
//   float32  exp 1.3, sigmoid 2.6, tanh 3.2 units in the last place
//   float64  exp 1.5, sigmoid 2.7, tanh 3.3
// Not-a-number stays not-a-number.
#pragma once

#include "simd.hpp"

namespace longshort::LONGSHORT_ISA {

// 2^r - 1 = r * sum_k Slope[k] r^k on |r| <= 1/2; `Slope` interpolates at Chebyshev nodes.
template <class Real>
struct PowerTable;

template <>
struct PowerTable<float> {
  static constexpr float Slope[] = {0.69314718804867439f, 0.24022650760762474f, 0.055503570065040768f,
                                    0.0096180824640173537f, 0.0013390920791936482f, 0.00015453212664719181f};
  static constexpr int Terms = 6;
  static constexpr float Log2e = 1.4426950216293335f, Log2eRest = 1.9259629911266175e-8f;
  static constexpr float Limit = 87.0f;  // 2^n and its inverse stay normal numbers
};

template <>
struct PowerTable<double> {
  static constexpr double Slope[] = {0.69314718055994530942,   0.24022650695910098355,   0.055504108664821594411,
                                     0.0096181291076068019828, 0.0013333558146416889179, 0.00015403530441881377252,
                                     0.000015252733829913581989, 1.3215442499383302424e-6, 1.0178062398652389182e-7,
                                     7.0726036484601362336e-9, 4.4549700323138961307e-10};
  static constexpr int Terms = 11;
  static constexpr double Log2e = 1.442695040888963387, Log2eRest = 2.035527374093103205e-17;
  static constexpr double Limit = 690.0;
};

// x log2(e) = n + r; returns n and 2^r - 1, from which exp and exp - 1 follow without cancellation.
template <class Real>
struct Reduced {
  Vector<Real> n, power_less_one;
};

template <class Real>
inline Reduced<Real> reduce(Vector<Real> x) {
  using Table = PowerTable<Real>;
  const Vector<Real> n = nearest(x * Table::Log2e);
  const Vector<Real> r = (x * Table::Log2e - n) + x * Table::Log2eRest;
  Vector<Real> slope = broadcast<Real>(Table::Slope[Table::Terms - 1]);
#pragma GCC unroll 11
  for (int k = Table::Terms - 2; k >= 0; --k) slope = slope * r + Table::Slope[k];
  return {n, r * slope};
}

// Keeps not-a-number.
template <class Real>
inline Vector<Real> clamp(Vector<Real> x, Real limit) {
  return maximum(broadcast<Real>(-limit), minimum(broadcast<Real>(limit), x));
}

template <class Real>
inline Vector<Real> exp(Vector<Real> x) {
  const Reduced<Real> e = reduce<Real>(clamp<Real>(x, PowerTable<Real>::Limit));
  return scale(e.power_less_one + Real(1), e.n);
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
  const Vector<Real> expm1 = power * e.power_less_one + (power - Real(1));
  return expm1 * reciprocal(expm1 + Real(2));
}

// Keras before version 3: a straight line from 0 at -2.5 to 1 at 2.5.
template <class Real>
inline Vector<Real> hard_sigmoid(Vector<Real> x) {
  const Vector<Real> line = x * Real(0.2) + Real(0.5);
  return maximum(Vector<Real>{}, minimum(broadcast<Real>(Real(1)), line));
}

}  // namespace longshort::LONGSHORT_ISA
