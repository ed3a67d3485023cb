// Adjacent units of one thread: what the functions of call.cuh do for one, with loads and stores as wide as they get.
//
// A thread owns `Units` units from u on, a multiple of Units; the host sees to it that Units divides the width of
// every array and that what it was given is aligned. Units is 1 where a width is odd.
#pragma once
#include "call.cuh"

namespace longshort {

// Calls each(u) for the first of every few units of this thread.
template <int Units, class Each>
DEVICE void own_units(Index width, Each each) {
  const Index all = static_cast<Index>(blocks_y()) * threads() * Units;
  for (Index u = (static_cast<Index>(block_y()) * threads() + thread()) * Units; u < width; u += all) each(u);
}

// Elements from `at` on, or zeros where there is no array.
template <int Units, class T>
DEVICE void load_or_zero(const T* from, Index at, T (&to)[Units]) {
  if (from) {
    load(from + at, to);
    return;
  }
  UNROLL for (int j = 0; j < Units; ++j) to[j] = T{};
}

template <int Units, class R, class E>
DEVICE void store_narrow(E* to, const R (&from)[Units]) {
  E values[Units];
  UNROLL for (int j = 0; j < Units; ++j) narrow(from[j], values[j]);
  store(to, values);
}

// Whether h of the step before reaches h past the product, by (7) or (8).
template <class F>
DEVICE bool carries_output(const F& has) {
  return has(ZonesHidden) || has(MixesHidden) || has(Ragged);
}

// (6) to (8) for the outputs from k on: h̃ to y, to the state of the next step and, by `tell(operand)`, to its product.
// last: whether a later launch, or nobody, reads the state.
template <int Units, class A, class F, class Tell>
DEVICE void move_outputs(const A& a, const F& has, Index n, Index k, Index s, bool last,
                         const typename A::Wide (&fresh)[Units], Tell tell) {
  typename A::Element h[Units], seen[Units], operand[Units];
  const Index at = n * a.P + k;
  load_or_zero(carries_output(has) ? a.h : nullptr, at, h);
  const Index t = time_of(a, has, s);
  const bool on = active(a, has, n, t);
  const auto renews = renews_outputs<Units>(a, has, n, t, k);
  const auto keep = keeps_hidden<Units>(a, has, n, k);
  UNROLL for (int j = 0; j < Units; ++j)
    h[j] = renewed_output(a, has, n, k + j, t, on, renews[j], fresh[j], h[j], seen[j]);
  if (a.y) store(a.y + row_of(a, n, t) * a.P + k, seen);
  if (resets_after(a, has, n, s))
    UNROLL for (int j = 0; j < Units; ++j) h[j] = initial_h_at(a, n, k + j);
  UNROLL for (int j = 0; j < Units; ++j) operand[j] = operand_of(keep[j], h[j]);
  tell(operand);
  if (carries_output(has) || last) store(a.h + at, h);
}

// The same of one launch a step.
template <int Units, class A, class F>
DEVICE void move_outputs(const A& a, const F& has, Index n, Index k, Index s, const typename A::Wide (&fresh)[Units]) {
  move_outputs(a, has, n, k, s, s + 1 == a.T, fresh, [&](const typename A::Element (&operand)[Units]) {
    if (a.operand) store(a.operand + n * a.operand_pitch + k, operand);
  });
}

// What was kept of a gate, or of a cell, in the padding.
template <int Units, class R, class Of>
DEVICE void store_wide(R* to, bool on, Of of) {
  R values[Units];
  UNROLL for (int j = 0; j < Units; ++j) values[j] = on ? of(j) : R(0);
  store(to, values);
}

// Keeps a gate of (n, t), as the tape holds it and as a call returns it: value(j) and held(j) are those of unit u + j.
template <int Units, class A, class F, class Value, class Held>
DEVICE void keep_gates(const A& a, const F& has, Index n, Index t, Index u, int gate, bool on, Value value, Held held) {
  const Index at = ((t * a.N + n) * 4 + gate) * a.H + u;
  if (has(Tapes) && on) {
    if (tapes_wide(has)) {
      store_wide<Units>(reinterpret_cast<typename A::Wide*>(a.tape_gates) + at, true, held);
    } else {
      typename A::Wide values[Units];
      UNROLL for (int j = 0; j < Units; ++j) values[j] = held(j);
      store_narrow(a.tape_gates + at, values);
    }
  }
  if (has(KeepsGates)) store_wide<Units>(a.gates + (row_of(a, n, t) * 4 + gate) * a.H + u, on, value);
}
template <int Units, class A, class F, class Value>
DEVICE void keep_sigmoids(const A& a, const F& has, Index n, Index t, Index u, int gate, bool on, Value value) {
  using Held = Tape<typename A::Element, typename A::Wide>;
  keep_gates<Units>(a, has, n, t, u, gate, on, value, [&](int j) { return Held::of_sigmoid(value(j)); });
}
template <int Units, class A, class F>
DEVICE void keep_candidates(const A& a, const F& has, Index n, Index t, Index u, bool on,
                            const Cell<typename A::Wide> (&v)[Units]) {
  using Held = Tape<typename A::Element, typename A::Wide>;
  keep_gates<Units>(
      a, has, n, t, u, 2, on, [&](int j) { return v[j].g; },
      [&](int j) { return Held::of_candidate(v[j].a_g, v[j].g); });
}
template <int Units, class A, class F>
DEVICE void keep_cells(const A& a, const F& has, Index n, Index t, Index u, const typename A::Wide (&c)[Units], bool on) {
  if (has(KeepsCells))
    store_wide<Units>(a.cells + taped_cells(a, has, n, t) + u, on, [&](int j) { return c[j]; });
  else if (has(Tapes) && on)
    store(a.tape_cells + taped_cells(a, has, n, t) + u, c);
}

// Has the units from u on of an array brought nearer, once a line of 128 bytes.
template <class T>
DEVICE void bring_nearer(const T* row, Index u) {
  if (u * static_cast<Index>(sizeof(T)) % 128 == 0) fetch_ahead(row + u);
}

// ---- the way back

// The row of c_{t-1} of one sequence, null for zeros: the neighbour's, the first one, or a reset's.
template <class A, class F>
DEVICE const typename A::Wide* cells_before(const A& a, const F& has, Index n, Index s) {
  const Index earlier = time_of(a, has, s - 1);
  if (resets(a, has, n, time_of(a, has, s))) return a.initial_c ? a.initial_c + n * state_row(a, has) : nullptr;
  if (s > 0 && active(a, has, n, earlier)) return a.tape_cells + taped_cells(a, has, n, earlier);
  return a.c_given + n * state_row(a, has);
}

// What memory holds of the units from u on at step s, as `recall` of one.
template <int Units, class A, class F>
DEVICE void recall_units(const A& a, const F& has, Index n, Index s, Index u, Recalled<A> (&was)[Units]) {
  using R = typename A::Wide;
  const Index t = time_of(a, has, s), row = t * a.N + n;
  R cell[Units], before[Units];
  UNROLL for (int gate = 0; gate < 4; ++gate) {
    const Index at = (row * 4 + gate) * a.H + u;
    if (tapes_wide(has)) {
      R held[Units];
      load(reinterpret_cast<const R*>(a.tape_gates) + at, held);
      UNROLL for (int j = 0; j < Units; ++j) was[j].wide_gates[gate] = held[j];
    } else {
      typename A::Element held[Units];
      load(a.tape_gates + at, held);
      UNROLL for (int j = 0; j < Units; ++j) was[j].gates[gate] = held[j];
    }
  }
  load(a.tape_cells + taped_cells(a, has, n, t) + u, cell);
  load_or_zero(cells_before(a, has, n, s), u, before);
  UNROLL for (int j = 0; j < Units; ++j) {
    was[j].cell = cell[j], was[j].before = before[j];
    was[j].arriving = cell_gradient(a, has, n, t, u + j);
  }
}

// Has what step s will recall brought nearer while the product before it runs.
template <class A, class F>
DEVICE void recall_units_ahead(const A& a, const F& has, Index n, Index s, Index u) {
  using R = typename A::Wide;
  if (s < 0) return;
  const Index t = time_of(a, has, s), row = t * a.N + n, slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
  UNROLL for (int gate = 0; gate < 4; ++gate) {
    const Index at = (row * 4 + gate) * a.H, hat = (row * a.G + slots[gate]) * a.H;
    if (tapes_wide(has))
      bring_nearer(reinterpret_cast<const R*>(a.tape_gates) + at, u);
    else
      bring_nearer(a.tape_gates + at, u);
    if (tapes_wide(has) && slots[gate] >= 0) bring_nearer(a.hat_r + hat, u);
    if (has(NormsProducts) && slots[gate] >= 0) bring_nearer(a.hat_z + hat, u);
  }
  if (s > 0) bring_nearer(a.tape_cells + taped_cells(a, has, n, time_of(a, has, s - 1)), u);
  if (a.dy) bring_nearer(a.dy + n * a.dy_n + t * a.dy_t, u);
}

// What arrives at the outputs from k on of step s from outside, as `output_gradient` of one.
template <int Units, class A, class F>
DEVICE void output_gradients(const A& a, const F& has, Index n, Index k, Index s, typename A::Element (&dy)[Units]) {
  const Index t = time_of(a, has, s);
  load_or_zero(active(a, has, n, t) ? a.dy : nullptr, n * a.dy_n + t * a.dy_t + k, dy);
}

// W_hh' dr of the step after for a few outputs, as it lies there: its parts, to be added in their order.
template <int Units, class R, int Parts>
struct Product {
  R parts[Parts][Units];
  DEVICE_MEMBER R operator[](int j) const {
    R sum = parts[0][j];
    UNROLL for (int part = 1; part < Parts; ++part) sum += parts[part][j];
    return sum;
  }
};

// The same for those from k on.
template <int Units, int Parts, class A>
DEVICE void load_product(const A& a, Index n, Index k, Product<Units, typename A::Wide, Parts>& product) {
  UNROLL for (int part = 0; part < Parts; ++part)
    load_or_zero(part < a.dh_parts ? a.dh_product : nullptr, (part * a.N + n) * a.dh_pitch + k, product.parts[part]);
}

// What reaches a few outputs from the step after: through the product, and past it.
template <int Units, class R, int Parts>
struct Arriving {
  Product<Units, R, Parts> product;
  R past[Units];
};

template <int Units, int Parts, class A, class F>
DEVICE void load_arriving(const A& a, const F& has, Index n, Index k, Index s,
                          Arriving<Units, typename A::Wide, Parts>& from) {
  load_or_zero(carries_output(has) || s + 1 == a.T ? a.dh : nullptr, n * a.P + k, from.past);
  load_product(a, n, k, from.product);
}

// (9) to (11) for the outputs from k on; dy: of output_gradients. Moves what reaches h past the product.
template <int Units, int Parts, class A, class F, class R = typename A::Wide>
DEVICE void take_outputs(const A& a, const F& has, Index n, Index k, Index s, const typename A::Element (&dy)[Units],
                         Arriving<Units, R, Parts>& from, R (&renewed)[Units]) {
  const auto renews = renews_outputs<Units>(a, has, n, time_of(a, has, s), k);
  const auto keep = keeps_hidden<Units>(a, has, n, k);
  UNROLL for (int j = 0; j < Units; ++j)
    renewed[j] = arriving_output(a, has, n, k + j, s, keep[j], renews[j], from.product[j], dy[j], from.past[j]);
  if (carries_output(has)) store(a.dh + n * a.P + k, from.past);
}

}  // namespace longshort
