// (6) with a projection: a second resident matrix, whose product is h, and who owns what of h.
//
// A block holds the rows of W_hr for its Outputs of h, all in shared memory. The operand is h̃ of all units, which the
// blocks tell each other as they do h; wide, so in 16 bits as a sum of two. A thread owns outputs here as it owns
// cells in `persistent_forward.cu`, and hands each from step to step in shared memory.
#pragma once
#include "tiling.cuh"

namespace longshort {

template <class Cut, class A, class F>
struct Projection {
  using E = typename A::Element;
  using R = typename A::Wide;
  static constexpr int Outputs = Cut::Outputs > 0 ? Cut::Outputs : 16, K = Cut::Units * Cut::Blocks;
  static constexpr int Warps = Cut::Threads / 32, Rows = Outputs / 16, Parts = sizeof(E) == 2 ? 2 : 1;
  static constexpr int WM = Rows % 4 == 0 && Warps % 4 == 0 ? 4 : Rows % 2 == 0 && Warps % 2 == 0 ? 2 : 1;
  static constexpr int WK = Warps / WM, Chunks = (K * sizeof(E) / 64 + WK - 1) / WK;
  using Core = Product<E, K, Rows / WM, Cut::NT, WM, WK, 0, Chunks, Cut::Exact>;
  static constexpr int StageBytes = Cut::Exchanges ? 0 : Parts * Cut::Columns * Core::Pitch;
  static constexpr int SumPitch = Outputs + 4;  // of 4 bytes
  static constexpr int SumBytes = WK * Cut::Columns * SumPitch * 4;
  static constexpr int Own = (Outputs * Cut::Columns + Cut::Threads - 1) / Cut::Threads;
  static constexpr int Bytes = Core::WeightBytes + StageBytes + SumBytes + Cut::Subs * Own * Cut::Threads * 4;

  const A& a;
  const F has;
  Core core;
  char* stage;
  float* sums;
  E* held;  // h of this thread's outputs, of each sub-batch
  int output0;

  DEVICE_MEMBER explicit Projection(const A& arguments) : a(arguments), has(arguments) {}

  DEVICE_MEMBER int place(int k) const { return k * Cut::Threads + thread(); }
  DEVICE_MEMBER int output(int k) const { return output0 + place(k) % Outputs; }
  DEVICE_MEMBER int column(int k) const { return place(k) / Outputs; }
  DEVICE_MEMBER bool owns(const Slice<Cut, A>& slice, int k) const { return column(k) < slice.count; }
  DEVICE_MEMBER E& kept(int sub, int k) { return held[(sub * Own + k) * Cut::Threads + thread()]; }

  // tell(sub, column, sequence, output, value): the first operand of the other product, to whoever needs it.
  template <class Tell>
  DEVICE_MEMBER void begin(char* memory, Tell tell) {
    output0 = block_x() % Cut::Blocks * Outputs;
    core.load(memory, [&](int wm, int tile, int row) {  // of what nobody owns, another's: its sums are not read
      const int p = output0 + (wm * (Rows / WM) + tile) * 16 + row;
      return a.projection + static_cast<Index>(p < a.P ? p : 0) * K;
    });
    stage = memory + Core::WeightBytes;
    sums = reinterpret_cast<float*>(stage + StageBytes);
    held = reinterpret_cast<E*>(reinterpret_cast<char*>(sums) + SumBytes);
    for (int at = thread() * 16; at < StageBytes; at += Cut::Threads * 16) *reinterpret_cast<Four*>(stage + at) = {0, 0, 0, 0};
    block_barrier();
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Own; ++k) {
        if (!owns(slice, k)) continue;
        const int n = slice.first + column(k), p = output(k);
        E h, operand;
        narrow(R(0), h);
        if (p < a.P) h = a.step.value > 0 ? a.h[n * a.P + p] : resets_after(a, has, n, -1) ? initial_h_at(a, n, p) : a.h_given[n * a.P + p];
        kept(sub, k) = h;
        operand = p < a.P ? operand_of(keeps_hidden<1>(a, has, n, p)[0], h) : h;
        if (p < a.P && a.operand && a.step.value == 0) a.operand[n * a.P + p] = operand;
        tell(sub, column(k), n, p, operand);
      }
    }
  }

  // h̃ of a cell of this block to the product of step j of this launch; 0 for units that there are not.
  DEVICE_MEMBER void put(int j, int n, int column, int u, R value) const {
    UNROLL for (int part = 0; part < Parts; ++part) {
      E rounded;
      narrow(value, rounded);
      const R left = value - wide(rounded);
      value = left - left == R(0) ? left : R(0);  // nothing is left of what is not finite
      if (Cut::Exchanges)
        store_relaxed(a.exchange_cells + ((static_cast<Index>(j) * a.N + n) * Parts + part) * K + u, canonical(rounded));
      else
        *reinterpret_cast<E*>(stage + (part * Cut::Columns + column) * Core::Pitch + u * sizeof(E)) = rounded;
    }
  }

  // (6) to (8) for the outputs of step j of this launch. All threads of the block call it, after `put`.
  template <class Tell>
  DEVICE_MEMBER void run(int sub, const Slice<Cut, A>& slice, int j, Tell tell) {
    float d[Rows / WM][Cut::NT][4];
    const int s = a.step.value + j;
    if constexpr (Cut::Exchanges) {
      const E* from = a.exchange_cells + (static_cast<Index>(j) * a.N + slice.first) * Parts * K;
      if (slice.count > 0) core.template run_arriving<Parts>(a, from, slice.count, s, [] {}, d);
    } else {
      block_barrier();
      core.template run<Parts>(stage, d);
    }
    if (slice.count > 0)
      UNROLL for (int m = 0; m < Rows / WM; ++m)
        UNROLL for (int c = 0; c < Cut::NT; ++c)
          UNROLL for (int r = 0; r < 4; ++r)
            sums[(core.wk * Cut::Columns + c * 8 + core.quarter * 2 + r % 2) * SumPitch + (core.wm * (Rows / WM) + m) * 16 +
                 r / 2 * 8 + core.group] = d[m][c][r];
    block_barrier();
    UNROLL for (int k = 0; k < Own; ++k) {
      if (!owns(slice, k)) continue;
      const int n = slice.first + column(k), p = output(k);
      if (p < a.P) {
        float fresh = 0.0f;
        UNROLL for (int w = 0; w < WK; ++w) fresh += sums[(w * Cut::Columns + column(k)) * SumPitch + (p - output0)];
        finish(sub, k, n, p, s, fresh);
      }
      if (j + 1 >= a.steps.value) continue;
      const E h = kept(sub, k);
      tell(sub, column(k), n, p, p < a.P ? operand_of(keeps_hidden<1>(a, has, n, p)[0], h) : h);
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

}  // namespace longshort
