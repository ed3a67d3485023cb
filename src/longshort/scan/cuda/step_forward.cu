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
  const Index n = block_x(), row = state_row(a);
  const bool again = resets_after(a, has, n, -1);
  own_units<1>(a.P, [&](Index k) {
    const auto h = again ? initial_h_at(a, n, k) : a.h_given[n * a.P + k];
    a.h[n * a.P + k] = h;
    a.operand[n * a.operand_pitch + k] = operand_of(keeps_hidden<1>(a, has, n, k)[0], h);
  });
  own_units<1>(row, [&](Index k) { a.c[n * row + k] = again ? initial_c_at(a, n, k) : a.c_given[n * row + k]; });
}

// One step of the units that a thread owns.
template <int Units, class A, class F>
struct StepForward {
  using R = typename A::Wide;
  using E = typename A::Element;
  const A& a;
  const F has;
  const Index n, s, t, row, slots[4], sigmoids[4];
  const bool on, again;
  const R *z, *r;       // of this sequence
  R mean[4], scale[4];  // of z and r; or of each gate

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

  // The norms of this row, kept for the way back. All threads of the block call it.
  DEVICE_MEMBER void standardise_row() {
    const Index GH = a.G * a.H, at = t * a.N + n;
    if (has(NormsProducts)) {
      R m[2], d[2];
      standardise(GH, R(a.norm_eps), [&](int which, Index k) { return which ? r[k] * R(a.scale_h) : z[k]; }, m, d);
      mean[0] = m[0], mean[1] = m[1], scale[0] = d[0], scale[1] = d[1];
      if (a.scale_z && thread() == 0) a.scale_z[at] = d[0], a.scale_r[at] = d[1];
    } else if (has(NormsGates)) {
      const auto value = [&](int gate, Index u) {
        const Index k = (gate < a.G ? gate : 0) * a.H + u;
        return z[k] + r[k] * R(a.scale_h);
      };
      standardise(a.H, R(a.norm_eps), value, mean, scale);
      if (a.scale_r && thread() < a.G) a.scale_r[at * a.G + thread()] = scale[thread()];
    }
  }

  // (2) without peepholes, gates and bias: element k of the row, in the block of rows `slot`.
  DEVICE_MEMBER R pre_activation(Index slot, Index k, R of_x, R of_h) const {
    const Index saved = (t * a.N + n) * a.G * a.H + k;
    if (has(NormsProducts)) {
      const R hat_z = (of_x - mean[0]) * scale[0], hat_r = (of_h * R(a.scale_h) - mean[1]) * scale[1];
      if (a.hat_z) a.hat_z[saved] = hat_z, a.hat_r[saved] = hat_r;
      return hat_z * wide(a.gain_ih[k]) + hat_r * wide(a.gain_hh[k]);
    }
    if (has(NormsGates)) {
      const R hat = (fused(of_h, R(a.scale_h), of_x) - mean[slot]) * scale[slot];
      if (a.hat_r) a.hat_r[saved] = hat;
      return hat * wide(a.gain_hh[k]);
    }
    return fused(of_h, R(a.scale_h), of_x);
  }

  // (2) to (4) of the units from u on: their cells, and the pre-activations of o. `c` is the cell before the step.
  DEVICE_MEMBER void open(Index u, Cell<R> (&v)[Units], R (&a_o)[Units], R (&c)[Units]) {
    R of_x[4][Units], of_h[4][Units];
    E bias[4][Units];
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      const Index at = slots[gate] * a.H + u;
      load_or_zero(slots[gate] < 0 ? nullptr : z, at, of_x[gate]);
      load_or_zero(slots[gate] < 0 ? nullptr : a.bias, at, bias[gate]);
    }
    const auto keep = keeps_candidates<Units>(a, has, n, t, u);
    wait_for_previous();
    UNROLL for (int gate = 0; gate < 4; ++gate)
      load_or_zero(slots[gate] < 0 ? nullptr : r, slots[gate] * a.H + u, of_h[gate]);
    load(a.c + n * row + u, c);
    UNROLL for (int j = 0; j < Units; ++j) {
      R x[4];
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        x[gate] = slots[gate] < 0 ? R(0)
                                  : pre_activation(slots[gate], slots[gate] * a.H + u + j, of_x[gate][j], of_h[gate][j]);
        if (a.bias) x[gate] += wide(bias[gate][j]);
        if (has(GateRecurrence) && sigmoids[gate] >= 0) x[gate] += a.r_gates[(n * a.S + sigmoids[gate]) * a.H + u + j];
      }
      open_gates<E>(has, x, c[j], peepholes_of(a, has, u + j), candidate_mask(a, has, keep[j]), R(a.cell_clip), v[j]);
      a_o[j] = x[3];
    }
    keep_sigmoids<Units>(a, has, n, t, u, 0, on, [&](int j) { return v[j].i; });
    keep_sigmoids<Units>(a, has, n, t, u, 1, on, [&](int j) { return v[j].f; });
    keep_candidates(a, has, n, t, u, on, v);
  }

  // (2): a gate that the next step reads.
  DEVICE_MEMBER void move_gate(Index block, Index u, R value) const {
    const Index k = (block + 1) * a.H + u;
    if (has(GateRecurrence) && block >= 0 && (on || again)) a.c[n * row + k] = again ? initial_c_at(a, n, k) : value;
  }

  // (5) to (8); `out` is what stands under the tanh of (6).
  DEVICE_MEMBER void close(Index u, Cell<R> (&v)[Units], const R (&a_o)[Units], const R (&out)[Units], R (&c)[Units]) {
    R fresh[Units], kept[Units];
    const auto renews = renews_cells<Units>(a, has, n, t, u);
    UNROLL for (int j = 0; j < Units; ++j) {
      open_output<E>(has, a_o[j], peepholes_of(a, has, u + j), v[j]);
      fresh[j] = v[j].o * activated<E>(has, out[j]);
      kept[j] = finish_cell(a, has, renews[j], v[j].cell, c[j]);
      c[j] = again ? initial_c_at(a, n, u + j) : on ? kept[j] : c[j];
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

  DEVICE_MEMBER void run() {
    own_units<Units>(a.H, [&](Index u) {
      Cell<R> v[Units];
      R a_o[Units], out[Units], c[Units];
      open(u, v, a_o, c);
      UNROLL for (int j = 0; j < Units; ++j) {
        move_gate(a.sigmoid_i, u + j, v[j].i);
        move_gate(a.sigmoid_f, u + j, v[j].f);
        out[j] = v[j].cell;
      }
      close(u, v, a_o, out, c);
      if (s + 1 < a.steps)
        UNROLL for (int gate = 0; gate < 4; ++gate)
          if (slots[gate] >= 0) bring_nearer(z + (has(Reversed) ? -1 : 1) * a.N * a.G * a.H + slots[gate] * a.H, u);
    });
  }

  // The same where the output depends on a norm of the whole row of cells.
  DEVICE_MEMBER void run_with_norm_of_cell() {
    R* cells = a.norm_scratch + n * 6 * a.H;
    R* outs = cells + a.H;
    own_units<Units>(a.H, [&](Index u) {
      Cell<R> v[Units];
      R a_o[Units], c[Units];
      open(u, v, a_o, c);
      UNROLL for (int j = 0; j < Units; ++j) {
        move_gate(a.sigmoid_i, u + j, v[j].i);
        move_gate(a.sigmoid_f, u + j, v[j].f);
        outs[u + j] = a_o[j];
        cells[u + j] = v[j].cell;
      }
    });
    R mean_c[1], scale_c[1];
    standardise(a.H, R(a.norm_eps), [&](int, Index u) { return cells[u]; }, mean_c, scale_c);
    own_units<Units>(a.H, [&](Index u) {
      Cell<R> v[Units];
      R a_o[Units], out[Units], c[Units];
      load(a.c + n * row + u, c);
      UNROLL for (int j = 0; j < Units; ++j) {
        out[j] = (cells[u + j] - mean_c[0]) * scale_c[0] * wide(a.gain_c[u + j]) + wide(a.shift_c[u + j]);
        v[j].cell = has(NormsGates) ? out[j] : cells[u + j];
        a_o[j] = outs[u + j];
      }
      close(u, v, a_o, out, c);
    });
  }
};

template <class F, int Units, class A>
DEVICE void step_forward(const A& a) {
  StepForward<Units, A, F> step(a);
  if (step.has(NormsProducts) || step.has(NormsGates)) {
    wait_for_previous();
    step.standardise_row();
  }
  if (step.has(NormsGates) || step.has(NormsOutput))
    step.run_with_norm_of_cell();
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
