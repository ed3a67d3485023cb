// What a norm needs of a sequence whose units lie with all threads of a block and with all blocks of a group: numbers of
// every cell, added up in an order that never changes.
//
// The threads put their cells' numbers in shared memory; a warp for each sequence adds up what its block has, tells
// the other blocks through memory where there are others, waits for theirs as `exchange.cuh` has it, and leaves the result
// in shared memory for all. Two barriers: before the warps read, and before the threads do; of a warp alone, where the warp
// that adds a sequence up owns all of its cells.
#pragma once
#include "row.cuh"
#include "tiling.cuh"

namespace longshort {

//   Numbers   of a cell at one meeting, at most
//   Within    whether warp w owns all cells of the columns w, w + Warps and so on
template <class Cut, class A, int Numbers, bool Within>
struct Meeting {
  using R = typename A::Wide;
  static constexpr int Pitch = Cut::Units + 2, Most = 8;  // Most: what comes of a sequence
  static constexpr int PartBytes = Cut::Columns * Numbers * Pitch * 4, Bytes = PartBytes + Cut::Columns * Most * 4;
  static constexpr int Warps = Cut::Threads / 32, Turns = (Cut::Columns + Warps - 1) / Warps;
  static constexpr int Each = (Cut::Blocks + 31) / 32;  // blocks whose numbers a lane takes

  const A& a;
  R *parts, *results;
  int block, units;  // of the group, and how many units this one has

  DEVICE_MEMBER explicit Meeting(const A& arguments) : a(arguments) {}

  DEVICE_MEMBER void begin(char* memory) {
    parts = reinterpret_cast<R*>(memory);
    results = reinterpret_cast<R*>(memory + PartBytes);
    block = block_x() % Cut::Blocks;
    units = units_of(block);
  }

  // Units that a block of the group has: the last may have few, or none.
  DEVICE_MEMBER int units_of(int which) const {
    const int left = static_cast<int>(a.H) - which * Cut::Units;
    return left < 0 ? 0 : left < Cut::Units ? left : Cut::Units;
  }

  // Number i of the cell of unit u of this block in a column.
  DEVICE_MEMBER void put(int column, int i, int u, R value) { parts[(column * Numbers + i) * Pitch + u] = value; }

  DEVICE_MEMBER R result(int column, int i) const { return results[column * Most + i]; }

  static DEVICE_MEMBER void barrier() {
    if (Within)
      warp_barrier();
    else
      block_barrier();
  }

  // Calls each(column) for those of this thread's warp.
  template <class Do>
  DEVICE_MEMBER void each_column(int count, Do each) const {
    UNROLL for (int turn = 0; turn < Turns; ++turn) {
      const int column = thread() / 32 + turn * Warps;
      if (column < count) each(column);
    }
  }

  // Sums of of(row, number) over this block's units of a column, to every lane; with one row all numbers are its own.
  template <int Rows, class Of>
  DEVICE_MEMBER void add_up(int column, int numbers, Of of, R (&sum)[Rows]) const {
    UNROLL for (int row = 0; row < Rows; ++row) sum[row] = R(0);
    UNROLL for (int i = 0; i < Numbers; ++i) {
      if (i >= numbers) continue;
      const int row = Rows == 1 ? 0 : i < Rows ? i : 0;
      const R* from = parts + (column * Numbers + i) * Pitch;
      UNROLL for (int u = 0; u < Cut::Units; u += 32)
        if (u + lane() < units) sum[row] += of(row, from[u + lane()]);
    }
    const R mine = folded(sum);
    spread(mine, sum);
  }

  // Where block `which` posts what it has of a sequence at a meeting: Width numbers.
  template <int Width>
  DEVICE_MEMBER float* place(int meeting, int n, int which) const {
    return a.meetings + ((static_cast<Index>(meeting) * a.N + n) * Cut::Blocks + which) * Most;
  }

  // Posts Count numbers that every lane has, and zeros up to whole 16 bytes.
  template <int Count>
  DEVICE_MEMBER void post(int meeting, int n, const R (&values)[Count]) const {
    constexpr int Width = Count <= 4 ? 4 : 8;
    R value = R(0);
    UNROLL for (int i = 0; i < Count; ++i)
      if (lane() == i) value = values[i];
    if (lane() < Width) store_relaxed(place<Width>(meeting, n, block) + lane(), canonical(value));
  }

  // What the blocks posted of a sequence: those of blocks `lane` and 32 further, zeros where there is none. False if the
  // wait at step s was over, and the kernel with it.
  template <int Count>
  DEVICE_MEMBER bool collect(int meeting, int n, Index s, R (&found)[Each][Count]) const {
    constexpr int Width = Count <= 4 ? 4 : 8, Fours = Width / 4;
    UNROLL for (int k = 0; k < Each; ++k) {
      const int which = lane() + 32 * k;
      UNROLL for (int i = 0; i < Count; ++i) found[k][i] = R(0);
      if (which >= Cut::Blocks) continue;
      const float* from = place<Width>(meeting, n, which);
      const auto at = [&](int i) { return from + 4 * i; };
      Four v[Fours];
      UNROLL for (int i = 0; i < Fours; ++i) v[i] = load_relaxed(at(i));
      if (!settle<float>(a, s, v, at)) return false;
      UNROLL for (int i = 0; i < Count; ++i) {
        const Four& four = v[i / 4];
        found[k][i] = float_of(i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w);
      }
    }
    return true;
  }

  // Sums of Count numbers of all cells of each sequence: result(column, i). All threads call it, after `put`.
  //   meeting: its number in this launch.   first: sequence of column 0, of `count`.   s: the step, for a report.
  template <int Count>
  DEVICE_MEMBER void total(int meeting, int first, int count, Index s) {
    barrier();
    each_column(count, [&](int column) {
      R sum[Count];
      add_up(column, Count, [](int, R value) { return value; }, sum);
      if (Cut::Exchanges)
        post(meeting, first + column, sum);
      else
        leave(column, sum);
    });
    if constexpr (Cut::Exchanges) each_column(count, [&](int column) {
      R found[Each][Count], sum[Count];
      if (!collect(meeting, first + column, s, found)) return;
      UNROLL for (int i = 0; i < Count; ++i) {
        sum[i] = found[0][i];
        UNROLL for (int k = 1; k < Each; ++k) sum[i] += found[k][i];
      }
      const R mine = folded(sum);
      spread(mine, sum);
      leave(column, sum);
    });
    barrier();
  }

  // Mean and 1 / sqrt(var + eps) of Rows rows of each sequence: result(column, 2 row), result(column, 2 row + 1).
  // Cells put `numbers`: of one row, or one for each row.
  //
  // Every block centres on its own mean, and means and squares are put together as in row.cuh.
  template <int Rows>
  DEVICE_MEMBER void standardise(int meeting, int first, int count, Index s, int numbers) {
    const int each = Rows == 1 ? numbers : 1;
    barrier();
    each_column(count, [&](int column) {
      R sum[Rows], centre[Rows], squares[Rows], both[2 * Rows];
      add_up(column, numbers, [](int, R value) { return value; }, sum);
      UNROLL for (int row = 0; row < Rows; ++row) centre[row] = shared_out(sum[row], R(units ? each * units : 1));
      const auto squared = [&](int row, R value) { return (value - centre[row]) * (value - centre[row]); };
      add_up(column, numbers, squared, squares);
      UNROLL for (int row = 0; row < Rows; ++row) {
        both[2 * row] = Cut::Exchanges ? sum[row] : centre[row];
        both[2 * row + 1] = Cut::Exchanges ? squares[row] : scale(squares[row], each);
      }
      if (Cut::Exchanges)
        post(meeting, first + column, both);
      else
        leave(column, both);
    });
    if constexpr (Cut::Exchanges) each_column(count, [&](int column) {
      R both[2 * Rows];
      if (!join(meeting, first + column, s, each, both)) return;
      leave(column, both);
    });
    barrier();
  }

  DEVICE_MEMBER R scale(R squares, int each) const {
    return inverse_root(shared_out(squares, R(each * static_cast<int>(a.H))) + R(a.norm_eps));
  }

  template <int Count>
  DEVICE_MEMBER bool join(int meeting, int n, Index s, int each, R (&both)[Count]) const {
    constexpr int Rows = Count / 2;
    R found[Each][Count], mean[Rows], squares[Rows];
    if (!collect(meeting, n, s, found)) return false;
    UNROLL for (int row = 0; row < Rows; ++row) {
      mean[row] = found[0][2 * row];
      UNROLL for (int k = 1; k < Each; ++k) mean[row] += found[k][2 * row];
    }
    const R sums = folded(mean);
    spread(sums, mean);
    UNROLL for (int row = 0; row < Rows; ++row) {
      mean[row] = shared_out(mean[row], R(each * static_cast<int>(a.H)));
      squares[row] = R(0);
      UNROLL for (int k = 0; k < Each; ++k) {
        const int which = lane() + 32 * k, own = which < Cut::Blocks ? each * units_of(which) : 0;
        const R off = own ? shared_out(found[k][2 * row], R(own)) - mean[row] : R(0);
        squares[row] += found[k][2 * row + 1] + R(own) * off * off;
      }
    }
    const R all = folded(squares);
    spread(all, squares);
    UNROLL for (int row = 0; row < Rows; ++row) both[2 * row] = mean[row], both[2 * row + 1] = scale(squares[row], each);
    return true;
  }

  template <int Count>
  DEVICE_MEMBER void leave(int column, const R (&values)[Count]) {
    UNROLL for (int i = 0; i < Count; ++i)
      if (lane() == i) results[column * Most + i] = values[i];
  }
};

}  // namespace longshort
