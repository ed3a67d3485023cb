// The row of one sequence in one block, for the layer norms: who holds which units, and sums over all of them. The
// order of every sum is fixed, so the same row gives the same bits.
#pragma once
#include "device.cuh"

namespace longshort {

// v / count, rounded as a division is, where 1 / count is known when compiled.
template <class R>
DEVICE R shared_out(R v, R count) {
  const R inverse = R(1) / count, nearly = v * inverse;
  return fused(fused(-nearly, count, v), inverse, nearly);
}

// Folds Count sums over a warp into one a lane: lane l returns the total of v[l / (32 / Count)]; v is lost.
template <int Count, class R>
DEVICE R folded(R (&v)[Count]) {
  static_assert(Count == 1 || Count == 2 || Count == 4 || Count == 8, "the lanes share the sums evenly");
  int far = 16;
  UNROLL for (int left = Count / 2; left; left /= 2, far /= 2) {
    const bool upper = lane() & far;
    UNROLL for (int k = 0; k < left; ++k) {
      const R sent = upper ? v[k] : v[k + left];
      v[k] = (upper ? v[k + left] : v[k]) + across_warp(sent, far);
    }
  }
  UNROLL for (; far; far /= 2) v[0] += across_warp(v[0], far);
  return v[0];
}

// What the lanes hold of `folded`, to all of them.
template <int Count, class R>
DEVICE void spread(R mine, R (&totals)[Count]) {
  UNROLL for (int k = 0; k < Count; ++k) totals[k] = Count == 1 ? mine : of_lane(mine, k * (32 / Count));
}

// A block of Warps warps holds a row of H units: a thread Chunks times Units adjacent ones. With one or two chunks what
// a thread holds is in registers; with more, where a row is too wide for a block, the compiler puts it in memory.
//
// Sums meet in shared memory, in two halves that take turns: whoever writes a half has passed the barrier behind its
// last reading, so one barrier for each meeting is enough. A block of one warp has none.
template <int Units, int Chunks, int Warps, class R>
struct Row {
  static constexpr int Most = 8;  // numbers of a warp at one meeting; the host gives 2 Warps Most of 8 bytes
  const Index H;
  int turn;

  DEVICE_MEMBER explicit Row(Index width) : H(width), turn(0) {}

  // Calls each(chunk, first unit) for what this thread holds.
  template <class Each>
  DEVICE_MEMBER void each(Each each) const {
    const auto chunk = [&](int k) {
      const Index u = (static_cast<Index>(k) * Warps * 32 + thread()) * Units;
      if (u < H) each(k, u);
    };
    if (Chunks <= 2)
      UNROLL for (int k = 0; k < Chunks; ++k) chunk(k);
    else
      for (int k = 0; k < Chunks; ++k) chunk(k);
  }

  // Units that the threads of a warp hold.
  DEVICE_MEMBER int units_of(int warp) const {
    Index found = 0;
    for (int k = 0; k < Chunks; ++k) {
      const Index left = H - (static_cast<Index>(k) * Warps + warp) * 32 * Units;
      found += left < 0 ? 0 : left > 32 * Units ? 32 * Units : left;
    }
    return static_cast<int>(found);
  }

  DEVICE_MEMBER R* half() {
    turn ^= 1;
    return reinterpret_cast<R*>(shared()) + turn * Warps * Most;
  }

  // Totals over the row, to every thread; v holds this thread's.
  template <int Count>
  DEVICE_MEMBER void total(R (&v)[Count]) {
    static_assert(Count <= Most, "more than shared memory holds");
    const R mine = folded(v);
    if (Warps == 1) {
      spread(mine, v);
      return;
    }
    R* parts = half();
    if (lane() % (32 / Count) == 0) parts[thread() / 32 * Count + lane() / (32 / Count)] = mine;
    block_barrier();
    UNROLL for (int k = 0; k < Count; ++k) v[k] = R(0);
    UNROLL for (int warp = 0; warp < Warps; ++warp) {
      R part[Count];
      load(parts + warp * Count, part);
      UNROLL for (int k = 0; k < Count; ++k) v[k] += part[k];
    }
  }

  // `folded` sums of of(row, value) over what a warp holds; visit as below.
  template <int Count, class Visit, class Of>
  DEVICE_MEMBER R gathered(Visit visit, Of of) const {
    R by_unit[Count][Units] = {}, sums[Count];
    each([&](int chunk, Index) { visit(chunk, [&](int row, int j, R value) { by_unit[row][j] += of(row, value); }); });
    UNROLL for (int row = 0; row < Count; ++row) {
      sums[row] = by_unit[row][0];
      UNROLL for (int j = 1; j < Units; ++j) sums[row] += by_unit[row][j];
    }
    return folded(sums);
  }

  // Mean and sum of centred squares of a row, from each warp's sum and sum of squares around its own mean.
  DEVICE_MEMBER void join(const R* parts, int blocks, R& mean, R& squares) const {
    R part[Warps][2];
    mean = squares = R(0);
    UNROLL for (int warp = 0; warp < Warps; ++warp) {
      load(parts + warp * 2, part[warp]);
      mean += part[warp][0];
      squares += part[warp][1];
    }
    mean = shared_out(mean, R(blocks * H));
    UNROLL for (int warp = 0; warp < Warps; ++warp) {
      const R count = R(blocks * units_of(warp)), inverse = count > R(0) ? R(1) / count : R(0);
      const R off = part[warp][0] * inverse - mean;
      squares += count * off * off;
    }
  }

  // Mean and 1 / sqrt(var + eps) of Count rows, each of `blocks` numbers a unit. visit(chunk, take) calls
  // take(row, j, value) for all that this thread holds of unit j of a chunk.
  //
  // Each warp centres what it holds on its own mean, and the warps' means and squares are put together as Chan, Golub
  // & LeVeque (1983): exact as two passes over the row, at one meeting.
  template <int Count, class Visit>
  DEVICE_MEMBER void standardise(int blocks, R eps, Visit visit, R (&mean)[Count], R (&scale)[Count]) {
    static_assert(2 * Count <= Most, "more than shared memory holds");
    const int own = blocks * units_of(Warps == 1 ? 0 : thread() / 32);
    const R sum = gathered<Count>(visit, [](int, R value) { return value; });
    R centre[Count];
    spread(sum, centre);
    UNROLL for (int row = 0; row < Count; ++row) centre[row] = shared_out(centre[row], R(own ? own : 1));
    const R squares = gathered<Count>(visit, [&](int row, R value) {
      const R centred = value - centre[row];
      return centred * centred;
    });
    if (Warps == 1) {
      spread(squares, scale);
      UNROLL for (int row = 0; row < Count; ++row) mean[row] = centre[row];
    } else {
      R* parts = half();
      const R both[2] = {sum, squares};
      if (lane() % (32 / Count) == 0) store(parts + (lane() / (32 / Count) * Warps + thread() / 32) * 2, both);
      block_barrier();
      UNROLL for (int row = 0; row < Count; ++row) join(parts + row * Warps * 2, blocks, mean[row], scale[row]);
    }
    UNROLL for (int row = 0; row < Count; ++row) scale[row] = inverse_root(shared_out(scale[row], R(blocks * H)) + eps);
  }
};

}  // namespace longshort
