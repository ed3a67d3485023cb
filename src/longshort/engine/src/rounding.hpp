// Values of 16-bit types, held in float32: to nearest, ties to even; what is not a number stays so.
#pragma once

#include "simd.hpp"

namespace longshort::LONGSHORT_ISA {

inline Words bits_of(Vector<float> value) {
  Words bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The mantissa cut to 23 - `Dropped` bits; the exponent's range stays float32's.
template <int Dropped>
inline Vector<float> with_short_mantissa(Vector<float> value) {
  constexpr std::uint32_t half = (1u << (Dropped - 1)) - 1, kept = ~((1u << Dropped) - 1);
  const Words bits = bits_of(value), short_bits = (bits + half + ((bits >> Dropped) & 1u)) & kept;
  Vector<float> made;
  std::memcpy(&made, &short_bits, sizeof made);
  return value == value ? made : value + value;  // quiet: one that lies in the bits cut off would become infinite
}

inline Vector<float> rounded_to_bfloat16(Vector<float> value) { return with_short_mantissa<16>(value); }

inline Vector<float> rounded_to_float16(Vector<float> value) {
  constexpr float least_normal = 6.103515625e-5f, infinite = 65536.0f;
  const Vector<float> size = value < 0.0f ? -value : value;
  const Vector<float> steps = (size + 0.75f) - 0.75f, fixed = value < 0.0f ? -steps : steps;  // multiples of 2^-24
  const Vector<float> made = with_short_mantissa<13>(value), made_size = made < 0.0f ? -made : made;
  const Vector<float> limit = made_size >= infinite ? made * broadcast<float>(HUGE_VALF) : made;
  return size < least_normal ? fixed : limit;
}

}  // namespace longshort::LONGSHORT_ISA
