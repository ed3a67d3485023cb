// Vectors of the instruction set this file is compiled for, through the compiler's vector types.
//
// Everything that depends on the set lives in the namespace LONGSHORT_ISA, so the same source can be
// linked once per set. RegisterBytes and RegisterCount are all that the sets differ in here.
#pragma once

#include <cstdint>
#include <cstring>

namespace longshort::LONGSHORT_ISA {

#if defined(__AVX512F__)
constexpr int RegisterBytes = 64;
constexpr int RegisterCount = 32;
#elif defined(__AVX2__)
constexpr int RegisterBytes = 32;
constexpr int RegisterCount = 16;
#else
constexpr int RegisterBytes = 16;
constexpr int RegisterCount = 16;
#endif

template <class Real>
struct VectorOf {
  typedef Real type __attribute__((vector_size(RegisterBytes)));
};
template <class Real>
using Vector = typename VectorOf<Real>::type;

template <class Real>
constexpr int Lanes = RegisterBytes / static_cast<int>(sizeof(Real));

template <class Real>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = std::int32_t;
};
template <>
struct IntegerOf<double> {
  using type = std::int64_t;
};
template <class Real>
using Integer = typename IntegerOf<Real>::type;

template <class Real>
inline Vector<Real> load(const Real* from) {
  Vector<Real> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Real>
inline void store(Real* to, Vector<Real> value) {
  std::memcpy(to, &value, sizeof value);
}

template <class Real>
inline Vector<Real> broadcast(Real value) {
  return Vector<Real>{} + value;
}

// The first `count` lanes from memory, zero in the others. 0 <= count <= Lanes.
template <class Real>
inline Vector<Real> load_first(const Real* from, int count) {
  Vector<Real> value{};
  std::memcpy(&value, from, static_cast<std::size_t>(count) * sizeof(Real));
  return value;
}

template <class Real>
inline void store_first(Real* to, Vector<Real> value, int count) {
  std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(Real));
}

template <class Real>
inline Vector<Real> minimum(Vector<Real> a, Vector<Real> b) {
  return b < a ? b : a;  // a where a is not a number
}

template <class Real>
inline Vector<Real> maximum(Vector<Real> a, Vector<Real> b) {
  return b > a ? b : a;
}

// rows[i][j] <- rows[j][i], for a square of Lanes x Lanes held in registers.
template <class Real>
inline void transpose(Vector<Real> (&rows)[Lanes<Real>]) {
  constexpr int N = Lanes<Real>;
  typedef Integer<Real> Index __attribute__((vector_size(RegisterBytes)));
#pragma GCC unroll 4
  for (int half = N / 2; half >= 1; half /= 2) {
    Index low{}, high{};
    for (int j = 0; j < N; ++j) {
      const bool upper = (j & half) != 0;
      low[j] = static_cast<Integer<Real>>(upper ? N + j - half : j);
      high[j] = static_cast<Integer<Real>>(upper ? N + j : j + half);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      if ((i & half) != 0) continue;
      const Vector<Real> a = rows[i], b = rows[i + half];
#if defined(__clang__)
      for (int j = 0; j < N; ++j) {
        rows[i][j] = low[j] < N ? a[low[j]] : b[low[j] - N];
        rows[i + half][j] = high[j] < N ? a[high[j]] : b[high[j] - N];
      }
#else
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + half] = __builtin_shuffle(a, b, high);
#endif
    }
  }
}

}  // namespace longshort::LONGSHORT_ISA
