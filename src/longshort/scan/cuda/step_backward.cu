// The plan of one launch a step, backward: equations (9) to (20) of scan/derivative.py but for the products.
//
// Blocks and owners as forward. The gradient of the state before step s+1 arrives in two parts, that through
// the product and that past it; a reset of step s+1 takes both before step s adds its own.
#include "step_forward.cu"

namespace longshort {

template <class A, class F>
DEVICE typename A::Wide take_output(const A& a, const F& has, i64 n, i64 k, i64 s) {
  using R = typename A::Wide;
  R past = a.dh[n * a.P + k];
  const R renewed = arriving_output(a, has, n, k, s, a.dh_product ? a.dh_product[n * a.P + k] : R(0), past);
  a.dh[n * a.P + k] = past;
  return renewed;
}

// (9) to (11) before the projection's product.
template <class F, class A>
DEVICE void step_project_back(const A& a) {
  const F has(a);
  const i64 n = block_x(), s = a.step, t = time_of(a, has, s);
  own_units(a.P, [&](i64 k) { a.dprojected[(t * a.N + n) * a.P + k] = take_output(a, has, n, k, s); });
}

// One row of (18): the derivative of a norm in two sums. d: what arrives at its value, hat: N.
template <class R>
DEVICE R through_norm(R d, R hat, R mean_d, R mean_dot, R scale) {
  return (d - mean_d - hat * mean_dot) * scale;
}

template <class A, class F>
struct StepBack {
  using R = typename A::Wide;
  using E = typename A::Element;
  const A& a;
  const F& has;
  const i64 n, s, t;

  DEVICE_MEMBER bool norms_cell() const { return has(NormsOutput) || has(NormsGates); }
  DEVICE_MEMBER bool norms() const { return norms_cell() || has(NormsProducts); }

  // The gradient of the gates behind the cell before step s+1; `keep` in the padding, where it passes on.
  DEVICE_MEMBER R take_gate(i64 block, i64 u, bool keep) const {
    if (!has(GateRecurrence) || block < 0) return R(0);
    const i64 k = block * a.H + u, at = n * a.S * a.H + k;
    const R total = arriving_state(a, has, n, a.H + k, s, a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0)));
    a.ds[at] = keep ? total : R(0);
    return total;
  }

  DEVICE_MEMBER void add(i64 block, i64 u, R value) const {
    if (block >= 0) a.sums[(n * a.sum_count + block) * a.H + u] += value;
  }

  DEVICE_MEMBER void zero_row() const {  // (20)
    own_units(a.H, [&](i64 u) {
      a.dc[n * a.H + u] = arriving_state(a, has, n, u, s, a.dc[n * a.H + u]);
      take_gate(a.sigmoid_i, u, true);
      take_gate(a.sigmoid_f, u, true);
      take_gate(a.sigmoid_o, u, true);
      if (!has(Projected)) take_output(a, has, n, u, s);
      if (a.unprojected_all) a.unprojected_all[(t * a.N + n) * a.H + u] = R(0);
      for (i64 k = 0; k < a.G; ++k) write(k, u, R(0), R(0), R(0));
      for (i64 k = 0; k < a.S; ++k)
        if (a.da_sigmoid) a.da_sigmoid[((t * a.N + n) * a.S + k) * a.H + u] = R(0);
    });
  }

  DEVICE_MEMBER void write(i64 slot, i64 u, R plain, R dr, R dz) const {
    const i64 row = (t * a.N + n) * a.G + slot;
    if (a.da) narrow(plain, a.da[row * a.pitch + u]);
    if (a.dr) narrow(dr, a.dr[row * a.H + u]);
    if (a.dr_wide) a.dr_wide[(n * a.G + slot) * a.H + u] = dr;
    if (a.dz) narrow(dz, a.dz[row * a.H + u]);
  }
};

template <class F, class A>
DEVICE void step_backward(const A& a) {
  using R = typename A::Wide;
  using E = typename A::Element;
  const F has(a);
  const i64 n = block_x(), s = a.step, t = time_of(a, has, s);
  const StepBack<A, F> back = {a, has, n, s, t};
  if (!active(a, n, t)) {
    back.zero_row();
    return;
  }
  const i64 slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o}, tape_row = (t * a.N + n) * a.H;
  R* scratch = a.norm_scratch + n * 6 * a.H;  // rows: c̃ before its norm, m̄, and ā of the four gates
  R cell_mean[1] = {R(0)}, cell_scale[1] = {R(0)}, mean_q = R(0), mean_dot = R(0);

  const auto again = [&](i64 u, Cell<R>& v, R c_before, R mask) {  // c̃ of (4) before a norm, as forward
    if (tape_has_cell(a, has, n, t, u)) return a.tape_cells[tape_row + u];
    const R cell = fused(v.i, has(MasksCandidate) ? v.g * mask : v.g, v.f * c_before);
    return has(ClipsCell) ? clipped(cell, R(a.cell_clip)) : cell;
  };
  const auto arrive = [&](i64 u) { return has(Projected) ? a.m[n * a.H + u] : take_output(a, has, n, u, s); };
  const auto hat_c = [&](i64 u) { return (scratch[u] - cell_mean[0]) * cell_scale[0]; };
  // Everything of one unit up to ā; `first` stops at what the norm of the cell sums, and returns it.
  const auto unit = [&](i64 u, bool first, R m, R (&out)[4]) {
    Cell<R> v = taped(a, has, n, t, u);
    const R c_before = cell_before(a, has, n, s, u), mask = candidate_mask(a, has, n, t, u);
    R normed = R(0);
    if (back.norms_cell()) normed = hat_c(u) * wide(a.gain_c[u]) + wide(a.shift_c[u]);
    const R raw = back.norms_cell() ? scratch[u] : again(u, v, c_before, mask);
    v.cell = has(NormsGates) ? normed : raw;
    const Peepholes<R> p = peepholes_of(a, has, u);
    const R phi = activated<E>(has, has(NormsOutput) ? normed : v.cell);
    const i64 gates = n * a.S * a.H + u;
    Extra<R> extra = kept_gradient(a, n, t, u);
    if (has(GateRecurrence)) {
      if (a.sigmoid_i >= 0) extra.i += a.ds[gates + a.sigmoid_i * a.H];
      if (a.sigmoid_f >= 0) extra.f += a.ds[gates + a.sigmoid_f * a.H];
      if (a.sigmoid_o >= 0) extra.o += a.ds[gates + a.sigmoid_o * a.H];
    }
    R dc = a.dc[n * a.H + u];
    if (a.dcells) dc += a.dcells[n * a.dcells_n + t * a.dcells_t + u];
    R past = R(0), d_new = dc;
    if (has(ZonesCell) && !kept(seed_of(a), ZoneoutC, a.first + t, n, u, a.least_zone_c)) past = dc, d_new = R(0);
    if (has(MixesCell)) d_new = R(a.share_c) * dc, past = (R(1) - R(a.share_c)) * dc;
    out[3] = output_slope(has, v, m, phi, extra.o);
    const R d_out = through_output(has, v, m, phi);
    R d = d_new + (has(Peephole) ? p.o * out[3] : R(0)), q = d_out;
    if (has(NormsGates))
      q = d + d_out;
    else if (!has(NormsOutput))
      d += d_out;
    if (first) return q * wide(a.gain_c[u]);
    if (back.norms_cell()) {
      back.add(a.sum_cell, u, q * hat_c(u));
      back.add(a.sum_cell + 1, u, q);
      const R through = through_norm(R(q * wide(a.gain_c[u])), hat_c(u), mean_q, mean_dot, cell_scale[0]);
      d = has(NormsGates) ? through : d + through;
    }
    if (has(ClipsCell) && !(raw > -R(a.cell_clip) && raw < R(a.cell_clip)) && raw == raw) d = R(0);  // (14)
    gate_slopes(has, v, d, c_before, mask, extra, out);
    a.dc[n * a.H + u] = past + cell_gradient_before(has, v, d, out, p);
    if (has(GateRecurrence)) {
      const i64 sigmoids[4] = {a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o};
      UNROLL for (int k = 0; k < 4; ++k)
        if (sigmoids[k] >= 0) {
          a.ds[gates + sigmoids[k] * a.H] = R(0);
          a.da_sigmoid[((t * a.N + n) * a.S + sigmoids[k]) * a.H + u] = out[k];
        }
    }
    if (has(Peephole)) {
      if (a.sigmoid_i >= 0) back.add(a.sum_peephole + a.sigmoid_i, u, out[0] * c_before);
      if (a.sigmoid_f >= 0) back.add(a.sum_peephole + a.sigmoid_f, u, out[1] * c_before);
      if (a.sigmoid_o >= 0) back.add(a.sum_peephole + a.sigmoid_o, u, out[3] * v.cell);
    }
    if (a.unprojected_all) a.unprojected_all[tape_row + u] = v.o * phi;
    return R(0);
  };
  const auto enter = [&](i64 u) {  // (19), once for each element
    a.dc[n * a.H + u] = arriving_state(a, has, n, u, s, a.dc[n * a.H + u]);
    const i64 at = n * a.S * a.H + u;
    const i64 sigmoids[3] = {a.sigmoid_i, a.sigmoid_f, a.sigmoid_o};
    UNROLL for (int k = 0; k < 3; ++k)
      if (has(GateRecurrence) && sigmoids[k] >= 0) a.ds[at + sigmoids[k] * a.H] = back.take_gate(sigmoids[k], u, true);
    return arrive(u);
  };

  if (!back.norms()) {
    own_units(a.H, [&](i64 u) {
      R out[4];
      const R m = enter(u);
      unit(u, false, m, out);
      UNROLL for (int k = 0; k < 4; ++k)
        if (slots[k] >= 0) back.write(slots[k], u, out[k], R(0), R(0));
    });
    return;
  }

  own_units(a.H, [&](i64 u) {
    scratch[a.H + u] = enter(u);
    if (back.norms_cell()) {
      Cell<R> v = taped(a, has, n, t, u);
      scratch[u] = again(u, v, cell_before(a, has, n, s, u), candidate_mask(a, has, n, t, u));
    }
  });
  if (back.norms_cell()) {
    standardise(a.H, R(a.norm_eps), [&](int, i64 u) { return scratch[u]; }, cell_mean, cell_scale);
    R total[2] = {R(0), R(0)};
    own_units(a.H, [&](i64 u) {
      R out[4];
      const R q = unit(u, true, scratch[a.H + u], out);
      total[0] += q;
      total[1] += q * hat_c(u);
    });
    block_sums(total);
    mean_q = total[0] / R(a.H);
    mean_dot = total[1] / R(a.H);
  }
  // (18): N' of the products; sums of q and q ⊙ N for z and r, or for each gate
  R total[8] = {R(0), R(0), R(0), R(0), R(0), R(0), R(0), R(0)};
  const i64 saved = (t * a.N + n) * a.G * a.H;
  own_units(a.H, [&](i64 u) {
    R out[4];
    unit(u, false, scratch[a.H + u], out);
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      const i64 at = slots[k] * a.H + u;
      scratch[(2 + k) * a.H + u] = out[k];
      const R hat_r = a.hat_r[saved + at], q_r = out[k] * wide(a.gain_hh[at]);
      back.add(a.sum_bias + slots[k], u, out[k]);
      back.add(a.sum_hh + slots[k], u, out[k] * hat_r);
      if (has(NormsProducts)) {
        const R hat_z = a.hat_z[saved + at], q_z = out[k] * wide(a.gain_ih[at]);
        back.add(a.sum_ih + slots[k], u, out[k] * hat_z);
        total[0] += q_r, total[1] += q_r * hat_r, total[2] += q_z, total[3] += q_z * hat_z;
      } else {
        total[2 * k] += q_r, total[2 * k + 1] += q_r * hat_r;
      }
    }
  });
  block_sums(total);
  const R count = has(NormsProducts) ? R(a.G * a.H) : R(a.H);
  UNROLL for (int k = 0; k < 8; ++k) total[k] /= count;
  own_units(a.H, [&](i64 u) {
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      const i64 at = slots[k] * a.H + u, row = t * a.N + n;
      const R plain = scratch[(2 + k) * a.H + u];
      const R q_r = plain * wide(a.gain_hh[at]), hat_r = a.hat_r[saved + at];
      R dr, dz = R(0);
      if (has(NormsProducts)) {
        dr = through_norm(q_r, hat_r, total[0], total[1], a.scale_r[row]);
        dz = through_norm(R(plain * wide(a.gain_ih[at])), a.hat_z[saved + at], total[2], total[3], a.scale_z[row]);
      } else {
        dr = through_norm(q_r, hat_r, total[2 * k], total[2 * k + 1], a.scale_r[row * a.G + slots[k]]);
      }
      back.write(slots[k], u, plain, dr, dz);
    }
  });
}

// The gradients of the state before the first step; (19) if that step starts from a reset.
template <class F, class A>
DEVICE void step_end(const A& a) {
  using R = typename A::Wide;
  const F has(a);
  const i64 n = block_x(), row = state_row(a);
  own_units(a.P, [&](i64 k) {
    R past = a.dh[n * a.P + k];
    arriving_output(a, has, n, k, -1, a.dh_product ? a.dh_product[n * a.P + k] : R(0), past);
    a.dh_first[n * a.P + k] = past;
  });
  own_units(row, [&](i64 k) {
    const i64 at = n * a.S * a.H + k - a.H;
    const R total = k < a.H ? a.dc[n * a.H + k] : a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0));
    a.dc_first[n * row + k] = arriving_state(a, has, n, k, -1, total);
  });
}

// What the products of step s read, again: h_{t-1} as (1) saw it to `operand`, here (T, N, P), and s_{t-1}.
template <class F, class A>
DEVICE void step_operands(const A& a) {
  const F has(a);
  const i64 n = block_x(), s = a.step, t = time_of(a, has, s), earlier = time_of(a, has, s - 1);
  const bool again = resets(a, n, t), first = s == 0 || !active(a, n, earlier), on = active(a, n, t);
  own_units(a.P, [&](i64 k) {
    typename A::Element h;
    narrow(typename A::Wide(0), h);
    if (on) h = again ? initial_h_at(a, n, k) : first ? a.h_given[n * a.P + k] : a.y[(n * a.T + earlier) * a.P + k];
    a.operand[(t * a.N + n) * a.P + k] = operand_of(a, has, n, k, h);
  });
  if (a.gates_before)
    own_units(a.S * a.H, [&](i64 k) {
      const i64 block = k / a.H, gate = block == a.sigmoid_i ? 0 : block == a.sigmoid_f ? 1 : 3;
      typename A::Wide value(0);
      if (on && again)
        value = initial_c_at(a, n, a.H + k);
      else if (on && first)
        value = a.c_given[n * state_row(a) + a.H + k];
      else if (on)
        value = Tape<typename A::Element, typename A::Wide>::sigmoid(
            wide(a.tape_gates[((earlier * a.N + n) * 4 + gate) * a.H + k % a.H]));
      a.gates_before[(t * a.N + n) * a.S * a.H + k] = value;
    });
}

}  // namespace longshort
