// The plan of one launch a step, backward: equations (9) to (20) of scan/derivative.py but for the products.
//
// Blocks and owners as forward. The gradient of the state before step s+1 arrives in two parts, that through
// the product and that past it; a reset of step s+1 takes both before step s adds its own.
#include "cell_back.cuh"
#include "norms.cuh"
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
    Arriving<Units, typename A::Wide, F::Parts> from;
    output_gradients(a, has, n, k, s, dy);
    wait_for_previous();
    load_arriving(a, has, n, k, s, from);
    take_outputs(a, has, n, k, s, dy, from, renewed);
    store(a.dprojected + (t * a.N + n) * a.P + k, renewed);
  });
}

// What a thread holds of a few units between the sums of a step, in registers.
template <int Units, class A, int Parts>
struct HeldBack {
  using R = typename A::Wide;
  using E = typename A::Element;
  Recalled<A> was[Units];
  Keeps<Units> keep, renews;  // candidates and cells, of the masks
  DEVICE_MEMBER Masked masked(int j) const { return {keep[j], renews[j]}; }
  E dy[Units], gain_ih[4][Units], gain_hh[4][Units], gain_c[Units], shift_c[Units];
  R hat_z[4][Units], hat_r[4][Units];  // N of z and r, or of each gate
  Arriving<Units, R, Parts> from;
  R m[Units], dc[Units];
  R raw[Units];       // c̃ before its norm
  R a_bar[4][Units];  // of i, f, g, o
};

template <int Units, class A, class F>
struct StepBack {
  using R = typename A::Wide;
  using E = typename A::Element;
  using Few = HeldBack<Units, A, F::Parts>;
  const A& a;
  const F has;
  const Index n, s, t, slots[4], sigmoids[4];

  DEVICE_MEMBER explicit StepBack(const A& arguments)
      : a(arguments),
        has(a),
        n(block_x()),
        s(a.step),
        t(time_of(a, has, s)),
        slots{a.slot_i, a.slot_f, a.slot_g, a.slot_o},
        sigmoids{a.sigmoid_i, a.sigmoid_f, -1, a.sigmoid_o} {}

  // The gradient of the gates behind the cell before step s+1; `keep` in the padding, where it passes on.
  DEVICE_MEMBER R take_gate(Index block, Index u, bool keep) const {
    if (!has(GateRecurrence) || block < 0) return R(0);
    const Index k = block * a.H + u, at = n * a.S * a.H + k;
    const R total = arriving_state(a, has, n, a.H + k, s, a.ds[at] + (a.ds_product ? a.ds_product[at] : R(0)));
    a.ds[at] = keep ? total : R(0);
    return total;
  }

  // Asks for what no product of the loop changes.
  DEVICE_MEMBER void ask(Index u, Few& few) const {
    recall_units(a, has, n, s, u, few.was);
    if (!has(Projected)) output_gradients(a, has, n, u, s, few.dy);  // else dy has P of them
    few.keep = keeps_candidates<Units>(a, has, n, t, u);
    few.renews = renews_cells<Units>(a, has, n, t, u);
  }

  // What arrives from the step after.
  DEVICE_MEMBER void ask_arriving(Index u, Few& few) const {
    load(a.dc + n * a.H + u, few.dc);
    if (has(Projected))
      load(a.m + n * a.H + u, few.m);
    else
      load_arriving(a, has, n, u, s, few.from);
  }

  // m of (12) for the units from u on, and (19) for their cells and the gates behind them.
  DEVICE_MEMBER void enter(Index u, Few& few) const {
    UNROLL for (int j = 0; j < Units; ++j) few.dc[j] = arriving_state(a, has, n, u + j, s, few.dc[j]);
    UNROLL for (int k = 0; k < 4; ++k)
      UNROLL for (int j = 0; j < Units; ++j) take_gate(sigmoids[k], u + j, true);
    if (!has(Projected)) take_outputs(a, has, n, u, s, few.dy, few.from, few.m);
  }

  DEVICE_MEMBER void zero_row() const {  // (20)
    const R zeros[Units] = {};
    own_units<Units>(a.H, [&](Index u) {
      Few few;
      UNROLL for (int j = 0; j < Units; ++j) few.dy[j] = E{};
      ask_arriving(u, few);
      enter(u, few);
      store(a.dc + n * a.H + u, few.dc);
      if (a.unprojected_all) store(a.unprojected_all + (t * a.N + n) * a.H + u, zeros);
      for (Index k = 0; k < a.G; ++k) write(k, u, zeros, zeros, zeros);
      for (Index k = 0; k < a.S; ++k)
        if (a.da_sigmoid) store(a.da_sigmoid + ((t * a.N + n) * a.S + k) * a.H + u, zeros);
    });
  }

  // ā, r̄ and z̄ of one gate.
  DEVICE_MEMBER void write(Index slot, Index u, const R (&plain)[Units], const R (&dr)[Units], const R (&dz)[Units]) const {
    const Index row = (t * a.N + n) * a.G + slot;
    if (!tapes_wide(has)) {  // there is no norm
      store_narrow(a.da + row * a.pitch + u, plain);
      return;
    }
    store_narrow(a.dr + row * a.H + u, dr);
    if (a.dr_wide) store(a.dr_wide + (n * a.G + slot) * a.H + u, dr);
    if (a.dr_parts) {
      R rest[Units];
      UNROLL for (int j = 0; j < Units; ++j) rest[j] = dr[j];
      UNROLL for (int part = 0; part < 3; ++part) {
        E rounded[Units];
        UNROLL for (int j = 0; j < Units; ++j) rounded[j] = taken<E>(rest[j]);
        store(a.dr_parts + ((3 * n + part) * a.G + slot) * a.H + u, rounded);
      }
    }
    if (has(NormsProducts)) store_input_gradient(a, t * a.N + n, slot, u, dz);
  }

  // (12) to (17) of unit u + j, as `unit_back`.
  DEVICE_MEMBER R unit(Index u, int j, Few& few, const CellNorm<R>& norm, bool first) const {
    const Index gates = n * a.S * a.H + u + j;
    Extra<R> extra = kept_gradient(a, has, n, t, u + j);
    if (has(GateRecurrence)) {
      if (a.sigmoid_i >= 0) extra.i += a.ds[gates + a.sigmoid_i * a.H];
      if (a.sigmoid_f >= 0) extra.f += a.ds[gates + a.sigmoid_f * a.H];
      if (a.sigmoid_o >= 0) extra.o += a.ds[gates + a.sigmoid_o * a.H];
    }
    R a_bar[4];
    const R q =
        unit_back(a, has, n, s, u + j, few.masked(j), few.was[j], norm, first, few.m[j], extra, few.dc[j], a_bar);
    if (first) return q;
    UNROLL for (int k = 0; k < 4; ++k) {
      few.a_bar[k][j] = a_bar[k];
      if (!has(GateRecurrence) || sigmoids[k] < 0) continue;
      a.ds[gates + sigmoids[k] * a.H] = R(0);
      a.da_sigmoid[((t * a.N + n) * a.S + sigmoids[k]) * a.H + u + j] = a_bar[k];
    }
    return q;
  }

  // The step without a norm.
  DEVICE_MEMBER void run() const {
    own_units<Units>(a.H, [&](Index u) {
      Few few;
      ask(u, few);
      wait_for_previous();
      ask_arriving(u, few);
      enter(u, few);
      const CellNorm<R> none = {};
      const R zeros[Units] = {};
      UNROLL for (int j = 0; j < Units; ++j) unit(u, j, few, none, false);
      store(a.dc + n * a.H + u, few.dc);
      UNROLL for (int k = 0; k < 4; ++k)
        if (slots[k] >= 0) write(slots[k], u, few.a_bar[k], zeros, zeros);
    });
  }

  // ---- with one; all threads of the block call these

  DEVICE_MEMBER void ask_norms(Index u, Few& few) const {
    UNROLL for (int k = 0; k < 4; ++k) {
      const Index at = slots[k] * a.H + u, saved = (t * a.N + n) * a.G * a.H + at;
      if (slots[k] < 0) continue;
      load(a.hat_r + saved, few.hat_r[k]);
      load(a.gain_hh + at, few.gain_hh[k]);
      if (has(NormsProducts)) load(a.hat_z + saved, few.hat_z[k]), load(a.gain_ih + at, few.gain_ih[k]);
    }
    if (norms_cell(has)) load(a.gain_c + u, few.gain_c), load(a.shift_c + u, few.shift_c);
  }

  // The norm of the cell as unit j of a few sees it.
  DEVICE_MEMBER void see(const Few& few, int j, CellNorm<R>& norm) const {
    if (norms_cell(has)) norm.raw = few.raw[j], norm.gain = wide(few.gain_c[j]), norm.shift = wide(few.shift_c[j]);
  }

  // c̃ before its norm, which no product changes.
  DEVICE_MEMBER void make_cell(Few& few) const {
    UNROLL for (int j = 0; j < Units; ++j)
      few.raw[j] = cell_again(a, has, opened<A>(has, few.was[j]), few.was[j], few.masked(j));
  }

  // The means that N' of the cell takes.
  template <class Units_, int Chunks>
  DEVICE_MEMBER void sum_cell(Units_& units, Few (&held)[Chunks], CellNorm<R>& norm) const {
    R total[2] = {R(0), R(0)};
    units.each([&](int k, Index u) {
      UNROLL for (int j = 0; j < Units; ++j) {
        see(held[k], j, norm);
        const R q = unit(u, j, held[k], norm, true) * norm.gain;
        total[0] += q, total[1] += q * norm.hat();
      }
    });
    units.total(total);
    norm.mean_q = shared_out(total[0], R(a.H)), norm.mean_dot = shared_out(total[1], R(a.H));
  }

  // (12) to (17) of a few units, and their sums over t.
  DEVICE_MEMBER void pass_cells(Index u, Few& few, CellNorm<R>& norm) const {
    R q[Units], dot[Units];
    UNROLL for (int j = 0; j < Units; ++j) {
      see(few, j, norm);
      q[j] = unit(u, j, few, norm, false);
      dot[j] = q[j] * norm.hat();
    }
    store(a.dc + n * a.H + u, few.dc);
    if (norms_cell(has)) add_sums(a, n, a.sum_cell, u, dot), add_sums(a, n, a.sum_cell + 1, u, q);
    UNROLL for (int k = 0; k < 4; ++k) {
      if (slots[k] < 0) continue;
      R with_z[Units], with_r[Units];
      UNROLL for (int j = 0; j < Units; ++j) {
        with_r[j] = few.a_bar[k][j] * few.hat_r[k][j];
        if (has(NormsProducts)) with_z[j] = few.a_bar[k][j] * few.hat_z[k][j];
      }
      add_sums(a, n, a.sum_bias + slots[k], u, few.a_bar[k]);
      add_sums(a, n, a.sum_hh + slots[k], u, with_r);
      if (has(NormsProducts)) add_sums(a, n, a.sum_ih + slots[k], u, with_z);
    }
  }

  // The step of a row in one block. What does not wait for what arrives is summed while that is on its way.
  template <int Chunks, int Warps>
  DEVICE_MEMBER void run_row() const {
    Row<Units, Chunks, Warps, R> units(a.H);
    Few held[Chunks];
    CellNorm<R> norm = {};
    units.each([&](int k, Index u) { ask(u, held[k]), ask_norms(u, held[k]); });
    R scale_z = R(0), scale_r[4] = {};
    const Index row = t * a.N + n;
    if (has(NormsProducts)) scale_z = a.scale_z[row], scale_r[0] = a.scale_r[row];
    UNROLL for (int k = 0; k < 4; ++k)
      if (has(NormsGates) && slots[k] >= 0) scale_r[k] = a.scale_r[row * a.G + slots[k]];
    R stats[2] = {};
    if (norms_cell(has)) stats[0] = a.stats_c[row * 2], stats[1] = a.stats_c[row * 2 + 1];
    norm.mean = stats[0], norm.scale = stats[1];
    wait_for_previous();
    units.each([&](int k, Index u) { ask_arriving(u, held[k]); });
    if (norms_cell(has)) units.each([&](int k, Index) { make_cell(held[k]); });
    units.each([&](int k, Index u) { enter(u, held[k]); });
    if (norms_cell(has)) sum_cell(units, held, norm);
    units.each([&](int k, Index u) {
      pass_cells(u, held[k], norm);
      recall_units_ahead(a, has, n, s - 1, u);
    });
    if (has(NormsProducts))
      leave_products(units, held, scale_z, scale_r[0]);
    else
      leave_gates(units, held, scale_r);
  }

  // (18): N' of both products.
  template <class Units_, int Chunks>
  DEVICE_MEMBER void leave_products(Units_& units, Few (&held)[Chunks], R scale_z, R scale_r) const {
    R total[4] = {};
    units.each([&](int k, Index) {
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (slots[gate] >= 0) UNROLL for (int j = 0; j < Units; ++j) {
          Few& few = held[k];
          const R q_r = few.a_bar[gate][j] * wide(few.gain_hh[gate][j]);
          const R q_z = few.a_bar[gate][j] * wide(few.gain_ih[gate][j]);
          total[0] += q_r, total[1] += q_r * few.hat_r[gate][j], total[2] += q_z, total[3] += q_z * few.hat_z[gate][j];
        }
    });
    units.total(total);
    UNROLL for (int k = 0; k < 4; ++k) total[k] = shared_out(total[k], R(a.G * a.H));
    units.each([&](int k, Index u) {
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        Few& few = held[k];
        R dr[Units], dz[Units];
        UNROLL for (int j = 0; j < Units; ++j) {
          const R q_r = few.a_bar[gate][j] * wide(few.gain_hh[gate][j]);
          const R q_z = few.a_bar[gate][j] * wide(few.gain_ih[gate][j]);
          dr[j] = through_norm(q_r, few.hat_r[gate][j], total[0], total[1], scale_r);
          dz[j] = through_norm(q_z, few.hat_z[gate][j], total[2], total[3], scale_z);
        }
        write(slots[gate], u, few.a_bar[gate], dr, dz);
      }
    });
  }

  // (18): N' of each gate.
  template <class Units_, int Chunks>
  DEVICE_MEMBER void leave_gates(Units_& units, Few (&held)[Chunks], const R (&scale)[4]) const {
    R total[8] = {};
    units.each([&](int k, Index) {
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (slots[gate] >= 0) UNROLL for (int j = 0; j < Units; ++j) {
          const R q = held[k].a_bar[gate][j] * wide(held[k].gain_hh[gate][j]);
          total[2 * gate] += q, total[2 * gate + 1] += q * held[k].hat_r[gate][j];
        }
    });
    units.total(total);
    UNROLL for (int k = 0; k < 8; ++k) total[k] = shared_out(total[k], R(a.H));
    units.each([&](int k, Index u) {
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        Few& few = held[k];
        const R zeros[Units] = {};
        R dr[Units];
        UNROLL for (int j = 0; j < Units; ++j) {
          const R q = few.a_bar[gate][j] * wide(few.gain_hh[gate][j]);
          dr[j] = through_norm(q, few.hat_r[gate][j], total[2 * gate], total[2 * gate + 1], scale[gate]);
        }
        write(slots[gate], u, few.a_bar[gate], dr, zeros);
      }
    });
  }
};

// Chunks and Warps: of `Row`, where there is a norm.
template <class F, int Units, int Chunks = 1, int Warps = 1, class A>
DEVICE void step_backward(const A& a) {
  const StepBack<Units, A, F> back(a);
  if (!active(a, back.has, back.n, back.t)) {
    wait_for_previous();
    back.zero_row();
  } else if (norms_cell(back.has) || back.has(NormsProducts)) {
    back.template run_row<Chunks, Warps>();
  } else {
    back.run();
  }
}

// The gradients of the state before the first step; (19) if that step starts from a reset.
template <class F, class A>
DEVICE void step_end(const A& a) {
  using R = typename A::Wide;
  const F has(a);
  const Index n = block_x(), row = state_row(a, has);
  own_units<1>(a.P, [&](Index k) {
    R past = carries_output(has) ? a.dh[n * a.P + k] : R(0);
    Product<1, R, F::Parts> product;
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

// s_{t-1} of all steps, likewise, for one unit of a sequence in a thread.
template <int Turns, class A, class F>
DEVICE void previous_gates(const A& a, const F& has, Index own) {
  const Index each = a.S * a.H, n = own / each, k = own % each;
  if (n >= a.N) return;
  const Index block = k / a.H, gate = block == a.sigmoid_i ? 0 : block == a.sigmoid_f ? 1 : 3;
  const Index turns = static_cast<Index>(blocks_y()) * Turns;
  for (Index first = block_y() * Turns; first < a.T; first += turns)
    for (Index s = first; s < a.T && s < first + Turns; ++s) {
      const Index t = time_of(a, has, s), earlier = time_of(a, has, s - 1);
      typename A::Wide value(0);
      if (active(a, has, n, t)) {
        if (resets(a, has, n, t))
          value = initial_c_at(a, has, n, a.H + k);
        else if (s == 0 || !active(a, has, n, earlier))
          value = a.c_given[n * state_row(a, has) + a.H + k];
        else
          value = taped_sigmoid(a, has, ((earlier * a.N + n) * 4 + gate) * a.H + k % a.H);
      }
      a.gates_before[(t * a.N + n) * each + k] = value;
    }
}

// What the products of all steps read, again: h_{t-1} as (1) saw it to `operand`, here (T, N, P), and s_{t-1}.
//
// A thread owns `Units` outputs of a sequence and goes through its steps, `Turns` at a time, so that their loads are all on
// their way together: each stands behind the byte of a reset. The mask, one for all steps, is made once.
template <class F, int Units, int Turns, class A>
DEVICE void step_operands(const A& a) {
  using E = typename A::Element;
  const F has(a);
  const Index own = static_cast<Index>(block_x()) * threads() + thread(), each = a.P / Units;
  const Index turns = static_cast<Index>(blocks_y()) * Turns;
  const Index n = own / each, k = own % each * Units;
  if (n < a.N) {
    const auto keep = keeps_hidden<Units>(a, has, n, k);
    for (Index first = block_y() * Turns; first < a.T; first += turns) {
      u8 again[Turns];
      E h[Turns][Units];
      UNROLL for (int j = 0; j < Turns; ++j) again[j] = first + j < a.T ? asked_reset(a, has, n, first + j) : u8(0);
      UNROLL for (int j = 0; j < Turns; ++j) {
        const Index s = first + j, t = time_of(a, has, s), earlier = time_of(a, has, s - 1);
        const bool on = s < a.T && active(a, has, n, t), begins = s == 0 || !active(a, has, n, earlier);
        const E* before = again[j] ? a.initial_h : begins ? a.h_given : a.y;
        const Index row = again[j] || begins ? n : row_of(a, n, earlier);
        load_or_zero(on ? before : nullptr, row * a.P + k, h[j]);
      }
      UNROLL for (int j = 0; j < Turns; ++j) {
        if (first + j >= a.T) continue;
        UNROLL for (int i = 0; i < Units; ++i) h[j][i] = operand_of(keep[i], h[j][i]);
        store(a.operand + (time_of(a, has, first + j) * a.N + n) * a.P + k, h[j]);
      }
    }
  }
  if (a.gates_before) previous_gates<Turns>(a, has, own);
}

}  // namespace longshort
