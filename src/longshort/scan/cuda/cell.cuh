// One cell of one sequence, both ways: the equations of scan/definition.py and scan/derivative.py that touch no
// other cell. Both plans call these; what spans a row (norms, products) is theirs.
#pragma once
#include "arguments.cuh"
#include "philox.cuh"

namespace longshort {

// tanh and sigmoid as exact as the type of x, or of its products, deserves.
template <class E>
struct Activation {  // double
  DEVICE_MEMBER static double tanh(double v) { return hyperbolic(v); }
  DEVICE_MEMBER static double sigmoid(double v) { return 1.0 / (1.0 + exponential(-v)); }
  DEVICE_MEMBER static double gate(double v, bool candidate) { return candidate ? tanh(v) : sigmoid(v); }
};
// To two units in the last place, and without a branch: the functions and the division of CUDA's library have some, which
// keep the activations of a cell from running side by side.
template <>
struct Activation<float> {
  DEVICE_MEMBER static float tanh(float v) {
    return nearly(v, fused(-2.0f, inverse(1.0f + exponential(2.0f * magnitude(v))), 1.0f));
  }
  DEVICE_MEMBER static float sigmoid(float v) { return inverse(1.0f + exponential(-v)); }
  // Of the candidate tanh, of other gates sigmoid: what both share is made once, for lanes may differ in it.
  DEVICE_MEMBER static float gate(float v, bool candidate) {
    const float shared = inverse(1.0f + exponential(either(candidate, 2.0f * magnitude(v), -v)));
    return either(candidate, nearly(v, fused(-2.0f, shared, 1.0f)), shared);
  }
  // far: tanh |v|, which is exact to units of 1: near zero v has smaller ones, and the odd polynomial is taken that errs
  // least there, relatively, by 8e-9. NaN is not near.
  DEVICE_MEMBER static float nearly(float v, float far) {
    const float square = v * v;
    float p = fused(1.4401950e-3f, square, -7.1428623e-3f);
    p = fused(p, square, 2.1121122e-2f);
    p = fused(p, square, -5.3796474e-2f);
    p = fused(p, square, 1.3331480e-1f);
    p = fused(p, square, -3.3333266e-1f);
    return either(magnitude(v) < 0.85f, fused(p, v * square, v), with_sign_of(v, far));
  }
};
// float32 whose products are rounded to tf32: 2^-11 of what the activations take.
struct Tf32 {};
template <>
struct Activation<Tf32> {
  DEVICE_MEMBER static float tanh(float v) {
    const float far = fused(-2.0f, inverse_short(1.0f + exponential_short(2.0f * magnitude(v))), 1.0f);
    return Activation<float>::nearly(v, far);
  }
  DEVICE_MEMBER static float sigmoid(float v) { return inverse_short(1.0f + exponential_short(-v)); }
  DEVICE_MEMBER static float gate(float v, bool candidate) {
    const float shared = inverse_short(1.0f + exponential_short(either(candidate, 2.0f * magnitude(v), -v)));
    return either(candidate, Activation<float>::nearly(v, fused(-2.0f, shared, 1.0f)), shared);
  }
};
struct ShortActivation {
  DEVICE_MEMBER static float tanh(float v) {
    return fused(-2.0f, inverse_short(1.0f + exponential_short(2.0f * v)), 1.0f);
  }
  DEVICE_MEMBER static float sigmoid(float v) { return inverse_short(1.0f + exponential_short(-v)); }
  DEVICE_MEMBER static float gate(float v, bool candidate) {
    const float shared = inverse_short(1.0f + exponential_short(either(candidate, 2.0f * v, -v)));
    return either(candidate, fused(-2.0f, shared, 1.0f), shared);
  }
};
template <>
struct Activation<bfloat16> : ShortActivation {};
template <>
struct Activation<float16> : ShortActivation {};

// NaN passes: it is neither below nor above.
template <class R>
DEVICE R clipped(R v, R most) {
  return v < -most ? -most : v > most ? most : v;
}

template <class E, class R, class F>
DEVICE R squash(const F& has, R a) {
  if (!has(HardSigmoid)) return Activation<E>::sigmoid(a);
  const R v = fused(R(0.2), a, R(0.5));
  return v < R(0) ? R(0) : v > R(1) ? R(1) : v;
}

// σ' from the value of σ.
template <class R, class F>
DEVICE R slope(const F& has, R value) {
  if (!has(HardSigmoid)) return value * (R(1) - value);
  return value > R(0) && value < R(1) ? R(0.2) : value != value ? value : R(0);
}

// How the tape holds gates. Rounded to 16 bits, a saturated gate would be 1 and its slope 0, so a sigmoid above a
// half is held as its distance from 1, with a minus sign, and g as its pre-activation.
template <class E, class R>
struct Tape {
  DEVICE_MEMBER static R of_sigmoid(R v) { return v; }
  DEVICE_MEMBER static R sigmoid(R held) { return held; }
  DEVICE_MEMBER static R of_candidate(R, R g) { return g; }
  DEVICE_MEMBER static R candidate(R held, bool) { return held; }
};
struct ShortTape {
  DEVICE_MEMBER static float of_sigmoid(float v) { return v > 0.5f ? -(1.0f - v) : v; }
  DEVICE_MEMBER static float sigmoid(float held) { return bits_of(held) >> 31 ? 1.0f + held : held; }
  DEVICE_MEMBER static float of_candidate(float a, float) { return a; }
  DEVICE_MEMBER static float candidate(float held, bool linear) {
    return linear ? held : ShortActivation::tanh(held);
  }
};
template <>
struct Tape<bfloat16, float> : ShortTape {};
template <>
struct Tape<float16, float> : ShortTape {};

// The gates of one cell after their activation, and c̃ of (4).
template <class R>
struct Cell {
  R i, f, g, o, cell;
  R a_g;  // pre-activation of g, forward
};

template <class R>
struct Peepholes {
  R i, f, o;
};

// (4) up to the norm, from the gates.
template <class R, class F>
DEVICE void close_cell(const F& has, R c, R mask, R clip, Cell<R>& v) {
  v.cell = fused(v.i, has(MasksCandidate) ? v.g * mask : v.g, v.f * c);
  if (has(ClipsCell)) v.cell = clipped(v.cell, clip);
}

// (2) the peepholes, (3), (4) up to the norm. a: pre-activations i, f, g, o, of which absent gates are not read.
template <class E, class R, class F>
DEVICE void open_gates(const F& has, const R (&a)[4], R c, const Peepholes<R>& p, R mask, R clip, Cell<R>& v) {
  const R a_i = has(Peephole) ? fused(p.i, c, a[0]) : a[0];
  const R a_f = has(Peephole) ? fused(p.f, c, a[1]) : a[1];
  v.i = has(NoInputGate) ? R(1) : squash<E>(has, a_i);
  v.f = has(Coupled) ? R(1) - v.i : has(NoForgetGate) ? R(1) : squash<E>(has, a_f);
  v.a_g = a[2];
  v.g = has(LinearInput) ? a[2] : Activation<E>::tanh(a[2]);
  close_cell(has, c, mask, clip, v);
}

// (5)
template <class E, class R, class F>
DEVICE void open_output(const F& has, R a_o, const Peepholes<R>& p, Cell<R>& v) {
  v.o = has(NoOutputGate) ? R(1) : squash<E>(has, has(Peephole) ? fused(p.o, v.cell, a_o) : a_o);
}

// The activation of (6).
template <class E, class R, class F>
DEVICE R activated(const F& has, R out) {
  return has(LinearOutput) ? out : Activation<E>::tanh(out);
}

// (7) in evaluation, or in training where `renewed` says what the mask decided.
template <class R>
DEVICE R mixed(R old, R fresh, R share) {
  return (R(1) - share) * old + share * fresh;
}

// What reaches the values of the gates from outside the cell: s̄ and ḡ_kept of (12) and (15).
template <class R>
struct Extra {
  R i, f, g, o;
};

// (12): m is the gradient of o ⊙ φ. Returns ā_o.
template <class R, class F>
DEVICE R output_slope(const F& has, const Cell<R>& v, R m, R phi, R extra) {
  return has(NoOutputGate) ? R(0) : fused(m, phi, extra) * slope(has, v.o);
}

// (13): the gradient that reaches c̃, or its norm, through h̃.
template <class R, class F>
DEVICE R through_output(const F& has, const Cell<R>& v, R m, R phi) {
  return has(LinearOutput) ? m * v.o : m * v.o * (R(1) - phi * phi);
}

// (15), (16): d is c̃̄. Writes ā of i, f, g; an absent gate has none.
template <class R, class F>
DEVICE void gate_slopes(const F& has, const Cell<R>& v, R d, R c_before, R mask, const Extra<R>& extra, R (&a)[4]) {
  const R g = has(MasksCandidate) ? v.g * mask : v.g, i = has(MasksCandidate) ? v.i * mask : v.i;
  a[0] = has(NoInputGate) ? R(0)
                          : fused(d, has(Coupled) ? g - c_before : g, has(Coupled) ? extra.i - extra.f : extra.i) *
                                slope(has, v.i);
  a[1] = has(Coupled) || has(NoForgetGate) ? R(0) : fused(d, c_before, extra.f) * slope(has, v.f);
  a[2] = fused(d, i, extra.g);
  if (!has(LinearInput)) a[2] *= R(1) - v.g * v.g;
}

// (17) but for what zoneout left of c̄.
template <class R, class F>
DEVICE R cell_gradient_before(const F& has, const Cell<R>& v, R d, const R (&a)[4], const Peepholes<R>& p) {
  R before = d * v.f;
  if (has(Peephole)) before = fused(p.i, a[0], fused(p.f, a[1], before));
  return before;
}

}  // namespace longshort
