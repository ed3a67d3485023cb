// The plan of one launch a step, forward: equations (2) to (8) after the products, every option.
//
// Block (n, part) computes sequence n; without a norm several parts share its units, with one there is a
// single part, for the norm spans the row. A thread owns its units in every kernel of the call.
#include "call.cuh"
#include "row.cuh"

namespace longshort {

// Calls each(u) for the units of this thread.
template <class Each>
DEVICE void own_units(i64 H, Each each) {
  for (i64 u = static_cast<i64>(block_y()) * threads() + thread(); u < H; u += static_cast<i64>(blocks_y()) * threads())
    each(u);
}

// (0) for the first step: the given state, or a reset's, becomes the state and the first operand.
template <class F, class A>
DEVICE void step_begin(const A& a) {
  const F has(a);
  const i64 n = block_x(), row = state_row(a);
  const bool again = resets_after(a, has, n, -1);
  own_units(a.P, [&](i64 k) {
    const auto h = again ? initial_h_at(a, n, k) : a.h_given[n * a.P + k];
    a.h[n * a.P + k] = h;
    a.operand[n * a.P + k] = operand_of(a, has, n, k, h);
  });
  own_units(row, [&](i64 k) { a.c[n * row + k] = again ? initial_c_at(a, n, k) : a.c_given[n * row + k]; });
}

// (6) to (8) for output k.
template <class A, class F>
DEVICE void move_output(const A& a, const F& has, i64 n, i64 k, i64 s, typename A::Wide fresh) {
  const auto h = finish_output(a, has, n, k, s, fresh, a.h[n * a.P + k]);
  a.h[n * a.P + k] = h;
  a.operand[n * a.P + k] = operand_of(a, has, n, k, h);
}

// (2) without peepholes: pre-activations i, f, g, o of one unit.
template <class A, class F>
struct PreActivations {
  using R = typename A::Wide;
  R mean[4], scale[4];  // of z and r; or of each gate

  // The norms of this row, kept for the way back. All threads of the block call it.
  DEVICE_MEMBER void standardise_row(const A& a, const F& has, i64 n, i64 t, const R* z, const R* r) {
    const i64 GH = a.G * a.H, row = t * a.N + n;
    if (has(NormsProducts)) {
      R m[2], s[2];
      standardise(GH, R(a.norm_eps), [&](int which, i64 k) { return which ? r[k] * R(a.scale_h) : z[k]; }, m, s);
      mean[0] = m[0], mean[1] = m[1], scale[0] = s[0], scale[1] = s[1];
      if (a.scale_z && thread() == 0) a.scale_z[row] = s[0], a.scale_r[row] = s[1];
    } else {
      const auto at = [&](int gate, i64 u) {
        const i64 k = (gate < a.G ? gate : 0) * a.H + u;
        return z[k] + r[k] * R(a.scale_h);
      };
      standardise(a.H, R(a.norm_eps), at, mean, scale);
      if (a.scale_r && thread() < a.G) a.scale_r[row * a.G + thread()] = scale[thread()];
    }
  }

  DEVICE_MEMBER R at(const A& a, const F& has, i64 n, i64 t, i64 slot, i64 u, const R* z, const R* r) const {
    if (slot < 0) return R(0);
    const i64 k = slot * a.H + u, saved = (t * a.N + n) * a.G * a.H + k;
    R value;
    if (has(NormsProducts)) {
      const R hat_z = (z[k] - mean[0]) * scale[0], hat_r = (r[k] * R(a.scale_h) - mean[1]) * scale[1];
      if (a.hat_z) a.hat_z[saved] = hat_z, a.hat_r[saved] = hat_r;
      value = hat_z * wide(a.gain_ih[k]) + hat_r * wide(a.gain_hh[k]);
    } else if (has(NormsGates)) {
      const R hat = (fused(r[k], R(a.scale_h), z[k]) - mean[slot]) * scale[slot];
      if (a.hat_r) a.hat_r[saved] = hat;
      value = hat * wide(a.gain_hh[k]);
    } else {
      value = fused(r[k], R(a.scale_h), z[k]);
    }
    return a.bias ? value + wide(a.bias[k]) : value;
  }
};

template <class F, class A>
DEVICE void step_forward(const A& a) {
  using R = typename A::Wide;
  using E = typename A::Element;
  const F has(a);
  const i64 n = block_x(), s = a.step, t = time_of(a, has, s), row = state_row(a);
  const bool on = active(a, has, n, t), again = resets_after(a, has, n, s);
  const R* z = a.z + ((t - a.z_first) * a.N + n) * a.G * a.H;
  const R* r = a.r + n * a.G * a.H;
  PreActivations<A, F> pre;
  if (has(NormsProducts) || has(NormsGates)) pre.standardise_row(a, has, n, t, z, r);

  // (2) to (4): returns the pre-activation of o
  const auto open = [&](i64 u, Cell<R>& v) {
    R x[4] = {pre.at(a, has, n, t, a.slot_i, u, z, r), pre.at(a, has, n, t, a.slot_f, u, z, r),
              pre.at(a, has, n, t, a.slot_g, u, z, r), pre.at(a, has, n, t, a.slot_o, u, z, r)};
    if (has(GateRecurrence)) {
      const R* more = a.r_gates + n * a.S * a.H + u;
      if (a.sigmoid_i >= 0) x[0] += more[a.sigmoid_i * a.H];
      if (a.sigmoid_f >= 0) x[1] += more[a.sigmoid_f * a.H];
      if (a.sigmoid_o >= 0) x[3] += more[a.sigmoid_o * a.H];
    }
    open_gates<E>(has, x, a.c[n * row + u], peepholes_of(a, has, u), candidate_mask(a, has, n, t, u),
                  R(a.cell_clip), v);
    keep_sigmoid(a, has, n, t, u, 0, v.i, on);
    keep_sigmoid(a, has, n, t, u, 1, v.f, on);
    keep_candidate(a, has, n, t, u, v, on);
    return x[3];
  };
  const auto move_gate = [&](i64 block, i64 u, R value) {
    const i64 k = (block + 1) * a.H + u;
    if (has(GateRecurrence) && block >= 0 && (on || again)) a.c[n * row + k] = again ? initial_c_at(a, n, k) : value;
  };
  // (5) to (8); out is what stands under the tanh of (6)
  const auto close = [&](i64 u, Cell<R>& v, R a_o, R out) {
    open_output<E>(has, a_o, peepholes_of(a, has, u), v);
    keep_sigmoid(a, has, n, t, u, 3, v.o, on);
    const R fresh = v.o * activated<E>(has, out), before = a.c[n * row + u];
    const R c = finish_cell(a, has, n, t, u, v.cell, before);
    keep_cell(a, n, t, u, c, on);
    a.c[n * row + u] = again ? initial_c_at(a, n, u) : on ? c : before;
    if (has(Projected))
      a.unprojected[n * a.H + u] = fresh;
    else
      move_output(a, has, n, u, s, fresh);
  };

  if (!has(NormsOutput) && !has(NormsGates)) {
    own_units(a.H, [&](i64 u) {
      Cell<R> v;
      const R a_o = open(u, v);
      move_gate(a.sigmoid_i, u, v.i);
      move_gate(a.sigmoid_f, u, v.f);
      close(u, v, a_o, v.cell);
      move_gate(a.sigmoid_o, u, v.o);
    });
    return;
  }
  R* cells = a.norm_scratch + n * 6 * a.H;
  R* outs = cells + a.H;
  own_units(a.H, [&](i64 u) {
    Cell<R> v;
    outs[u] = open(u, v);
    move_gate(a.sigmoid_i, u, v.i);
    move_gate(a.sigmoid_f, u, v.f);
    cells[u] = v.cell;
  });
  R mean[1], scale[1];
  standardise(a.H, R(a.norm_eps), [&](int, i64 u) { return cells[u]; }, mean, scale);
  own_units(a.H, [&](i64 u) {
    Cell<R> v;
    const R out = (cells[u] - mean[0]) * scale[0] * wide(a.gain_c[u]) + wide(a.shift_c[u]);
    v.cell = has(NormsGates) ? out : cells[u];
    close(u, v, outs[u], out);
    move_gate(a.sigmoid_o, u, v.o);
  });
}

// (6) to (8) after the projection.
template <class F, class A>
DEVICE void step_finish(const A& a) {
  const F has(a);
  const i64 n = block_x();
  own_units(a.P, [&](i64 k) { move_output(a, has, n, k, a.step, a.projected[n * a.P + k]); });
}

}  // namespace longshort
