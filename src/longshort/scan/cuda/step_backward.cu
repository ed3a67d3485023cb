// The plan of one launch a step, backward: equations (9) to (20) of scan/derivative.py but for the products.
//
// Blocks and owners as forward. The gradient of the state before step s+1 arrives in two parts, that through
// the product and that past it; a reset of step s+1 takes both before step s adds its own.
#include "cell_back.cuh"
#include "step_forward.cu"

namespace longshort {

template <class A, class F>
DEVICE typename A::Wide take_output(const A& a, const F& has, i64 n, i64 k, i64 s) {
  using R = typename A::Wide;
  R past = a.dh[n * a.P + k];
  const R product = a.dh_product ? a.dh_product[n * a.P + k] : R(0);
  const R renewed = arriving_output(a, has, n, k, s, product, output_gradient(a, has, n, k, s), past);
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

template <class A, class F>
struct StepBack {
  using R = typename A::Wide;
  using E = typename A::Element;
  const A& a;
  const F& has;
  const i64 n, s, t;

  // The gradient of the gates behind the cell before step s+1; `keep` in the padding, where it passes on.
  DEVICE_MEMBER R take_gate(i64 block, i64 u, bool keep) const {
    if (!has(GateRecurrence) || block < 0) return R(0);
    const i64 k = block * a.H + u, at = n * a.S * a.H + k;
    const R total = arriving_state(a, has, n, a.H + k, s, a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0)));
    a.ds[at] = keep ? total : R(0);
    return total;
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
  if (!active(a, has, n, t)) {
    back.zero_row();
    return;
  }
  const i64 slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
  R* scratch = a.norm_scratch + n * 6 * a.H;  // rows: c̃ before its norm, m̄, and ā of the four gates
  CellNorm<R> norm;
  norm.raw = scratch;
  const auto arrive = [&](i64 u) { return has(Projected) ? a.m[n * a.H + u] : take_output(a, has, n, u, s); };
  // `first` stops at what the norm of the cell sums, and returns it
  const auto unit = [&](i64 u, const Recalled<A>& was, bool first, R m, R (&out)[4]) {
    const i64 gates = n * a.S * a.H + u;
    Extra<R> extra = kept_gradient(a, n, t, u);
    if (has(GateRecurrence)) {
      if (a.sigmoid_i >= 0) extra.i += a.ds[gates + a.sigmoid_i * a.H];
      if (a.sigmoid_f >= 0) extra.f += a.ds[gates + a.sigmoid_f * a.H];
      if (a.sigmoid_o >= 0) extra.o += a.ds[gates + a.sigmoid_o * a.H];
    }
    R dc = a.dc[n * a.H + u];
    const R q = unit_back(a, has, n, s, u, was, norm, first, m, extra, dc, out);
    if (first) return q;
    a.dc[n * a.H + u] = dc;
    if (has(GateRecurrence)) {
      const i64 sigmoids[4] = {a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o};
      UNROLL for (int k = 0; k < 4; ++k)
        if (sigmoids[k] >= 0) {
          a.ds[gates + sigmoids[k] * a.H] = R(0);
          a.da_sigmoid[((t * a.N + n) * a.S + sigmoids[k]) * a.H + u] = out[k];
        }
    }
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

  if (!(norms_cell(has) || has(NormsProducts))) {
    own_units(a.H, [&](i64 u) {
      R out[4];
      const Recalled<A> was = recall(a, has, n, s, u);  // before `enter` writes what might lie there, to a compiler
      const R m = enter(u);
      unit(u, was, false, m, out);
      UNROLL for (int k = 0; k < 4; ++k)
        if (slots[k] >= 0) back.write(slots[k], u, out[k], R(0), R(0));
    });
    return;
  }

  own_units(a.H, [&](i64 u) {
    scratch[a.H + u] = enter(u);
    if (norms_cell(has)) {
      const Recalled<A> was = recall(a, has, n, s, u);
      scratch[u] = cell_again(a, has, opened<A>(has, was), was, n, t, u, candidate_mask(a, has, n, t, u));
    }
  });
  if (norms_cell(has)) {
    R mean[1], scale[1];
    standardise(a.H, R(a.norm_eps), [&](int, i64 u) { return scratch[u]; }, mean, scale);
    norm.mean = mean[0];
    norm.scale = scale[0];
    R total[2] = {R(0), R(0)};
    own_units(a.H, [&](i64 u) {
      R out[4];
      const R q = unit(u, recall(a, has, n, s, u), true, scratch[a.H + u], out);
      total[0] += q;
      total[1] += q * norm.hat(u);
    });
    block_sums(total);
    norm.mean_q = total[0] / R(a.H);
    norm.mean_dot = total[1] / R(a.H);
  }
  // (18): N' of the products; sums of q and q ⊙ N for z and r, or for each gate
  R total[8] = {R(0), R(0), R(0), R(0), R(0), R(0), R(0), R(0)};
  const i64 saved = (t * a.N + n) * a.G * a.H;
  own_units(a.H, [&](i64 u) {
    R out[4];
    unit(u, recall(a, has, n, s, u), false, scratch[a.H + u], out);
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      const i64 at = slots[k] * a.H + u;
      scratch[(2 + k) * a.H + u] = out[k];
      const R hat_r = a.hat_r[saved + at], q_r = out[k] * wide(a.gain_hh[at]);
      add_sum(a, n, a.sum_bias + slots[k], u, out[k]);
      add_sum(a, n, a.sum_hh + slots[k], u, out[k] * hat_r);
      if (has(NormsProducts)) {
        const R hat_z = a.hat_z[saved + at], q_z = out[k] * wide(a.gain_ih[at]);
        add_sum(a, n, a.sum_ih + slots[k], u, out[k] * hat_z);
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
    arriving_output(a, has, n, k, -1, a.dh_product ? a.dh_product[n * a.P + k] : R(0), output_gradient(a, has, n, k, -1),
                    past);
    a.dh_first[n * a.P + k] = past;
  });
  own_units(row, [&](i64 k) {
    const i64 at = n * a.S * a.H + k - a.H;
    const R total = k < a.H ? a.dc[n * a.H + k] : a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0));
    a.dc_first[n * row + k] = arriving_state(a, has, n, k, -1, total);
  });
}

// What the products of all steps read, again: h_{t-1} as (1) saw it to `operand`, here (T, N, P), and s_{t-1}.
// Block s N + n computes step s of sequence n.
template <class F, class A>
DEVICE void step_operands(const A& a) {
  const F has(a);
  const i64 n = block_x() % a.N, s = block_x() / a.N, t = time_of(a, has, s), earlier = time_of(a, has, s - 1);
  const bool again = resets(a, has, n, t), first = s == 0 || !active(a, has, n, earlier), on = active(a, has, n, t);
  own_units(a.P, [&](i64 k) {
    typename A::Element h;
    narrow(typename A::Wide(0), h);
    if (on) h = again ? initial_h_at(a, n, k) : first ? a.h_given[n * a.P + k] : a.y[row_of(a, n, earlier) * a.P + k];
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
        value = taped_sigmoid(a, has, ((earlier * a.N + n) * 4 + gate) * a.H + k % a.H);
      a.gates_before[(t * a.N + n) * a.S * a.H + k] = value;
    });
}

}  // namespace longshort
