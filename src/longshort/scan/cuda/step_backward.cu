// The plan of one launch a step, backward: equations (9) to (20) of scan/derivative.py but for the products.
//
// Blocks and owners as forward. The gradient of the state before step s+1 arrives in two parts, that through
// the product and that past it; a reset of step s+1 takes both before step s adds its own.
#include "cell_back.cuh"
#include "step_forward.cu"

namespace longshort {

// (9) to (11) before the projection's product.
template <class F, int Units, class A>
DEVICE void step_project_back(const A& a) {
  const F has(a);
  const Index n = block_x(), s = a.step, t = time_of(a, has, s);
  own_units<Units>(a.P, [&](Index k) {
    typename A::Element dy[Units];
    typename A::Wide renewed[Units];
    output_gradients(a, has, n, k, s, dy);
    wait_for_previous();
    take_outputs(a, has, n, k, s, dy, renewed);
    store(a.dprojected + (t * a.N + n) * a.P + k, renewed);
  });
}

template <class A, class F>
struct StepBack {
  using R = typename A::Wide;
  using E = typename A::Element;
  const A& a;
  const F& has;
  const Index n, s, t;

  // The gradient of the gates behind the cell before step s+1; `keep` in the padding, where it passes on.
  DEVICE_MEMBER R take_gate(Index block, Index u, bool keep) const {
    if (!has(GateRecurrence) || block < 0) return R(0);
    const Index k = block * a.H + u, at = n * a.S * a.H + k;
    const R total = arriving_state(a, has, n, a.H + k, s, a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0)));
    a.ds[at] = keep ? total : R(0);
    return total;
  }

  // (19) for the cells from u on; returns through `dc` what reaches them.
  template <int Units>
  DEVICE_MEMBER void take_cells(Index u, R (&dc)[Units]) const {
    load(a.dc + n * a.H + u, dc);
    UNROLL for (int j = 0; j < Units; ++j) dc[j] = arriving_state(a, has, n, u + j, s, dc[j]);
  }

  // m of (12) for the units from u on, and (19) for the gates behind their cells; dy: of output_gradients.
  template <int Units>
  DEVICE_MEMBER void enter(Index u, const E (&dy)[Units], R (&m)[Units]) const {
    const Index at = n * a.S * a.H + u, sigmoids[3] = {a.sigmoid_i, a.sigmoid_f, a.sigmoid_o};
    UNROLL for (int k = 0; k < 3; ++k)
      UNROLL for (int j = 0; j < Units; ++j)
        if (has(GateRecurrence) && sigmoids[k] >= 0)
          a.ds[at + sigmoids[k] * a.H + j] = take_gate(sigmoids[k], u + j, true);
    if (has(Projected))
      load(a.m + n * a.H + u, m);
    else
      take_outputs(a, has, n, u, s, dy, m);
  }

  template <int Units>
  DEVICE_MEMBER void zero_row() const {  // (20)
    const R zeros[Units] = {};
    const E dy[Units] = {};
    own_units<Units>(a.H, [&](Index u) {
      R dc[Units], m[Units];
      take_cells(u, dc);
      store(a.dc + n * a.H + u, dc);
      UNROLL for (int j = 0; j < Units; ++j) {
        take_gate(a.sigmoid_i, u + j, true);
        take_gate(a.sigmoid_f, u + j, true);
        take_gate(a.sigmoid_o, u + j, true);
      }
      if (!has(Projected)) take_outputs(a, has, n, u, s, dy, m);
      if (a.unprojected_all) store(a.unprojected_all + (t * a.N + n) * a.H + u, zeros);
      for (Index k = 0; k < a.G; ++k) write(k, u, zeros, zeros, zeros);
      for (Index k = 0; k < a.S; ++k)
        if (a.da_sigmoid) store(a.da_sigmoid + ((t * a.N + n) * a.S + k) * a.H + u, zeros);
    });
  }

  // ā, r̄ and z̄ of one gate.
  template <int Units>
  DEVICE_MEMBER void write(Index slot, Index u, const R (&plain)[Units], const R (&dr)[Units], const R (&dz)[Units]) const {
    const Index row = (t * a.N + n) * a.G + slot;
    if (a.da) store_narrow(a.da + row * a.pitch + u, plain);
    if (a.dr) store_narrow(a.dr + row * a.H + u, dr);
    if (a.dr_wide) store(a.dr_wide + (n * a.G + slot) * a.H + u, dr);
    if (a.dz) store_narrow(a.dz + row * a.H + u, dz);
  }
};

template <class F, int Units, class A>
DEVICE void step_backward(const A& a) {
  using R = typename A::Wide;
  using E = typename A::Element;
  const F has(a);
  const Index n = block_x(), s = a.step, t = time_of(a, has, s);
  const StepBack<A, F> back = {a, has, n, s, t};
  if (!active(a, has, n, t)) {
    wait_for_previous();
    back.template zero_row<Units>();
    return;
  }
  const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
  R* scratch = a.norm_scratch + n * 6 * a.H;  // rows: c̃ before its norm, m̄, and ā of the four gates
  CellNorm<R> norm;
  norm.raw = scratch;
  // `first` stops at what the norm of the cell sums, and returns it; dc becomes that of the step before
  const auto unit = [&](Index u, const Masked& masked, const Recalled<A>& was, bool first, R m, R& dc, R (&out)[4]) {
    const Index gates = n * a.S * a.H + u;
    Extra<R> extra = kept_gradient(a, has, n, t, u);
    if (has(GateRecurrence)) {
      if (a.sigmoid_i >= 0) extra.i += a.ds[gates + a.sigmoid_i * a.H];
      if (a.sigmoid_f >= 0) extra.f += a.ds[gates + a.sigmoid_f * a.H];
      if (a.sigmoid_o >= 0) extra.o += a.ds[gates + a.sigmoid_o * a.H];
    }
    const R q = unit_back(a, has, n, s, u, masked, was, norm, first, m, extra, dc, out);
    if (first) return q;
    if (has(GateRecurrence)) {
      const Index sigmoids[4] = {a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o};
      UNROLL for (int k = 0; k < 4; ++k)
        if (sigmoids[k] >= 0) {
          a.ds[gates + sigmoids[k] * a.H] = R(0);
          a.da_sigmoid[((t * a.N + n) * a.S + sigmoids[k]) * a.H + u] = out[k];
        }
    }
    return R(0);
  };

  if (!(norms_cell(has) || has(NormsProducts))) {
    own_units<Units>(a.H, [&](Index u) {
      Recalled<A> was[Units];
      E dy[Units];
      R m[Units], dc[Units], out[4][Units];
      recall_units(a, has, n, s, u, was);
      output_gradients(a, has, n, u, s, dy);
      const auto keep = keeps_candidates<Units>(a, has, n, t, u);
      const auto renews = renews_cells<Units>(a, has, n, t, u);
      wait_for_previous();
      back.take_cells(u, dc);
      back.enter(u, dy, m);
      UNROLL for (int j = 0; j < Units; ++j) {
        R a_bar[4];
        unit(u + j, {keep[j], renews[j]}, was[j], false, m[j], dc[j], a_bar);
        UNROLL for (int k = 0; k < 4; ++k) out[k][j] = a_bar[k];
      }
      store(a.dc + n * a.H + u, dc);
      const R zeros[Units] = {};
      UNROLL for (int k = 0; k < 4; ++k)
        if (slots[k] >= 0) back.write(slots[k], u, out[k], zeros, zeros);
      recall_units_ahead(a, has, n, s - 1, u);
    });
    return;
  }

  // A norm sums over the row, so every sum needs the one before it.
  wait_for_previous();
  own_units<1>(a.H, [&](Index u) {
    E dy[1];
    R dc[1], m[1];
    output_gradients(a, has, n, u, s, dy);
    back.take_cells(u, dc);
    back.enter(u, dy, m);
    a.dc[n * a.H + u] = dc[0];
    scratch[a.H + u] = m[0];
    if (norms_cell(has)) {
      const Recalled<A> was = recall(a, has, n, s, u);
      scratch[u] = cell_again(a, has, opened<A>(has, was), was, masked_cell(a, has, n, t, u));
    }
  });
  if (norms_cell(has)) {
    R mean[1], scale[1];
    standardise(a.H, R(a.norm_eps), [&](int, Index u) { return scratch[u]; }, mean, scale);
    norm.mean = mean[0];
    norm.scale = scale[0];
    R total[2] = {R(0), R(0)};
    own_units<1>(a.H, [&](Index u) {
      R out[4], dc = a.dc[n * a.H + u];
      const R q = unit(u, masked_cell(a, has, n, t, u), recall(a, has, n, s, u), true, scratch[a.H + u], dc, out);
      total[0] += q;
      total[1] += q * norm.hat(u);
    });
    block_sums(total);
    norm.mean_q = total[0] / R(a.H);
    norm.mean_dot = total[1] / R(a.H);
  }
  // (18): N' of the products; sums of q and q ⊙ N for z and r, or for each gate
  R total[8] = {R(0), R(0), R(0), R(0), R(0), R(0), R(0), R(0)};
  const Index saved = (t * a.N + n) * a.G * a.H;
  own_units<1>(a.H, [&](Index u) {
    R out[4], dc = a.dc[n * a.H + u];
    unit(u, masked_cell(a, has, n, t, u), recall(a, has, n, s, u), false, scratch[a.H + u], dc, out);
    a.dc[n * a.H + u] = dc;
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      const Index at = slots[k] * a.H + u;
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
  own_units<1>(a.H, [&](Index u) {
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      const Index at = slots[k] * a.H + u, row = t * a.N + n;
      const R plain[1] = {scratch[(2 + k) * a.H + u]};
      const R q_r = plain[0] * wide(a.gain_hh[at]), hat_r = a.hat_r[saved + at];
      R dr[1], dz[1] = {R(0)};
      if (has(NormsProducts)) {
        dr[0] = through_norm(q_r, hat_r, total[0], total[1], a.scale_r[row]);
        dz[0] = through_norm(R(plain[0] * wide(a.gain_ih[at])), a.hat_z[saved + at], total[2], total[3], a.scale_z[row]);
      } else {
        dr[0] = through_norm(q_r, hat_r, total[2 * k], total[2 * k + 1], a.scale_r[row * a.G + slots[k]]);
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
  const Index n = block_x(), row = state_row(a);
  own_units<1>(a.P, [&](Index k) {
    R past = carries_output(has) ? a.dh[n * a.P + k] : R(0);
    R product[1];
    load_product(a, n, k, product);
    arriving_output(a, has, n, k, -1, keeps_hidden<1>(a, has, n, k)[0], true, product[0],
                    output_gradient(a, has, n, k, -1), past);
    a.dh_first[n * a.P + k] = past;
  });
  own_units<1>(row, [&](Index k) {
    const Index at = n * a.S * a.H + k - a.H;
    const R total = k < a.H ? a.dc[n * a.H + k] : a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0));
    a.dc_first[n * row + k] = arriving_state(a, has, n, k, -1, total);
  });
}

// What the products of all steps read, again: h_{t-1} as (1) saw it to `operand`, here (T, N, P), and s_{t-1}.
// Block s N + n computes step s of sequence n.
template <class F, int Units, class A>
DEVICE void step_operands(const A& a) {
  using E = typename A::Element;
  const F has(a);
  const Index n = block_x() % a.N, s = block_x() / a.N, t = time_of(a, has, s), earlier = time_of(a, has, s - 1);
  const bool again = resets(a, has, n, t), first = s == 0 || !active(a, has, n, earlier), on = active(a, has, n, t);
  const E* before = again ? a.initial_h : first ? a.h_given : a.y;
  const Index row = (again || first ? n : row_of(a, n, earlier)) * a.P;
  own_units<Units>(a.P, [&](Index k) {
    E h[Units];
    load_or_zero(on ? before : nullptr, row + k, h);
    const auto keep = keeps_hidden<Units>(a, has, n, k);
    UNROLL for (int j = 0; j < Units; ++j) h[j] = operand_of(keep[j], h[j]);
    store(a.operand + (t * a.N + n) * a.P + k, h);
  });
  if (a.gates_before)
    own_units<1>(a.S * a.H, [&](Index k) {
      const Index block = k / a.H, gate = block == a.sigmoid_i ? 0 : block == a.sigmoid_f ? 1 : 3;
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
