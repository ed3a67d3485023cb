// Where things stand in a call: steps, lengths, resets, the state on its way to the next step. Both plans use it.
#pragma once
#include "cell.cuh"

namespace longshort {

template <class A, class F>
DEVICE Index time_of(const A& a, const F& has, Index s) {
  return has(Reversed) ? a.T - 1 - s : s;
}

// The row of y, cells and gates at (n, t).
template <class A>
DEVICE Index row_of(const A& a, Index n, Index t) {
  return n * a.row_n + t * a.row_t;
}

// The row of an arriving gradient at (n, t).
DEVICE Index at_strides(Index n, i64 stride_n, Index t, i64 stride_t) {
  return n * static_cast<Index>(stride_n) + t * static_cast<Index>(stride_t);
}

// (8): whether step t of sequence n is one of its own.
template <class A, class F>
DEVICE bool active(const A& a, const F& has, Index n, Index t) {
  return !has(Ragged) || t < constant(a.lengths + n);
}

// (0); a reset in the padding is none.
template <class A, class F>
DEVICE bool resets(const A& a, const F& has, Index n, Index t) {
  return has(Resets) && constant(a.reset + n * a.T + t) && active(a, has, n, t);
}

// The reset of step s as it lies there, to be asked for before it is needed.
template <class A, class F>
DEVICE u8 asked_reset(const A& a, const F& has, Index n, Index s) {
  return has(Resets) ? constant(a.reset + n * a.T + time_of(a, has, s)) : u8(0);
}

template <class A, class F>
DEVICE bool resets_after(const A& a, const F& has, Index n, Index s) {
  return s + 1 < a.T && resets(a, has, n, time_of(a, has, s + 1));
}

// What lengths and resets say of a sequence at step s; before the first step nothing is its own.
struct Moment {
  bool on;     // the step is one of its own
  bool again;  // the step after it starts from a reset
};
template <class A, class F>
DEVICE Moment moment(const A& a, const F& has, Index n, Index s) {
  return {s >= 0 && active(a, has, n, time_of(a, has, s)), resets_after(a, has, n, s)};
}

template <class A>
DEVICE u64 seed_of(const A& a) {
  return a.seed ? static_cast<u64>(constant(a.seed)) : 0;
}

template <class A, class F>
DEVICE Index state_row(const A& a, const F& has) {
  return has(GateRecurrence) ? a.H + a.S * a.H : Index(a.H);
}

template <class A>
DEVICE typename A::Wide weight_at(const typename A::Element* weight, Index block, Index H, Index u) {
  using R = typename A::Wide;
  return weight && block >= 0 ? static_cast<R>(wide(constant(weight + block * H + u))) : R(0);
}

// The bias of (2): of two the sum, rounded as it would be before the launch.
template <class A>
DEVICE typename A::Wide bias_at(const A& a, Index block, Index u) {
  const auto first = weight_at<A>(a.bias, block, a.H, u);
  if (!a.bias_hh) return first;
  typename A::Element sum;
  narrow(first + weight_at<A>(a.bias_hh, block, a.H, u), sum);
  return static_cast<typename A::Wide>(wide(sum));
}

template <class A, class F>
DEVICE Peepholes<typename A::Wide> peepholes_of(const A& a, const F& has, Index u) {
  Peepholes<typename A::Wide> p = {0, 0, 0};
  if (has(Peephole)) {
    p.i = weight_at<A>(a.peephole, a.sigmoid_i, a.H, u);
    p.f = weight_at<A>(a.peephole, a.sigmoid_f, a.H, u);
    p.o = weight_at<A>(a.peephole, a.sigmoid_o, a.H, u);
  }
  return p;
}

// What the masks of (1), (4) and (7) keep of adjacent units, from k on, at step t; without a mask, all.
template <int Units>
struct Keeps {
  bool of[Units];
  DEVICE_MEMBER bool operator[](int j) const { return of[j]; }
};
template <int Units, class A>
DEVICE Keeps<Units> keeps(const A& a, bool masked, Stream stream, i64 t, Index n, Index k, i64 least) {
  Keeps<Units> found;
  UNROLL for (int j = 0; j < Units; ++j) found.of[j] = true;
  if (masked) kept(seed_of(a), stream, t, n, k, least, found.of);
  return found;
}
template <int Units, class A, class F>
DEVICE Keeps<Units> keeps_hidden(const A& a, const F& has, Index n, Index k) {
  return keeps<Units>(a, has(MasksHidden), VariationalH, 0, n, k, a.least_h);
}
template <int Units, class A, class F>
DEVICE Keeps<Units> keeps_candidates(const A& a, const F& has, Index n, Index t, Index u) {
  return keeps<Units>(a, has(MasksCandidate), RecurrentDropout, a.first + t, n, u, a.least_g);
}
template <int Units, class A, class F>
DEVICE Keeps<Units> renews_outputs(const A& a, const F& has, Index n, Index t, Index k) {
  return keeps<Units>(a, has(ZonesHidden), ZoneoutH, a.first + t, n, k, a.least_zone_h);
}
template <int Units, class A, class F>
DEVICE Keeps<Units> renews_cells(const A& a, const F& has, Index n, Index t, Index u) {
  return keeps<Units>(a, has(ZonesCell), ZoneoutC, a.first + t, n, u, a.least_zone_c);
}

// m_g of (4).
template <class A, class F>
DEVICE typename A::Wide candidate_mask(const A& a, const F& has, bool keep) {
  using R = typename A::Wide;
  return !has(MasksCandidate) ? R(1) : keep ? R(a.scale_g) : R(0);
}

// The same NaN whatever came in: a given NaN may have every bit set, which the exchange reads as "not there yet".
template <class E>
DEVICE E canonical(E v) {
  if (wide(v) != wide(v)) narrow(static_cast<decltype(wide(v))>(float_of(0x7fc00000u)), v);
  return v;
}

// The same of a number that was narrowed: to 16 bits, all NaN become one, which has not every bit set.
template <class E>
DEVICE E unmarked(E v) {
  return sizeof(E) == 2 ? v : canonical(v);
}

template <class E>
DEVICE E kept_or_zero(bool keep, E h) {
  E zero;
  narrow(decltype(wide(h))(0), zero);
  return keep ? h : zero;
}

// What a number of type E holds of a wider one, which keeps the rest; nothing is left of what is not finite.
template <class E, class R>
DEVICE E taken(R& v) {
  E rounded;
  narrow(v, rounded);
  const R left = v - wide(rounded);
  v = left - left == R(0) ? left : R(0);
  return rounded;
}

// The operand of the next product: h where variational_h keeps it. Its scale is applied to the product.
template <class E>
DEVICE E operand_of(bool keep, E h) {
  return kept_or_zero(keep, canonical(h));
}

template <class A>
DEVICE typename A::Element initial_h_at(const A& a, Index n, Index k) {
  typename A::Element zero;
  narrow(typename A::Wide(0), zero);
  return a.initial_h ? a.initial_h[n * a.P + k] : zero;
}

// k counts through (H + S H): the cell, then the gates of the step before.
template <class A, class F>
DEVICE typename A::Wide initial_c_at(const A& a, const F& has, Index n, Index k) {
  return a.initial_c ? a.initial_c[n * state_row(a, has) + k] : typename A::Wide(0);
}

// (6) from the projection's clip on, (7), (8) for output k. fresh: h̃. before: h of the step before. Returns h after
// the step, which y sees but for the padding. on: of `Moment`. renews: of `renews_outputs`.
template <class A, class F>
DEVICE typename A::Element renewed_output(const A& a, const F& has, Index n, Index k, Index t, bool on, bool renews,
                                          typename A::Wide fresh, typename A::Element before,
                                          typename A::Element& seen) {
  using R = typename A::Wide;
  typename A::Element rounded;
  if (has(ClipsProjection)) {
    const R most = R(a.projection_clip);
    if (a.unclipped) a.unclipped[(t * a.N + n) * a.P + k] = !(fresh < -most || fresh > most);
    fresh = clipped(fresh, most);
  }
  if (has(ZonesHidden) && !renews) fresh = wide(before);
  if (has(MixesHidden)) fresh = mixed(R(wide(before)), fresh, R(a.share_h));
  narrow(fresh, rounded);
  seen = rounded;
  if (!on) {
    rounded = before;
    narrow(R(0), seen);
  }
  return rounded;
}

// (7), (8) for the cell: returns c after the step, before a reset of the next. renews: of `renews_cells`.
template <class A, class F>
DEVICE typename A::Wide finish_cell(const A& a, const F& has, bool renews, typename A::Wide fresh,
                                    typename A::Wide before) {
  using R = typename A::Wide;
  if (has(ZonesCell) && !renews) fresh = before;
  if (has(MixesCell)) fresh = mixed(before, fresh, R(a.share_c));
  return fresh;
}

// Whether the tape holds gates as type R: with a norm, sums of the way back cancel, and show a gate's rounding.
template <class F>
DEVICE bool tapes_wide(const F& has) {
  return has(NormsProducts) || has(NormsGates);
}

// Where the cells of (n, t) are on the tape, which is `cells` where a call returns those.
template <class A, class F>
DEVICE Index taped_cells(const A& a, const F& has, Index n, Index t) {
  return (has(KeepsCells) ? row_of(a, n, t) : t * a.N + n) * a.H;
}

// ---- the way back

template <class R>
DEVICE void add(R* to, R value) {
  const R values[1] = {value};
  accumulate(to, values);
}

// What memory holds of one cell at step s for the way back, as it lies there: nothing on the way back changes it, so
// it is asked for before a product is waited for. Padding has nothing; its fields are not read.
template <class A>
struct Recalled {
  typename A::Element gates[4];
  typename A::Wide wide_gates[4];  // instead, where `tapes_wide`
  typename A::Wide cell, before;   // the cell after the step, and c_{t-1}
  typename A::Wide arriving;       // the gradient that arrives at the cell from outside
};

template <class A, class F>
DEVICE typename A::Wide cell_gradient(const A& a, const F& has, Index n, Index t, Index u) {
  return has(KeepsCells) && a.dcells ? a.dcells[at_strides(n, a.dcells_n, t, a.dcells_t) + u] : typename A::Wide(0);
}

template <class A, class F>
DEVICE Cell<typename A::Wide> opened(const F& has, const Recalled<A>& r) {
  using Held = Tape<typename A::Element, typename A::Wide>;
  const auto held = [&](int gate) { return tapes_wide(has) ? r.wide_gates[gate] : wide(r.gates[gate]); };
  Cell<typename A::Wide> v;
  v.i = Held::sigmoid(held(0));
  v.f = Held::sigmoid(held(1));
  v.g = Held::candidate(held(2), has(LinearInput));
  v.o = Held::sigmoid(held(3));
  return v;
}

// A gate of i, f, o, from its place on the tape.
template <class A, class F>
DEVICE typename A::Wide taped_sigmoid(const A& a, const F& has, Index at) {
  using Held = Tape<typename A::Element, typename A::Wide>;
  return Held::sigmoid(tapes_wide(has) ? reinterpret_cast<const typename A::Wide*>(a.tape_gates)[at]
                                       : wide(a.tape_gates[at]));
}

// What arrives at output k of step s from outside, as it lies there; 0 in the padding and before the first step.
template <class A, class F>
DEVICE typename A::Element output_gradient(const A& a, const F& has, Index n, Index k, Index s) {
  const Index t = time_of(a, has, s);
  typename A::Element dy;
  narrow(typename A::Wide(0), dy);
  if (a.dy && s >= 0 && active(a, has, n, t)) dy = a.dy[at_strides(n, a.dy_n, t, a.dy_t) + k];
  return dy;
}

// Whether the taped cell is c̃ itself; else c̃ is made again from the gates.
template <class F>
DEVICE bool tape_has_cell(const F& has, bool renews) {
  return !has(NormsGates) && !has(MixesCell) && (!has(ZonesCell) || renews);
}

// (9), (10), (11) and (18), (19) of the step after, for output k. product: W_hh' dr of the step after; dy: of
// output_gradient; keep, renews: of `keeps_hidden`, `renews_outputs`. Returns h̄' of the projection's value (0 in the
// padding) and moves `past`, what reaches h past the product.
template <class A, class F>
DEVICE typename A::Wide arriving_output(const A& a, const F& has, Index n, Index k, Index s, Moment now, bool keep,
                                        bool renews, typename A::Wide product, typename A::Element dy,
                                        typename A::Wide& past) {
  using R = typename A::Wide;
  R scaled = product;
  if (has(MasksHidden)) scaled = keep ? product * R(a.scale_h) : R(0);
  R total = past + scaled;
  if (now.again && a.dh_initial) add(a.dh_initial + n * a.P + k, total);  // (19)
  if (now.again) total = R(0);
  if (!now.on) {  // (20)
    past = total;
    return R(0);
  }
  total += wide(dy);
  R renewed = total;
  past = R(0);
  if (has(ZonesHidden) && !renews) {
    past = total;
    renewed = R(0);
  }
  if (has(MixesHidden)) {
    renewed = R(a.share_h) * total;
    past = (R(1) - R(a.share_h)) * total;
  }
  if (has(ClipsProjection) && !a.unclipped[(time_of(a, has, s) * a.N + n) * a.P + k]) renewed = R(0);
  return renewed;
}
template <class A, class F>
DEVICE typename A::Wide arriving_output(const A& a, const F& has, Index n, Index k, Index s, bool keep, bool renews,
                                        typename A::Wide product, typename A::Element dy, typename A::Wide& past) {
  return arriving_output(a, has, n, k, s, moment(a, has, n, s), keep, renews, product, dy, past);
}

// (19) for the cell and the gates behind it: what reaches element k of (H + S H) before the step after.
template <class A, class F>
DEVICE typename A::Wide arriving_state(const A& a, const F& has, Index n, Index k, Moment now, typename A::Wide total) {
  if (now.again && a.dc_initial) add(a.dc_initial + n * state_row(a, has) + k, total);
  return now.again ? typename A::Wide(0) : total;
}
template <class A, class F>
DEVICE typename A::Wide arriving_state(const A& a, const F& has, Index n, Index k, Index s, typename A::Wide total) {
  return arriving_state(a, has, n, k, moment(a, has, n, s), total);
}

// ḡ_kept.
template <class A, class F>
DEVICE Extra<typename A::Wide> kept_gradient(const A& a, const F& has, Index n, Index t, Index u) {
  Extra<typename A::Wide> extra = {0, 0, 0, 0};
  if (has(KeepsGates) && a.dgates) {
    const typename A::Wide* row = a.dgates + at_strides(n, a.dgates_n, t, a.dgates_t) + u;
    extra.i = row[0];
    extra.f = row[a.H];
    extra.g = row[2 * a.H];
    extra.o = row[3 * a.H];
  }
  return extra;
}

}  // namespace longshort
