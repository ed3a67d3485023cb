// (6) with a projection: a second resident matrix, and who owns what of h.
//
// Forward a block holds the rows of W_hr for its Outputs of h, backward those of W_hr' for its units, all in shared memory.
// The operand is h̃ of all units, or h̄' of all outputs, which the blocks tell each other as they do h; wide, so in 16
// bits as a sum of three. A thread owns outputs here as it owns cells in the persistent kernels, and hands on from step to
// step in shared memory.
#pragma once
#include "tiling.cuh"

namespace longshort {

// Outputs that a thread owns: (column, output) pairs, one after another.
template <class Cut, class A>
struct Owners {
  static constexpr int Outputs = Cut::Outputs;
  static constexpr int Own = (Outputs * Cut::Columns + Cut::Threads - 1) / Cut::Threads;
  static_assert(Cut::Subs * Own <= 32, "a bit for each output of each sub-batch");
  int output0;
  u32 hidden = 0;  // m_h of (1), a bit for each output of each sub-batch
  DEVICE_MEMBER int place(int k) const { return k * Cut::Threads + thread(); }
  DEVICE_MEMBER int output(int k) const { return output0 + place(k) % Outputs; }
  DEVICE_MEMBER int column(int k) const { return place(k) / Outputs; }
  DEVICE_MEMBER bool owns(const Slice<Cut, A>& slice, int k) const { return column(k) < slice.count; }
  DEVICE_MEMBER bool keeps(int sub, int k) const { return hidden >> (sub * Own + k) & 1u; }
  template <class F>
  DEVICE_MEMBER void keep(const A& a, const F& has, int sub, int k, int n) {
    hidden |= static_cast<u32>(keeps_hidden<1>(a, has, n, output(k))[0]) << (sub * Own + k);
  }
};

// The product of a second matrix, Rows of it in a block: all in shared memory, an operand of Parts numbers.
template <class Cut, class A, int K_, int Rows_>
struct Second {
  using E = typename A::Element;
  using R = typename A::Wide;
  static constexpr int K = K_, Rows = Rows_, Tiles = Rows / 16, Warps = Cut::Threads / 32, Parts = sizeof(E) == 2 ? 3 : 1;
  static constexpr int WM = Tiles % 4 == 0 && Warps % 4 == 0 ? 4 : Tiles % 2 == 0 && Warps % 2 == 0 ? 2 : 1;
  static constexpr int WK = Warps / WM, MT = Tiles / WM, Chunks = (K * sizeof(E) / 64 + WK - 1) / WK;
  using Core = Product<E, K, MT, Cut::NT, WM, WK, 0, Chunks, Cut::Exact>;
  static constexpr int StageBytes = Cut::Exchanges ? 0 : Parts * Cut::Columns * Core::Pitch;
  static constexpr int SumPitch = Rows + 4;  // of 4 bytes
  static constexpr int SumBytes = WK * Cut::Columns * SumPitch * 4;
  static constexpr int Bytes = Core::WeightBytes + StageBytes + SumBytes;

  const A& a;
  Core core;
  char* stage;
  float* sums;

  DEVICE_MEMBER explicit Second(const A& arguments) : a(arguments) {}

  // first: row of the block's first, of `all`.
  DEVICE_MEMBER void begin(char* memory, int first, int all) {
    core.load(memory, [&](int wm, int tile, int row) {  // of what nobody owns, another's: its sums are not read
      const int at = first + (wm * MT + tile) * 16 + row;
      return a.projection + static_cast<Index>(at < all ? at : 0) * K;
    });
    stage = memory + Core::WeightBytes;
    sums = reinterpret_cast<float*>(stage + StageBytes);
    for (int at = thread() * 16; at < StageBytes; at += Cut::Threads * 16)
      *reinterpret_cast<Four*>(stage + at) = {0, 0, 0, 0};
  }

  // Number k of the operand of sequence n at row `step` of the exchange, to whoever needs it.
  DEVICE_MEMBER void put(Index step, int n, int column, int k, R value) const {
    UNROLL for (int part = 0; part < Parts; ++part) {
      const E rounded = Core::told(taken<E>(value));
      if (Cut::Exchanges)
        store_relaxed(a.exchange_second + ((step * a.N + n) * Parts + part) * K + k, canonical(rounded));
      else
        *reinterpret_cast<E*>(stage + (part * Cut::Columns + column) * Core::Pitch + k * sizeof(E)) = rounded;
    }
  }

  // Multiplies what was `put`. All threads of the block call it; then `sum` holds. s: the step, for a report.
  DEVICE_MEMBER void run(const Slice<Cut, A>& slice, Index step, Index s) {
    float d[MT][Cut::NT][4];
    if constexpr (Cut::Exchanges) {
      const E* from = a.exchange_second + (step * a.N + slice.first) * Parts * K;
      const E* share[Cut::NT];
      UNROLL for (int j = 0; j < Cut::NT; ++j) share[j] = core.template share<Parts>(from, j, slice.count);
      if (slice.count > 0) core.template run_arriving<Parts>(a, share, s, [] {}, d);
    } else {
      block_barrier();
      core.template run<Parts>(stage, d);
    }
    if (slice.count > 0)
      UNROLL for (int m = 0; m < MT; ++m)
        UNROLL for (int c = 0; c < Cut::NT; ++c)
          UNROLL for (int r = 0; r < 4; ++r)
            sums[(core.wk * Cut::Columns + c * 8 + core.quarter * 2 + r % 2) * SumPitch + (core.wm * MT + m) * 16 +
                 r / 2 * 8 + core.group] = d[m][c][r];
    block_barrier();
  }

  DEVICE_MEMBER float sum(int column, int row) const {
    float found = 0.0f;
    UNROLL for (int w = 0; w < WK; ++w) found += sums[(w * Cut::Columns + column) * SumPitch + row];
    return found;
  }
};

// Forward: h from h̃.
template <class Cut, class A, class F>
struct Projection : Owners<Cut, A> {
  using E = typename A::Element;
  using R = typename A::Wide;
  using Own_ = Owners<Cut, A>;
  using Own_::Own, Own_::output, Own_::column, Own_::owns, Own_::output0;
  using Product_ = Second<Cut, A, Cut::Units * Cut::Blocks, Own_::Outputs>;
  static constexpr int Bytes = Product_::Bytes + Cut::Subs * Own * Cut::Threads * 4;

  const A& a;
  const F has;
  Product_ product;
  E* held;  // h of this thread's outputs, of each sub-batch

  DEVICE_MEMBER explicit Projection(const A& arguments) : a(arguments), has(arguments), product(arguments) {}

  DEVICE_MEMBER E& kept(int sub, int k) { return held[(sub * Own + k) * Cut::Threads + thread()]; }

  // h from which this launch starts.
  DEVICE_MEMBER E enter(int n, int p) const {
    if (a.step.value > 0) return a.h[n * a.P + p];
    return resets_after(a, has, n, -1) ? initial_h_at(a, n, p) : a.h_given[n * a.P + p];
  }

  // tell(sub, column, sequence, output, value): the operand of the other product, to whoever needs it.
  template <class Tell>
  DEVICE_MEMBER void begin(char* memory, Tell tell) {
    output0 = block_x() % Cut::Blocks * Own_::Outputs;
    product.begin(memory, output0, static_cast<int>(a.P));
    held = reinterpret_cast<E*>(memory + Product_::Bytes);
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Own; ++k) {
        if (!owns(slice, k)) continue;
        const int n = slice.first + column(k), p = output(k);
        E operand;
        narrow(R(0), operand);
        if (p < a.P) {
          this->keep(a, has, sub, k, n);
          kept(sub, k) = enter(n, p);
          operand = operand_of(this->keeps(sub, k), kept(sub, k));
          if (a.operand && a.step.value == 0) a.operand[n * a.P + p] = operand;
        }
        if (p < Cut::AllOutputs) tell(sub, column(k), n, p, operand);
      }
    }
  }

  // (6) to (8) for the outputs of step j of this launch. All threads of the block call it, after h̃ was `put`.
  template <class Tell>
  DEVICE_MEMBER void run(int sub, const Slice<Cut, A>& slice, int j, Tell tell) {
    product.run(slice, j, a.step.value + j);
    UNROLL for (int k = 0; k < Own; ++k) {
      if (!owns(slice, k)) continue;
      const int n = slice.first + column(k), p = output(k);
      E operand;
      narrow(R(0), operand);
      if (p < a.P) {
        finish(sub, k, n, p, a.step.value + j, product.sum(column(k), p - output0));
        operand = operand_of(this->keeps(sub, k), kept(sub, k));
      }
      if (j + 1 < a.steps.value && p < Cut::AllOutputs) tell(sub, column(k), n, p, operand);
    }
  }

  DEVICE_MEMBER void finish(int sub, int k, int n, int p, int s, R fresh) {
    const Index t = time_of(a, has, s);
    const bool renews = renews_outputs<1>(a, has, n, t, p)[0];
    E seen, next = renewed_output(a, has, n, p, t, active(a, has, n, t), renews, fresh, kept(sub, k), seen);
    if (a.y) a.y[row_of(a, n, t) * a.P + p] = seen;
    if (resets_after(a, has, n, s)) next = initial_h_at(a, n, p);
    kept(sub, k) = next;
  }

  DEVICE_MEMBER void leave() {
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Own; ++k)
        if (owns(slice, k) && output(k) < a.P) a.h[(slice.first + column(k)) * a.P + output(k)] = kept(sub, k);
    }
  }
};

// Backward: from what arrives at h to m of (12).
template <class Cut, class A, class F>
struct ProjectionBack : Owners<Cut, A> {
  using E = typename A::Element;
  using R = typename A::Wide;
  using Own_ = Owners<Cut, A>;
  using Own_::Own, Own_::output, Own_::column, Own_::owns, Own_::output0;
  using Product_ = Second<Cut, A, Cut::AllOutputs, Cut::Units>;
  static constexpr int Bytes = Product_::Bytes + Cut::Subs * Own * Cut::Threads * 4;

  const A& a;
  const F has;
  Product_ product;
  R* held;  // what reaches h past the product

  DEVICE_MEMBER explicit ProjectionBack(const A& arguments) : a(arguments), has(arguments), product(arguments) {}

  DEVICE_MEMBER R& past(int sub, int k) { return held[(sub * Own + k) * Cut::Threads + thread()]; }

  DEVICE_MEMBER void begin(char* memory, int unit0) {
    output0 = block_x() % Cut::Blocks * Own_::Outputs;
    product.begin(memory, unit0, static_cast<int>(a.H));
    held = reinterpret_cast<R*>(memory + Product_::Bytes);
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Own; ++k) {
        const bool mine = owns(slice, k) && output(k) < a.P;
        if (mine) this->keep(a, has, sub, k, slice.first + column(k));
        past(sub, k) = mine && a.dh ? a.dh[(slice.first + column(k)) * a.P + output(k)] : R(0);
      }
    }
  }

  // Asks for what arrives at this thread's outputs at step s from outside, before the other product is waited for.
  DEVICE_MEMBER void ask(const Slice<Cut, A>& slice, int s, E (&dy)[Own]) const {
    UNROLL for (int k = 0; k < Own; ++k)
      if (owns(slice, k) && output(k) < a.P) dy[k] = output_gradient(a, has, slice.first + column(k), output(k), s);
  }

  // Has what `ask` and a clip will read at step s brought nearer.
  DEVICE_MEMBER void ask_ahead(const Slice<Cut, A>& slice, int s) const {
    const Index t = time_of(a, has, s);
    UNROLL for (int k = 0; k < Own; ++k) {
      const int n = slice.first + column(k), p = output(k);
      if (!owns(slice, k) || p >= a.P) continue;
      if (a.dy) fetch_ahead(a.dy + at_strides(n, a.dy_n, t, a.dy_t) + p);
      if (has(ClipsProjection)) fetch_ahead(a.unclipped + (t * a.N + n) * a.P + p);
    }
  }

  // (9) to (11) for the outputs of step s, then W_hr' h̄': `m` holds. All threads of the block call it.
  // dy: of `ask`. arrived(column, output): W_hh' ā of the step after. Before the first step the gradient of h leaves instead.
  template <class Arrived>
  DEVICE_MEMBER void run(int sub, const Slice<Cut, A>& slice, int s, const E (&dy)[Own], Arrived arrived) {
    UNROLL for (int k = 0; k < Own; ++k) {
      if (!owns(slice, k)) continue;
      const int n = slice.first + column(k), p = output(k);
      R renewed = R(0);
      if (p < a.P) {
        const bool renews = s < 0 || renews_outputs<1>(a, has, n, time_of(a, has, s), p)[0];
        renewed = arriving_output(a, has, n, p, s, this->keeps(sub, k), renews, R(arrived(column(k), p - output0)), dy[k],
                                  past(sub, k));
        if (s < 0 && a.dh_first) a.dh_first[n * a.P + p] = past(sub, k);
        if (s >= 0) a.dprojected[(time_of(a, has, s) * a.N + n) * a.P + p] = renewed;
      }
      if (s >= 0 && p < Cut::AllOutputs) product.put(s, n, column(k), p, renewed);
    }
    if (s >= 0) product.run(slice, s, s);
  }

  DEVICE_MEMBER R m(int column, int unit) const { return product.sum(column, unit); }
};

}  // namespace longshort
