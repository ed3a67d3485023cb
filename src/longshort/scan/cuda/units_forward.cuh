// One step of a few adjacent units, forward, whatever multiplied W_hh for it.
#pragma once
#include "units.cuh"

namespace longshort {

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

// One step of the units of a sequence that a thread owns, from the products on: (2) to (8). Both plans whose threads own
// adjacent units use it.
template <int Units, class A, class F>
struct UnitsForward {
  using R = typename A::Wide;
  using E = typename A::Element;
  using Few = Held<Units, A>;
  const A& a;
  const F has;
  const Index n, s, t, row, slots[4], sigmoids[4];
  const bool on, again;
  const R* z;  // of this sequence

  DEVICE_MEMBER UnitsForward(const A& arguments, Index sequence, Index step)
      : a(arguments),
        has(a),
        n(sequence),
        s(step),
        t(time_of(a, has, s)),
        row(has(GateRecurrence) ? a.H + a.S * a.H : Index(a.H)),
        slots{a.slot_i, a.slot_f, a.slot_g, a.slot_o},
        sigmoids{a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o},
        on(active(a, has, n, t)),
        again(resets_after(a, has, n, s)),
        z(a.z + ((t - a.z_first) * a.N + n) * a.G * a.H) {}

  // Numbers of the units from u on, of each gate that is computed, else zeros.
  template <class T>
  DEVICE_MEMBER void load_gates(const T* from, Index u, T (&to)[4][Units]) const {
    UNROLL for (int gate = 0; gate < 4; ++gate)
      load_or_zero(slots[gate] < 0 ? nullptr : from, slots[gate] * a.H + u, to[gate]);
  }

  // Asks for what no product of the loop changes.
  DEVICE_MEMBER void ask(Index u, Few& few) const {
    load_gates(a.bias, u, few.bias);
    ask_inputs(u, few);
  }

  // The same without the bias, which no step changes.
  DEVICE_MEMBER void ask_inputs(Index u, Few& few) const {
    load_gates(z, u, few.of_x);
    few.keep = keeps_candidates<Units>(a, has, n, t, u);
    few.renews = renews_cells<Units>(a, has, n, t, u);
    if (has(NormsProducts)) load_gates(a.gain_ih, u, few.gain_ih);
    if (has(NormsProducts) || has(NormsGates)) load_gates(a.gain_hh, u, few.gain_hh);
    if (has(NormsOutput) || has(NormsGates)) load(a.gain_c + u, few.gain_c), load(a.shift_c + u, few.shift_c);
  }

  // (2) but for the bias: the parts, asked for before, added up.
  DEVICE_MEMBER void add_parts(Few& few) const {
    UNROLL for (int gate = 0; gate < 4; ++gate)
      UNROLL for (int j = 0; j < Units; ++j)
        few.a[gate][j] = slots[gate] < 0 ? R(0) : fused(few.of_h[gate][j], R(a.scale_h), few.of_x[gate][j]);
  }

  // Has z of the next step brought nearer while its product runs, if this launch has it.
  DEVICE_MEMBER void ask_ahead(Index u, bool more) const {
    const R* next = z + (has(Reversed) ? -1 : 1) * a.N * a.G * a.H;
    UNROLL for (int gate = 0; gate < 4; ++gate)
      if (slots[gate] >= 0 && more) bring_nearer(next + slots[gate] * a.H, u);
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
  }

  // (2): a gate that the next step reads.
  DEVICE_MEMBER void move_gate(Index block, Index u, R value) const {
    const Index k = (block + 1) * a.H + u;
    if (has(GateRecurrence) && block >= 0 && (on || again))
      a.c[n * row + k] = again ? initial_c_at(a, has, n, k) : value;
  }

  // (5) to (8); `out` is what stands under the tanh of (6). move(h̃) takes the outputs where they go.
  template <class Move>
  DEVICE_MEMBER void close(Index u, Few& few, const R (&out)[Units], Move move) const {
    Cell<R>(&v)[Units] = few.cell;
    R fresh[Units], c[Units];
    UNROLL for (int j = 0; j < Units; ++j) {
      open_output<E>(has, few.a[3][j], peepholes_of(a, has, u + j), v[j]);
      fresh[j] = v[j].o * activated<E>(has, out[j]);
      v[j].cell = finish_cell(a, has, few.renews[j], v[j].cell, few.c[j]);
      c[j] = again ? initial_c_at(a, has, n, u + j) : on ? v[j].cell : few.c[j];
      move_gate(a.sigmoid_o, u + j, v[j].o);
    }
    store(a.c + n * row + u, c);
    move(fresh);
  }

  // Gates and cells, once closed, for the way back and for whoever asked for them.
  DEVICE_MEMBER void keep(Index u, const Few& few) const {
    const Cell<R>(&v)[Units] = few.cell;
    R c[Units];
    UNROLL for (int j = 0; j < Units; ++j) c[j] = v[j].cell;
    keep_sigmoids<Units>(a, has, n, t, u, 0, on, [&](int j) { return v[j].i; });
    keep_sigmoids<Units>(a, has, n, t, u, 1, on, [&](int j) { return v[j].f; });
    keep_candidates(a, has, n, t, u, on, v);
    keep_sigmoids<Units>(a, has, n, t, u, 3, on, [&](int j) { return v[j].o; });
    keep_cells(a, has, n, t, u, c, on);
  }
};

}  // namespace longshort
