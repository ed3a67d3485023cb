// Vectors of the instruction set this file is compiled for, through the compiler's vector types.
//
// Everything that depends on the set lives in the namespace LONGSHORT_ISA, so the same source can be
// linked once per set. RegisterBytes and RegisterCount are all that the sets differ in here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

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

typedef std::uint32_t Words __attribute__((vector_size(RegisterBytes)));
typedef std::uint64_t WideWords __attribute__((vector_size(RegisterBytes)));
constexpr int WordLanes = RegisterBytes / 4;

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
  return value - Vector<Real>{};  // minus zero changes no value, so this is a plain broadcast
}

// The first `count` lanes from memory, zero in the others, and back to memory. 0 <= count <= Lanes.
template <class Real>
inline Vector<Real> load_first(const Real* from, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) return (Vector<Real>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
  else return (Vector<Real>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
#else
  Vector<Real> value{};
  std::memcpy(&value, from, static_cast<std::size_t>(count) * sizeof(Real));
  return value;
#endif
}

template <class Real>
inline void store_first(Real* to, Vector<Real> value, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
  else _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)value);
#else
  std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(Real));
#endif
}

// For `?:` between vectors: true in the lanes whose bit is set.
template <class Real>
inline auto lanes_of(std::uint32_t bits) {
  typedef Integer<Real> Mask __attribute__((vector_size(RegisterBytes)));
  Mask own{};
  for (int lane = 0; lane < Lanes<Real>; ++lane) own[lane] = Integer<Real>{1} << lane;
  return ((Mask{} + static_cast<Integer<Real>>(bits)) & own) != Integer<Real>{0};
}

// minimum, maximum: b where either is not a number.
// nearest, scale: the nearest integers n, and e * 2^n for those n. |a| <= 1100, and 2^n must be a normal number.
// reciprocal: 1 / a to within a unit in the last place, for 2^-100 < |a| < 2^100.
#if defined(__AVX512F__)
inline Vector<float> minimum(Vector<float> a, Vector<float> b) { return (Vector<float>)_mm512_min_ps((__m512)a, (__m512)b); }
inline Vector<float> maximum(Vector<float> a, Vector<float> b) { return (Vector<float>)_mm512_max_ps((__m512)a, (__m512)b); }
inline Vector<double> minimum(Vector<double> a, Vector<double> b) { return (Vector<double>)_mm512_min_pd((__m512d)a, (__m512d)b); }
inline Vector<double> maximum(Vector<double> a, Vector<double> b) { return (Vector<double>)_mm512_max_pd((__m512d)a, (__m512d)b); }
inline Vector<float> nearest(Vector<float> a) { return (Vector<float>)_mm512_roundscale_ps((__m512)a, 8); }
inline Vector<double> nearest(Vector<double> a) { return (Vector<double>)_mm512_roundscale_pd((__m512d)a, 8); }
inline Vector<float> scale(Vector<float> e, Vector<float> n) { return (Vector<float>)_mm512_scalef_ps((__m512)e, (__m512)n); }
inline Vector<double> scale(Vector<double> e, Vector<double> n) { return (Vector<double>)_mm512_scalef_pd((__m512d)e, (__m512d)n); }
inline Vector<float> reciprocal(Vector<float> a) {
  const __m512 guess = _mm512_rcp14_ps((__m512)a);
  const __m512 short_by = _mm512_fnmadd_ps((__m512)a, guess, _mm512_set1_ps(1.0f));  // exact only because it is fused
  return (Vector<float>)_mm512_fmadd_ps(guess, short_by, guess);
}
inline Vector<double> reciprocal(Vector<double> a) { return 1.0 / a; }
#else
template <class V>
inline V minimum(V a, V b) {
  return a < b ? a : b;
}
template <class V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}
template <class V>
inline V nearest(V a) {
  using Real = std::remove_reference_t<decltype(a[0])>;
  constexpr Real shift = sizeof(Real) == 4 ? Real(12582912.0) : Real(6755399441055744.0);  // 1.5 * 2^(mantissa bits)
  return (a + shift) - shift;
}
template <class V>
inline V scale(V e, V n) {
  using Real = std::remove_reference_t<decltype(e[0])>;
  typedef Integer<Real> Bits __attribute__((vector_size(RegisterBytes)));
  constexpr int mantissa = sizeof(Real) == 4 ? 23 : 52;
  constexpr Integer<Real> bias = sizeof(Real) == 4 ? 127 : 1023;
  const Bits power = (__builtin_convertvector(n, Bits) + bias) << mantissa;
  V factor;
  std::memcpy(&factor, &power, sizeof power);
  return e * factor;
}
template <class V>
inline V reciprocal(V a) {
  using Real = std::remove_reference_t<decltype(a[0])>;
  return Real(1) / a;
}
#endif

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
