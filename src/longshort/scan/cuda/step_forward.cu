// The plan of one launch a step, forward: equations (2) to (8) after the products, every option.
//
// Block (n, part) computes sequence n; without a norm several parts share its units, with one there is a
// single part, for the norm spans the row. A thread owns its units in every kernel of the call.
//
// A kernel may start while the product before it ends: what no kernel of the loop writes (z, the bias, tape, gradients
// that arrive) is asked for first, and everything else after `wait_for_previous`.
#include "row.cuh"
#include "units_forward.cuh"

namespace longshort {

// (0) for the first step: the given state, or a reset's, becomes the state and the first operand.
template <class F, class A>
DEVICE void step_begin(const A& a) {
  const F has(a);
  const Index n = block_x(), row = state_row(a, has);
  const bool again = resets_after(a, has, n, -1);
  own_units<1>(a.P, [&](Index k) {
    const auto h = again ? initial_h_at(a, n, k) : a.h_given[n * a.P + k];
    a.h[n * a.P + k] = h;
    a.operand[n * a.operand_pitch + k] = operand_of(keeps_hidden<1>(a, has, n, k)[0], h);
  });
  own_units<1>(row, [&](Index k) { a.c[n * row + k] = again ? initial_c_at(a, has, n, k) : a.c_given[n * row + k]; });
}

// One step of the units that a thread owns, one launch of it.
template <int Units, class A, class F>
struct StepForward : UnitsForward<Units, A, F> {
  using Base = UnitsForward<Units, A, F>;
  using R = typename A::Wide;
  using Few = Held<Units, A>;
  using Base::a, Base::has, Base::n, Base::s, Base::t, Base::row, Base::slots, Base::again;
  const R* r;  // of this sequence

  DEVICE_MEMBER explicit StepForward(const A& arguments)
      : Base(arguments, block_x(), arguments.step), r(a.r + n * a.G * a.H) {}

  DEVICE_MEMBER void ask_product(Index u, Few& few) const {
    this->load_gates(r, u, few.of_h);
    load(a.c + n * row + u, few.c);
  }

  DEVICE_MEMBER void finish(Index u, Few& few, const R (&out)[Units]) const {
    this->close(u, few, out, [&](const R (&fresh)[Units]) {
      if (has(Projected))
        store(a.unprojected + n * a.H + u, fresh);
      else
        move_outputs(a, has, n, u, s, fresh);
    });
    this->keep(u, few);
  }

  // The step without a norm.
  DEVICE_MEMBER void run() const {
    own_units<Units>(a.H, [&](Index u) {
      Few few;
      this->ask(u, few);
      wait_for_previous();
      ask_product(u, few);
      this->add_parts(few);
      this->open(u, few);
      R out[Units];
      UNROLL for (int j = 0; j < Units; ++j) out[j] = few.cell[j].cell;
      finish(u, few, out);
    });
  }

  // ---- with one; all threads of the block call these

  // N of one of the two parts of (2), in place, kept for the way back.
  template <class Units_, int Chunks>
  DEVICE_MEMBER void normalise(Units_& units, Few (&held)[Chunks], R (Few::*part)[4][Units], R* hats,
                               R* scales) const {
    R mean[1], scale[1];
    const auto visit = [&](int k, auto take) {
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (slots[gate] >= 0) UNROLL for (int j = 0; j < Units; ++j) take(0, j, (held[k].*part)[gate][j]);
    };
    units.standardise(static_cast<int>(a.G), R(a.norm_eps), visit, mean, scale);
    if (scales && thread() == 0) scales[t * a.N + n] = scale[0];
    units.each([&](int k, Index u) {
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        R(&values)[Units] = (held[k].*part)[gate];
        UNROLL for (int j = 0; j < Units; ++j) values[j] = (values[j] - mean[0]) * scale[0];
        if (hats) store(hats + ((t * a.N + n) * a.G + slots[gate]) * a.H + u, values);
      }
    });
  }

  // N of each gate of z + r, which is in of_h.
  template <class Units_, int Chunks>
  DEVICE_MEMBER void normalise_gates(Units_& units, Few (&held)[Chunks]) const {
    R mean[4], scale[4];
    const auto visit = [&](int k, auto take) {
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Units; ++j) take(gate, j, held[k].of_h[gate][j]);
    };
    units.standardise(1, R(a.norm_eps), visit, mean, scale);
    UNROLL for (int gate = 0; gate < 4; ++gate)
      if (slots[gate] >= 0 && a.scale_r && thread() == 0) a.scale_r[(t * a.N + n) * a.G + slots[gate]] = scale[gate];
    units.each([&](int k, Index u) {
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        R(&values)[Units] = held[k].of_h[gate];
        UNROLL for (int j = 0; j < Units; ++j) values[j] = (values[j] - mean[gate]) * scale[gate];
        if (a.hat_r) store(a.hat_r + ((t * a.N + n) * a.G + slots[gate]) * a.H + u, values);
      }
    });
  }

  // The step of a row in one block. What does not wait for r is summed while r is on its way.
  template <int Chunks, int Warps>
  DEVICE_MEMBER void run_row() const {
    Row<Units, Chunks, Warps, R> units(a.H);
    Few held[Chunks];
    units.each([&](int k, Index u) { this->ask(u, held[k]); });
    wait_for_previous();
    units.each([&](int k, Index u) { ask_product(u, held[k]); });
    if (has(NormsProducts)) normalise(units, held, &Few::of_x, a.hat_z, a.scale_z);
    units.each([&](int k, Index) {
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Units; ++j) {
          held[k].of_h[gate][j] *= R(a.scale_h);
          if (has(NormsGates)) held[k].of_h[gate][j] += held[k].of_x[gate][j];
        }
    });
    if (has(NormsProducts))
      normalise(units, held, &Few::of_h, a.hat_r, a.scale_r);
    else
      normalise_gates(units, held);
    units.each([&](int k, Index u) {
      Few& few = held[k];
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Units; ++j) {
          few.a[gate][j] = few.of_h[gate][j] * wide(few.gain_hh[gate][j]);
          if (has(NormsProducts)) few.a[gate][j] += few.of_x[gate][j] * wide(few.gain_ih[gate][j]);
        }
      this->open(u, few);
    });
    R mean[1] = {R(0)}, scale[1] = {R(1)};
    const auto visit = [&](int k, auto take) {
      UNROLL for (int j = 0; j < Units; ++j) take(0, j, held[k].cell[j].cell);
    };
    if (has(NormsGates) || has(NormsOutput)) {
      units.standardise(1, R(a.norm_eps), visit, mean, scale);
      const R stats[2] = {mean[0], scale[0]};
      if (has(Tapes) && thread() == 0) store(a.stats_c + (t * a.N + n) * 2, stats);
    }
    units.each([&](int k, Index u) {
      Few& few = held[k];
      R out[Units];
      UNROLL for (int j = 0; j < Units; ++j) {
        R& cell = few.cell[j].cell;
        out[j] = cell;
        if (has(NormsGates) || has(NormsOutput))
          out[j] = (cell - mean[0]) * scale[0] * wide(few.gain_c[j]) + wide(few.shift_c[j]);
        if (has(NormsGates)) cell = out[j];
      }
      finish(u, few, out);
      this->ask_ahead(u, s + 1 < a.steps);
    });
  }
};

// Chunks and Warps: of `Row`, where there is a norm.
template <class F, int Units, int Chunks = 1, int Warps = 1, class A>
DEVICE void step_forward(const A& a) {
  const StepForward<Units, A, F> step(a);
  if (step.has(NormsProducts) || step.has(NormsGates))
    step.template run_row<Chunks, Warps>();
  else
    step.run();
}

// (6) to (8) after the projection.
template <class F, int Units, class A>
DEVICE void step_finish(const A& a) {
  using R = typename A::Wide;
  const F has(a);
  const Index n = block_x();
  own_units<Units>(a.P, [&](Index k) {
    R fresh[Units];
    wait_for_previous();
    load(a.projected + n * a.P + k, fresh);
    move_outputs(a, has, n, k, a.step, fresh);
  });
}

}  // namespace longshort
