// What the variant and the noise of a call ask of each step, and what a step keeps for the way back.
#pragma once

#include <cmath>

#include "cell.hpp"
#include "philox.hpp"
#include "weights.hpp"

namespace longshort::LONGSHORT_ISA {

// Which of the options a call has, read once.
template <class Real>
struct Options {
  Variant variant;
  Noise noise;
  bool projected;
  bool drops_g, zones_h, zones_c, drops_h;
  bool plain;       // torch.nn.LSTM's cell: PlainCell serves it
  bool normed;      // a step needs whole rows before it can go on
  bool feeds_copy;  // the recurrent product reads a copy of h, masked or with gates behind it
  Real share_h, share_c;  // of the old value, in evaluation
  Real scale_g;           // of a candidate that survives dropout

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
    scale_g = static_cast<Real>(1 / (1 - n.recurrent_dropout));
  }

  bool units_may_split() const { return !normed && !projected && !feeds_copy; }
};

// A step's tape, one row for each sequence and step:
//   the bits of the noise, a 32-bit word for each kind and block; then, from where a row's pointer points,
//   block by block, `fields` vectors each: i, f, g, o, c_t; beyond the plain cell c~_t; with a norm N(c~_t),
//   and N(z_t), N(r_t) for each gate; then one vector or more of `Statistic`s; then the projection before
//   its clip. The bits stand first because they are read first: memory then comes as a stream.
enum Field { FieldI, FieldF, FieldG, FieldO, FieldC, FieldNew, FieldNormC, FieldNormZ, FieldNormR = FieldNormZ + Gates };
enum Statistic { InverseC, InverseZ, InverseR = InverseZ + Gates, Statistics = InverseR + Gates };

template <class Real>
struct Layout {
  Index units, blocks, padded, wide;  // H; its blocks of Lanes; blocks * Lanes; blocks * PanelColumns
  Index fields, statistics, clipped;  // offsets in a tape row, in values
  Index noise;                        // values before the pointer, that hold the bits
  Index g_bits = -1, old_h_bits = -1, old_c_bits = -1;  // words from the first to each kind's; -1 where there is none
  Index row;                          // values in a tape row

  Layout(const PackedWeights<Real>& w, const Options<Real>& options) {
    constexpr int L = Lanes<Real>;
    units = w.H;
    blocks = block_count<Real>(w.H);
    padded = blocks * L;
    wide = blocks * PanelColumns<Real>;
    const bool norm = w.variant.norm != Norm::none;
    fields = options.plain ? TapeFields : norm ? FieldNormR + Gates : FieldNew + 1;
    statistics = blocks * fields * L;
    clipped = statistics + (norm ? ceil_div(Statistics, L) * L : 0);
    Index words = 0;
    const auto place = [&](Index& at, bool drawn, Index count) {
      if (drawn && options.noise.training) words = (at = words) + ceil_div(count, L);
    };
    place(g_bits, options.drops_g, w.H);
    place(old_h_bits, options.zones_h, w.P);
    place(old_c_bits, options.zones_c, w.H);
    noise = ceil_div(words * 4, RegisterBytes) * L;
    row = noise + clipped + (std::isfinite(w.variant.projection_clip) ? ceil_div(w.P, L) * L : 0);
  }
};

// A cell with options passes over a row's tape in pieces, and no stream of loads or stores announces the rows behind it:
// they are fetched while this one is worked on.
constexpr Index RowsFetched = 2;

template <bool Written, class Real>
inline void fetch_tape(const Real* tape, const Layout<Real>& layout) {
  for (Index at = -layout.noise; at < layout.row - layout.noise; at += Lanes<Real>) __builtin_prefetch(tape + at, Written, 2);
}

// The noise of one row and step, a word of bits for each block of units; null where there is none of its kind.
struct RowNoise {
  const std::uint32_t* g = nullptr;      // set where the candidate survives, times scale_g
  const std::uint32_t* old_h = nullptr;  // set where h is renewed
  const std::uint32_t* old_c = nullptr;
};

// What each step draws, in the order of Layout's places: nothing in evaluation.
template <class Real>
inline StepNoise<Real> step_noise(const Options<Real>& options, Index units, Index outputs) {
  StepNoise<Real> made;
  const Noise& noise = options.noise;
  if (!noise.training) return made;
  if (options.drops_g) made.add(RecurrentDropout, units, noise.recurrent_dropout);
  if (options.zones_h) made.add(ZoneoutH, outputs, noise.zoneout_h);
  if (options.zones_c) made.add(ZoneoutC, units, noise.zoneout_c);
  return made;
}

template <class Real>
inline std::uint32_t* noise_bits(const Layout<Real>& layout, Real* tape) {
  return reinterpret_cast<std::uint32_t*>(tape - layout.noise);
}

template <class Real>
inline RowNoise noise_of_row(const Layout<Real>& layout, const Real* tape) {
  const auto* bits = reinterpret_cast<const std::uint32_t*>(tape - layout.noise);
  const auto at = [&](Index words) { return words < 0 ? nullptr : bits + words; };
  return {at(layout.g_bits), at(layout.old_h_bits), at(layout.old_c_bits)};
}

}  // namespace longshort::LONGSHORT_ISA
