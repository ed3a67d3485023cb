// The plan of one launch a step, forward: equations (2) to (8) after the products, every option.
//
// Block (n, part) computes sequence n; without a norm several parts share its units, with one there is a
// single part, for the norm spans the row. A thread owns its units in every kernel of the call.
//
// A kernel may start while the product before it ends: what no kernel of the loop writes (z, the bias, tape, gradients
// that arrive) is asked for first, and everything else after `wait_for_previous`.
#include "row.cuh"
#include "units.cuh"

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

// What a thread holds of a few units between the sums of a step, in registers.
template <int Units, class A>
struct Held {
  using R = typename A::Wide;
  using E = typename A::Element;
  R of_x[4][Units], of_h[4][Units];  // the parts of (2), before their norms and then after; gates i, f, g, o
  E bias[4][Units], gain_ih[4][Units], gain_hh[4][Units], gain_c[Units], shift_c[Units];
  Keeps<Units> keep, renews;  // candidates and cells, of the masks
  R c[Units];                 // before the step
  R a[4][Units];
  Cell<R> cell[Units];
};

// One step of the units that a thread owns.
template <int Units, class A, class F>
struct StepForward {
  using R = typename A::Wide;
  using E = typename A::Element;
  using Few = Held<Units, A>;
  const A& a;
  const F has;
  const Index n, s, t, row, slots[4], sigmoids[4];
  const bool on, again;
  const R *z, *r;  // of this sequence

  DEVICE_MEMBER explicit StepForward(const A& arguments)
      : a(arguments),
        has(a),
        n(block_x()),
        s(a.step),
        t(time_of(a, has, s)),
        row(has(GateRecurrence) ? a.H + a.S * a.H : Index(a.H)),
        slots{a.slot_i, a.slot_f, a.slot_g, a.slot_o},
        sigmoids{a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o},
        on(active(a, has, n, t)),
        again(resets_after(a, has, n, s)),
        z(a.z + ((t - a.z_first) * a.N + n) * a.G * a.H),
        r(a.r + n * a.G * a.H) {}

  // Numbers of the units from u on, of each gate that is computed, else zeros.
  template <class T>
  DEVICE_MEMBER void load_gates(const T* from, Index u, T (&to)[4][Units]) const {
    UNROLL for (int gate = 0; gate < 4; ++gate)
      load_or_zero(slots[gate] < 0 ? nullptr : from, slots[gate] * a.H + u, to[gate]);
  }

  // Asks for what no product of the loop changes.
  DEVICE_MEMBER void ask(Index u, Few& few) const {
    load_gates(z, u, few.of_x);
    load_gates(a.bias, u, few.bias);
    few.keep = keeps_candidates<Units>(a, has, n, t, u);
    few.renews = renews_cells<Units>(a, has, n, t, u);
    if (has(NormsProducts)) load_gates(a.gain_ih, u, few.gain_ih);
    if (has(NormsProducts) || has(NormsGates)) load_gates(a.gain_hh, u, few.gain_hh);
    if (has(NormsOutput) || has(NormsGates)) load(a.gain_c + u, few.gain_c), load(a.shift_c + u, few.shift_c);
  }

  DEVICE_MEMBER void ask_product(Index u, Few& few) const {
    load_gates(r, u, few.of_h);
    load(a.c + n * row + u, few.c);
  }

  // Has z of the next step brought nearer while its product runs.
  DEVICE_MEMBER void ask_ahead(Index u) const {
    const R* next = z + (has(Reversed) ? -1 : 1) * a.N * a.G * a.H;
    UNROLL for (int gate = 0; gate < 4; ++gate)
      if (slots[gate] >= 0 && s + 1 < a.steps) bring_nearer(next + slots[gate] * a.H, u);
  }

  // The bias of (2), its gates behind the cell, to (4): the cells of the units from u on.
  DEVICE_MEMBER void open(Index u, Few& few) const {
    Cell<R>(&v)[Units] = few.cell;
    UNROLL for (int j = 0; j < Units; ++j) {
      R x[4];
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        x[gate] = few.a[gate][j];
        if (a.bias) x[gate] += wide(few.bias[gate][j]);
        if (has(GateRecurrence) && sigmoids[gate] >= 0) x[gate] += a.r_gates[(n * a.S + sigmoids[gate]) * a.H + u + j];
      }
      open_gates<E>(has, x, few.c[j], peepholes_of(a, has, u + j), candidate_mask(a, has, few.keep[j]), R(a.cell_clip),
                    v[j]);
      few.a[3][j] = x[3];
      move_gate(a.sigmoid_i, u + j, v[j].i);
      move_gate(a.sigmoid_f, u + j, v[j].f);
    }
    keep_sigmoids<Units>(a, has, n, t, u, 0, on, [&](int j) { return v[j].i; });
    keep_sigmoids<Units>(a, has, n, t, u, 1, on, [&](int j) { return v[j].f; });
    keep_candidates(a, has, n, t, u, on, v);
  }

  // (2): a gate that the next step reads.
  DEVICE_MEMBER void move_gate(Index block, Index u, R value) const {
    const Index k = (block + 1) * a.H + u;
    if (has(GateRecurrence) && block >= 0 && (on || again))
      a.c[n * row + k] = again ? initial_c_at(a, has, n, k) : value;
  }

  // (5) to (8); `out` is what stands under the tanh of (6).
  DEVICE_MEMBER void close(Index u, Few& few, const R (&out)[Units]) const {
    Cell<R>(&v)[Units] = few.cell;
    R fresh[Units], kept[Units], c[Units];
    UNROLL for (int j = 0; j < Units; ++j) {
      open_output<E>(has, few.a[3][j], peepholes_of(a, has, u + j), v[j]);
      fresh[j] = v[j].o * activated<E>(has, out[j]);
      kept[j] = finish_cell(a, has, few.renews[j], v[j].cell, few.c[j]);
      c[j] = again ? initial_c_at(a, has, n, u + j) : on ? kept[j] : few.c[j];
      move_gate(a.sigmoid_o, u + j, v[j].o);
    }
    keep_sigmoids<Units>(a, has, n, t, u, 3, on, [&](int j) { return v[j].o; });
    keep_cells(a, has, n, t, u, kept, on);
    store(a.c + n * row + u, c);
    if (has(Projected))
      store(a.unprojected + n * a.H + u, fresh);
    else
      move_outputs(a, has, n, u, s, fresh);
  }

  // The step without a norm.
  DEVICE_MEMBER void run() const {
    own_units<Units>(a.H, [&](Index u) {
      Few few;
      ask(u, few);
      wait_for_previous();
      ask_product(u, few);
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Units; ++j)
          few.a[gate][j] = slots[gate] < 0 ? R(0) : fused(few.of_h[gate][j], R(a.scale_h), few.of_x[gate][j]);
      open(u, few);
      R out[Units];
      UNROLL for (int j = 0; j < Units; ++j) out[j] = few.cell[j].cell;
      close(u, few, out);
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
    units.each([&](int k, Index u) { ask(u, held[k]); });
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
      open(u, few);
    });
    R mean[1] = {R(0)}, scale[1] = {R(1)};
    const auto visit = [&](int k, auto take) {
      UNROLL for (int j = 0; j < Units; ++j) take(0, j, held[k].cell[j].cell);
    };
    if (has(NormsGates) || has(NormsOutput)) units.standardise(1, R(a.norm_eps), visit, mean, scale);
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
      close(u, few, out);
      ask_ahead(u);
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
