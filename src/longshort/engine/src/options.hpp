// What the variant and the noise of a call ask of each step, and what a step keeps for the way back.
#pragma once

#include <cmath>

#include "cell.hpp"
#include "philox.hpp"
#include "weights.hpp"

namespace longshort::LONGSHORT_ISA {

// A step's tape, one row for each sequence and step:
//   block by block, `fields` vectors each: i, f, g, o, c_t; beyond the plain cell c~_t; with a norm N(c~_t),
//   and N(z_t), N(r_t) for each gate; then one vector or more of `Statistic`s; then the projection before
//   its clip.
enum Field { FieldI, FieldF, FieldG, FieldO, FieldC, FieldNew, FieldNormC, FieldNormZ, FieldNormR = FieldNormZ + Gates };
enum Statistic { InverseC, InverseZ, InverseR = InverseZ + Gates, Statistics = InverseR + Gates };

template <class Real>
struct Layout {
  Index units, blocks, padded, wide;  // H; its blocks of Lanes; blocks * Lanes; blocks * PanelColumns
  Index fields, statistics, clipped;  // offsets in a tape row, in values
  Index row;                          // values in a tape row

  Layout(const PackedWeights<Real>& w, bool plain) {
    constexpr int L = Lanes<Real>;
    units = w.H;
    blocks = block_count<Real>(w.H);
    padded = blocks * L;
    wide = blocks * PanelColumns<Real>;
    const bool norm = w.variant.norm != Norm::none;
    fields = plain ? TapeFields : norm ? FieldNormR + Gates : FieldNew + 1;
    statistics = blocks * fields * L;
    clipped = statistics + (norm ? ceil_div(Statistics, L) * L : 0);
    row = clipped + (std::isfinite(w.variant.projection_clip) ? ceil_div(w.P, L) * L : 0);
  }
};

// Which of the options a call has, read once.
template <class Real>
struct Options {
  Variant variant;
  Noise noise;
  bool projected;
  bool drops_g, zones_h, zones_c, drops_h;
  bool plain;       // torch.nn.LSTM's cell: plain_cell serves it
  bool normed;      // a step needs whole rows before it can go on
  bool feeds_copy;  // the recurrent product reads a copy of h, masked or with gates behind it
  Real share_h, share_c;  // of the old value, in evaluation

  Options(const PackedWeights<Real>& w, const Noise& n)
      : variant(w.variant), noise(n), projected(w.projected) {
    drops_g = n.training && n.recurrent_dropout > 0;
    drops_h = n.training && n.variational_h > 0;
    zones_h = n.zoneout_h > 0;
    zones_c = n.zoneout_c > 0;
    const Variant& v = variant;
    normed = v.norm != Norm::none;
    plain = !(v.peephole || v.coupled || v.gate_recurrence || !v.input_gate || !v.forget_gate || !v.output_gate ||
              !v.input_activation || !v.output_activation || v.hard_sigmoid || normed || std::isfinite(v.cell_clip) ||
              std::isfinite(v.projection_clip) || projected || drops_g || zones_h || zones_c);
    feeds_copy = drops_h || v.gate_recurrence;
    share_h = static_cast<Real>(n.zoneout_h);
    share_c = static_cast<Real>(n.zoneout_c);
  }

  bool units_may_split() const { return !normed && !projected && !feeds_copy; }
};

// The noise of one row and step; null where there is none of its kind.
template <class Real>
struct RowNoise {
  const Real *g = nullptr;      // factor of the candidate: 0 or 1 / (1 - rate)
  const Real *old_h = nullptr;  // 1 where h keeps its old value, 0 where it is renewed
  const Real *old_c = nullptr;
};

// What each step draws: nothing in evaluation.
template <class Real>
inline StepNoise<Real> step_noise(const Options<Real>& options, Index units, Index outputs) {
  StepNoise<Real> made;
  const Noise& noise = options.noise;
  if (!noise.training) return made;
  if (options.drops_g)
    made.add(RecurrentDropout, units, noise.recurrent_dropout, static_cast<Real>(1 / (1 - noise.recurrent_dropout)), Real(0));
  if (options.zones_h) made.add(ZoneoutH, outputs, noise.zoneout_h, Real(0), Real(1));
  if (options.zones_c) made.add(ZoneoutC, units, noise.zoneout_c, Real(0), Real(1));
  return made;
}

template <class Real>
inline RowNoise<Real> noise_of_row(const StepNoise<Real>& drawn, Index row) {
  return {drawn.of(RecurrentDropout, row), drawn.of(ZoneoutH, row), drawn.of(ZoneoutC, row)};
}

}  // namespace longshort::LONGSHORT_ISA
