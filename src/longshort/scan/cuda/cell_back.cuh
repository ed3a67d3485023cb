// One unit on its way back, from what arrives at its h and c to ā and c̄ before the step: (12) to (17).
#pragma once
#include "call.cuh"

namespace longshort {

// The norm of the cell of one row, where there is one, and what it has of the unit at hand.
template <class R>
struct CellNorm {
  R mean, scale;       // of c̃ before the norm, and 1 / sqrt(var + eps)
  R mean_q, mean_dot;  // of q and q ⊙ N, for its derivative; q = γ_c ⊙ the gradient of the norm's result
  R raw, gain, shift;  // c̃ before the norm, γ_c and β_c of the unit
  DEVICE_MEMBER R hat() const { return (raw - mean) * scale; }
};

template <class F>
DEVICE bool norms_cell(const F& has) {
  return has(NormsOutput) || has(NormsGates);
}

// N'(d) of one element, from the means of d and d ⊙ N over its row.
template <class R>
DEVICE R through_norm(R d, R hat, R mean_d, R mean_dot, R scale) {
  return (d - mean_d - hat * mean_dot) * scale;
}

template <int Units, class A>
DEVICE void add_sums(const A& a, Index n, Index block, Index u, const typename A::Wide (&values)[Units]) {
  if (block >= 0) accumulate(a.sums + (n * a.sum_count + block) * a.H + u, values);
}

// What the masks decide of one cell: `keeps_candidates`, `renews_cells`.
struct Masked {
  bool keep, renews;
};

// c̃ of (4) before a norm: off the tape, or made again as forward.
template <class A, class F>
DEVICE typename A::Wide cell_again(const A& a, const F& has, const Cell<typename A::Wide>& v, const Recalled<A>& was,
                                   const Masked& masked) {
  using R = typename A::Wide;
  const R mask = candidate_mask(a, has, masked.keep);
  if (tape_has_cell(has, masked.renews)) return was.cell;
  const R cell = fused(v.i, has(MasksCandidate) ? v.g * mask : v.g, v.f * was.before);
  return has(ClipsCell) ? clipped(cell, R(a.cell_clip)) : cell;
}

// was: of `recall`. m: gradient of o ⊙ φ. extra: what reaches the gates from outside. dc: c̄ after the step, becomes c̄ before it.
// a_bar: ā of i, f, g, o; 0 for an absent gate. Returns the gradient of the result of the cell's norm. With `first` only
// that and ā_o are made, and nothing is moved; otherwise `norm` holds the means over the row that come of it.
template <class A, class F, class R = typename A::Wide>
DEVICE R unit_back(const A& a, const F& has, Index n, Index s, Index u, const Masked& masked, const Peepholes<R>& p,
                   const Recalled<A>& was, const CellNorm<R>& norm, bool first, R m, const Extra<R>& extra, R& dc,
                   R (&a_bar)[4]) {
  using E = typename A::Element;
  const Index t = time_of(a, has, s);
  Cell<R> v = opened<A>(has, was);
  const R c_before = was.before, mask = candidate_mask(a, has, masked.keep);
  const R raw = norms_cell(has) ? norm.raw : cell_again(a, has, v, was, masked);
  const R normed = norms_cell(has) ? norm.hat() * norm.gain + norm.shift : raw;
  v.cell = has(NormsGates) ? normed : raw;
  const R phi = activated<E>(has, has(NormsOutput) ? normed : v.cell);
  R arrived = dc, past = R(0);
  if (has(KeepsCells) && a.dcells) arrived += was.arriving;
  R renewed = arrived;
  if (has(ZonesCell) && !masked.renews) past = arrived, renewed = R(0);
  if (has(MixesCell)) renewed = R(a.share_c) * arrived, past = (R(1) - R(a.share_c)) * arrived;
  a_bar[3] = output_slope(has, v, m, phi, extra.o);  // (12)
  const R through = through_output(has, v, m, phi);  // (13)
  R d = renewed + (has(Peephole) ? p.o * a_bar[3] : R(0)), q = through;
  if (has(NormsGates))
    q = d + through;
  else if (!has(NormsOutput))
    d += through;
  if (norms_cell(has)) {
    if (first) return q;
    const R before = through_norm(R(q * norm.gain), norm.hat(), norm.mean_q, norm.mean_dot, norm.scale);
    d = has(NormsGates) ? before : d + before;
  }
  if (has(ClipsCell) && (raw <= -R(a.cell_clip) || raw >= R(a.cell_clip))) d = R(0);  // (14)
  gate_slopes(has, v, d, c_before, mask, extra, a_bar);
  dc = past + cell_gradient_before(has, v, d, a_bar, p);
  if (has(Peephole)) {
    R* sums = a.sums + (n * static_cast<Index>(a.sum_count) + static_cast<Index>(a.sum_peephole)) * a.H + u;
    if (a.sigmoid_i >= 0) add(sums + a.sigmoid_i * a.H, R(a_bar[0] * c_before));
    if (a.sigmoid_f >= 0) add(sums + a.sigmoid_f * a.H, R(a_bar[1] * c_before));
    if (a.sigmoid_o >= 0) add(sums + a.sigmoid_o * a.H, R(a_bar[3] * v.cell));
  }
  if (has(Projected) && a.unprojected_all) a.unprojected_all[(t * a.N + n) * a.H + u] = v.o * phi;
  return q;
}
template <class A, class F, class R = typename A::Wide>
DEVICE R unit_back(const A& a, const F& has, Index n, Index s, Index u, const Masked& masked, const Recalled<A>& was,
                   const CellNorm<R>& norm, bool first, R m, const Extra<R>& extra, R& dc, R (&a_bar)[4]) {
  const Peepholes<R> p = peepholes_of(a, has, u);
  return unit_back(a, has, n, s, u, masked, p, was, norm, first, m, extra, dc, a_bar);
}

}  // namespace longshort
