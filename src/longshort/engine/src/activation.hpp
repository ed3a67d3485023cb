// exp, sigmoid and tanh on vectors, by range reduction and a polynomial.
//
// Largest error against the exact value, over all finite inputs (tests/engine/test_activation.py):
//   float32  exp 1.3, sigmoid 2.6, tanh 3.2 units in the last place
//   float64  exp 1.5, sigmoid 2.7, tanh 3.3
// Not-a-number stays not-a-number.
#pragma once

#include "simd.hpp"

namespace longshort::LONGSHORT_ISA {

// exp(r) = 1 + r + r^2 * sum_k Tail[k] r^k on |r| <= log(2)/2; `Tail` interpolates at Chebyshev nodes.
template <class Real>
struct ExpTable;

template <>
struct ExpTable<float> {
  static constexpr float Tail[] = {0.5f, 0.16666576845993976f, 0.041666554437685939f, 0.0083632029715758550f,
                                   0.0013926213466332443f};
  static constexpr int Terms = 5;
  static constexpr float Log2Of_e = 1.4426950408889634f;
  static constexpr float Log2High = 0.693359375f, Log2Low = -2.12194440e-4f;
  static constexpr float Round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float Limit = 87.0f;        // 2^n stays a normal number, and so does its inverse
  static constexpr int MantissaBits = 23;
  static constexpr std::int32_t Bias = 127;
};

template <>
struct ExpTable<double> {
  static constexpr double Tail[] = {0.50000000000000010262,  0.16666666666666667456,    0.041666666666623991516,
                                    0.0083333333333300513464, 0.0013888888917281793308,  0.00019841269863105968748,
                                    0.000024801521190217727651, 2.7557268378684192873e-6, 2.7620138719733995569e-7,
                                    2.5100424157005066788e-8};
  static constexpr int Terms = 10;
  static constexpr double Log2Of_e = 1.4426950408889634074;
  static constexpr double Log2High = 6.93145751953125e-1, Log2Low = 1.42860682030941723212e-6;
  static constexpr double Round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double Limit = 708.0;
  static constexpr int MantissaBits = 52;
  static constexpr std::int64_t Bias = 1023;
};

// x = n log 2 + r; returns exp(r) - 1 and 2^n, from which both exp and exp - 1 follow without cancellation.
template <class Real>
struct Reduced {
  Vector<Real> expm1_of_rest, power;
};

template <class Real>
inline Reduced<Real> reduce(Vector<Real> x) {
  using Table = ExpTable<Real>;
  typedef Integer<Real> Bits __attribute__((vector_size(RegisterBytes)));
  const Vector<Real> shifted = x * Table::Log2Of_e + Table::Round;
  const Vector<Real> n = shifted - Table::Round;
  const Vector<Real> r = (x - n * Table::Log2High) - n * Table::Log2Low;
  Vector<Real> tail = broadcast<Real>(Table::Tail[Table::Terms - 1]);
#pragma GCC unroll 10
  for (int k = Table::Terms - 2; k >= 0; --k) tail = tail * r + Table::Tail[k];
  Bits exponent, round;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  const Vector<Real> round_value = broadcast<Real>(Table::Round);
  std::memcpy(&round, &round_value, sizeof round);
  exponent = (exponent - round + Table::Bias) << Table::MantissaBits;
  Reduced<Real> result;
  std::memcpy(&result.power, &exponent, sizeof exponent);
  result.expm1_of_rest = r + r * r * tail;
  return result;
}

template <class Real>
inline Vector<Real> clamp(Vector<Real> x, Real limit) {
  return maximum<Real>(minimum<Real>(x, broadcast<Real>(limit)), broadcast<Real>(-limit));
}

template <class Real>
inline Vector<Real> exp(Vector<Real> x) {
  const Reduced<Real> e = reduce<Real>(clamp<Real>(x, ExpTable<Real>::Limit));
  return e.power * e.expm1_of_rest + e.power;
}

template <class Real>
inline Vector<Real> sigmoid(Vector<Real> x) {
  return Real(1) / (Real(1) + exp<Real>(-x));
}

// tanh x = (e - 1) / (e + 1) with e = exp(2x); beyond 22 it is 1 in either precision.
template <class Real>
inline Vector<Real> tanh(Vector<Real> x) {
  const Reduced<Real> e = reduce<Real>(clamp<Real>(x + x, Real(44)));
  const Vector<Real> expm1 = e.power * e.expm1_of_rest + (e.power - Real(1));
  return expm1 / (expm1 + Real(2));
}

// Keras before version 3: a straight line from 0 at -2.5 to 1 at 2.5.
template <class Real>
inline Vector<Real> hard_sigmoid(Vector<Real> x) {
  const Vector<Real> line = x * Real(0.2) + Real(0.5);
  return maximum<Real>(minimum<Real>(line, broadcast<Real>(Real(1))), Vector<Real>{});
}

}  // namespace longshort::LONGSHORT_ISA
