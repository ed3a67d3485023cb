// How a persistent kernel is cut; `tiling.py` chooses the numbers and says what they cost.
#pragma once
#include "decisions.cuh"
#include "exchange.cuh"
#include "lengths.cuh"
#include "product.cuh"

namespace longshort {

//   K         numbers of the operand: padded H forward, G times padded H backward
//   Units     units of a block; a group of blocks holds all of them
//   NT        column tiles: a sub-batch has up to 8 NT sequences
//   WM, WK    warps along the rows and along K
//   InRegisters, InShared   chunks of a warp's weights there
//   Subs      sub-batches that a group works through in turn
//   Blocks    of a group; more than one exchange through memory
//   RowByRow  whether lanes multiply rows, without tensor cores: one block alone, one sequence, exact float32
//   Normed    whether there is a norm, which spans the units
//   Parts     numbers of two bytes whose sum an operand is, backward with a norm
//   Outputs   of a block, where there is a projection, and how many there are in all, padded: forward that is K
//   Inputs    of x, padded, where its product is made here too: forward, one block alone, 16 bits
//   Single    whether a block has one sequence: one block alone, without norm and projection
template <int K_, int Units_, int NT_, int WM_, int WK_, int InRegisters_, int InShared_, int Subs_, int Blocks_,
          bool Exact_, bool RowByRow_, bool Normed_ = false, int Parts_ = 1, int Outputs_ = 0, int AllOutputs_ = 0,
          int Inputs_ = 0, bool Single_ = false>
struct Tiling {
  static constexpr int K = K_, Units = Units_, NT = NT_, WM = WM_, WK = WK_, InRegisters = InRegisters_;
  static constexpr int InShared = InShared_, Subs = Subs_, Blocks = Blocks_, Columns = 8 * NT_;
  static constexpr int Threads = WM * WK * 32;
  static constexpr bool Exact = Exact_, Exchanges = Blocks > 1, RowByRow = RowByRow_, Normed = Normed_;
  static constexpr int Parts = Parts_, Outputs = Outputs_, AllOutputs = AllOutputs_, Inputs = Inputs_;
  static constexpr bool Projects = Outputs > 0, Single = Single_;
};

template <bool First, class A, class B>
struct Either { using Type = A; };
template <class A, class B>
struct Either<false, A, B> { using Type = B; };

// A member that only some cuts have.
struct Nothing {
  static constexpr int Bytes = 0;
  template <class A>
  DEVICE_MEMBER explicit Nothing(const A&) {}
};

// The sequences of a block's sub-batch.
template <class Cut, class A>
struct Slice {
  int first;   // sequence of column 0
  int count;   // columns that are sequences
  DEVICE_MEMBER Slice(const A& a, int sub) {
    const int most = a.sequences.value, left = forgotten(a.N.value) - (block_x() / Cut::Blocks * Cut::Subs + sub) * most;
    first = a.N.value - left;
    count = left < 0 ? 0 : left < most ? left : most;
  }
};

}  // namespace longshort
