// The cell with every option, forward: equations (3) to (7) of scan/definition.py on one block of units.
//
// The tape of the step carries the values between the two halves, which meet without a gap where there is
// no norm, and on either side of a whole row's mean and variance where there is one.
#pragma once

#include <array>

#include "options.hpp"

namespace longshort::LONGSHORT_ISA {

template <class Real>
inline Vector<Real> squash(const Variant& variant, Vector<Real> a) {
  return variant.hard_sigmoid ? hard_sigmoid<Real>(a) : sigmoid<Real>(a);
}

// d squash / d a, from its value s.
template <class Real>
inline Vector<Real> squash_slope(const Variant& variant, Vector<Real> s) {
  if (!variant.hard_sigmoid) return s * (Real(1) - s);
  const Vector<Real> slope = broadcast<Real>(Real(0.2));
  return s > Real(0) ? (s < Real(1) ? slope : Vector<Real>{}) : Vector<Real>{};
}

// What the first half of a cell hands to the second: a_o before its peephole, and c~ before its norm.
template <class Real>
struct HalfCell {
  Vector<Real> a_o, fresh;
};

// (3), (4): from pre-activations to the gates and c~, before its norm.
//   a: PanelColumns values. fields: this block's part of a tape row; with a norm, whose statistics must come before
//   the second half, O's receives its pre-activation.
template <class Real>
inline HalfCell<Real> gates_of_block(const Options<Real>& options, const PackedWeights<Real>& w, Index block, const Real* a,
                                     const Real* c_before, const RowNoise& noise, Real* fields) {
  constexpr int L = Lanes<Real>;
  const Variant& v = options.variant;
  const Vector<Real> c = load(c_before), one = broadcast<Real>(Real(1));
  Vector<Real> a_i = load(a), a_f = load(a + L);
  const Vector<Real> a_g = load(a + 2 * L), a_o = load(a + 3 * L);
  if (v.peephole) {
    const Real* p = w.peephole + block * PanelColumns<Real>;
    a_i += load(p) * c;
    a_f += load(p + L) * c;
  }
  const Vector<Real> i = v.input_gate ? squash<Real>(v, a_i) : one;
  const Vector<Real> f = v.coupled ? one - i : v.forget_gate ? squash<Real>(v, a_f) : one;
  Vector<Real> g = v.input_activation ? tanh<Real>(a_g) : a_g;
  store(fields + FieldI * L, i);
  store(fields + FieldF * L, f);
  store(fields + FieldG * L, g);
  if (noise.g) g *= lanes_of<Real>(noise.g[block]) ? broadcast<Real>(options.scale_g) : Vector<Real>{};
  Vector<Real> fresh = f * c + i * g;
  if (std::isfinite(v.cell_clip)) fresh = clamp<Real>(fresh, static_cast<Real>(v.cell_clip));
  store(fields + FieldNew * L, fresh);
  if (options.normed) store(fields + FieldO * L, a_o);
  return {a_o, fresh};
}

// What (6) puts under its tanh: c~, or its norm with gain and shift.
template <class Real>
inline Vector<Real> cell_out(const Options<Real>& options, const PackedWeights<Real>& w, Index block, Vector<Real> fresh,
                             const Real* fields) {
  constexpr int L = Lanes<Real>;
  if (options.variant.norm != Norm::ba2016) return fresh;
  return load(w.gain_c + block * L) * load(fields + FieldNormC * L) + load(w.shift_c + block * L);
}

// renewed: the bits of this block, in training.
template <class Real>
inline Vector<Real> zoned(const Options<Real>& options, Vector<Real> old, Vector<Real> fresh, const std::uint32_t* renewed,
                          Real share) {
  if (!options.noise.training) return share * old + (Real(1) - share) * fresh;
  return lanes_of<Real>(*renewed) ? fresh : old;
}

// (5), (6), (7) up to the projection: opens the output gate, returns h~ and moves the cell on.
//   c: the cell before the step, becomes the cell after it.
template <class Real>
inline Vector<Real> output_of_block(const Options<Real>& options, const PackedWeights<Real>& w, Index block,
                                    const HalfCell<Real>& half, Real* fields, Real* c, const RowNoise& noise) {
  constexpr int L = Lanes<Real>;
  const Variant& v = options.variant;
  const Vector<Real> fresh = half.fresh;
  Vector<Real> o = broadcast<Real>(Real(1));
  if (v.output_gate) {
    Vector<Real> a_o = half.a_o;
    if (v.peephole) a_o += load(w.peephole + block * PanelColumns<Real> + 3 * L) * fresh;
    o = squash<Real>(v, a_o);
  }
  store(fields + FieldO * L, o);
  const Vector<Real> out = cell_out<Real>(options, w, block, fresh, fields);
  Vector<Real> after = fresh;
  if (options.zones_c)
    after = zoned<Real>(options, load(c), fresh, noise.old_c ? noise.old_c + block : nullptr, options.share_c);
  store(c, after);
  store(fields + FieldC * L, after);
  return o * (v.output_activation ? tanh<Real>(out) : out);
}

// In float64, in the same order at every call: a mean or a scale that is off moves a whole row.
template <class Real>
inline double sum_of_lanes(Vector<Real> value) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Real) == 4) {
    const __m512 all = (__m512)value;
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(all)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(all, 1))));
  } else {
    return _mm512_reduce_add_pd((__m512d)value);
  }
#else
  Real lanes[Lanes<Real>];
  store(lanes, value);
  double sum = 0;
  for (const Real lane : lanes) sum += lane;
  return sum;
#endif
}

// 1 in the lanes of `block` that are units, 0 in its padding.
template <class Real>
inline Vector<Real> units_of_block(Index block, Index units) {
  alignas(RegisterBytes) static constexpr auto numbers = [] {
    std::array<Real, Lanes<Real>> made{};
    for (int lane = 0; lane < Lanes<Real>; ++lane) made[static_cast<std::size_t>(lane)] = static_cast<Real>(lane);
    return made;
  }();
  const Vector<Real> number = load(numbers.data()), count = broadcast<Real>(static_cast<Real>(units - block * Lanes<Real>));
  return number < count ? broadcast<Real>(Real(1)) : Vector<Real>{};
}

// N over a row of `count` values, of which the sum is known: centred, then times `inverse`.
template <class Real>
struct Normal {
  Normal(Vector<Real> sum, double count) : mean(static_cast<Real>(sum_of_lanes<Real>(sum) / count)) {}
  void scale(Vector<Real> squares, double count, double eps) { inverse = static_cast<Real>(1 / std::sqrt(sum_of_lanes<Real>(squares) / count + eps)); }
  Real mean, inverse = 0;
};

// N over a row that stands in blocks: at(block) points to Lanes values.
// Calls out(block, normalised vector); returns 1 / sqrt(var + eps).
template <class Real, class At, class Out>
inline Real normalise(Index units, double eps, At at, Out out) {
  const Index blocks = block_count<Real>(units);
  const double count = static_cast<double>(units);
  const Vector<Real> last = units_of_block<Real>(blocks - 1, units);
  Vector<Real> sum{}, squares{};
  for (Index block = 0; block < blocks; ++block) sum += load(at(block));
  Normal<Real> norm(sum, count);
  const auto centred = [&](Index block) {
    const Vector<Real> value = load(at(block)) - norm.mean;
    return block == blocks - 1 ? value * last : value;
  };
  for (Index block = 0; block < blocks; ++block) {
    const Vector<Real> value = centred(block);
    squares += value * value;
  }
  norm.scale(squares, count, eps);
  for (Index block = 0; block < blocks; ++block) out(block, centred(block) * norm.inverse);
  return norm.inverse;
}

// The gates that are computed, in order: the parts of a row's norm.
struct GateList {
  int gate[Gates];
  int count = 0;
  explicit GateList(const Variant& variant) {
    for (int q = 0; q < Gates; ++q)
      if (variant.computes(q)) gate[count++] = q;
  }
};

}  // namespace longshort::LONGSHORT_ISA
