// W_ih x of (2) inside a persistent kernel, where many sequences share a block: the product's result would be 8 G H bytes
// of memory for each (n, t), written and read, and x is 2 C.
#pragma once
#include "tiling.cuh"

namespace longshort {

// One block alone. W_ih lies in shared memory beside what is left of W_hh there, cut among the warps alike, so that a
// thread's sums are those of its own cells. The product of a step ends the step before it, and fills the time in which
// other warps still compute cells. So x comes two steps ahead: asked for when step j begins, put in place when it ends,
// multiplied when step j + 1 ends.
template <class Cut, class A, int Tiles>
struct InputProduct {
  using E = typename A::Element;
  using Core = Product<E, Cut::Inputs, Tiles, Cut::NT, Cut::WM, 1, 0, Cut::Inputs / 32, false>;
  static constexpr int StageBytes = Cut::Columns * Core::Pitch, Bytes = Core::WeightBytes + 2 * StageBytes;
  static constexpr int PerRow = Cut::Inputs / Core::Vector, Vectors = Cut::Columns * PerRow;
  static constexpr int Turns = (Vectors + Cut::Threads - 1) / Cut::Threads;
  static_assert(Cut::WK == 1 && Cut::Subs == 1 && !Cut::Exchanges && sizeof(E) == 2, "one block alone, 16 bits");

  const A& a;
  Core core;
  char* stages;
  Four coming[Turns];

  DEVICE_MEMBER explicit InputProduct(const A& arguments) : a(arguments) {}

  DEVICE_MEMBER char* stage(int j) const { return stages + j % 2 * StageBytes; }

  // memory: Bytes, aligned to 16. row_of(weights, pitch, wm, tile, row): a row of weights as the other product has it.
  template <class RowOf>
  DEVICE_MEMBER void begin(char* memory, RowOf row_of) {
    core.load(memory,
              [&](int wm, int tile, int row) { return row_of(a.input_weights, Index(Cut::Inputs), wm, tile, row); });
    stages = memory + Core::WeightBytes;
    for (int at = thread() * 16; at < 2 * StageBytes; at += Cut::Threads * 16)  // padding stays
      *reinterpret_cast<Four*>(stages + at) = {0, 0, 0, 0};
  }

  // Calls use(turn, column, vector) for the 16 bytes of x that are this thread's.
  template <class Use>
  DEVICE_MEMBER void each(const Slice<Cut, A>& slice, Use use) const {
    UNROLL for (int turn = 0; turn < Turns; ++turn) {
      const int at = thread() + turn * Cut::Threads, column = at / PerRow, vector = at % PerRow;
      if (column < slice.count && vector < a.x_vectors.value) use(turn, column, vector);
    }
  }

  // x at t, on its way. In the padding it may hold anything: its column's sums are not kept.
  DEVICE_MEMBER void ask(const Slice<Cut, A>& slice, Index t) {
    each(slice, [&](int turn, int column, int vector) {
      const E* row = a.x + at_strides(slice.first + column, a.x_n, t, a.x_t);
      coming[turn] = *reinterpret_cast<const Four*>(row + vector * Core::Vector);
    });
  }

  // What was asked for last, as the operand of step j of this launch.
  DEVICE_MEMBER void put(const Slice<Cut, A>& slice, int j) {
    each(slice, [&](int turn, int column, int vector) {
      *reinterpret_cast<Four*>(stage(j) + column * Core::Pitch + vector * 16) = coming[turn];
    });
  }

  DEVICE_MEMBER void multiply(int j, float (&d)[Tiles][Cut::NT][4]) const { core.template run<1>(stage(j), d); }
};

}  // namespace longshort
