// Sums over rows, rounded, and numbers rounded as they are: the small gradients of a call in one launch.
//
// A part with one row is shared out by four numbers to a thread; of a matrix with padding what is left without it. One with
// several rows gives a block `Columns` columns: each of its lanes adds up every few rows, and one thread those of all lanes.
// The order never changes.
#include "device.cuh"

namespace longshort {

constexpr int MostParts = 6;

// Packed by the names below; eight bytes each.
template <class E, class R>
struct Part {
  const R* from;  // in: (rows, count)
  E* to;          // out: (count)  their sum over the rows, times `factor`
  E* again;       // out: (count)  the same, or null; null where padding is cut off
  double factor;
  i64 rows;
  i64 count;
  i64 end;        // the first block that is a later part's
  // of a matrix whose padding is cut off, else 0: `from` is (G `padded`, `pitch`), `to` (G `units`, `width`)
  i64 width;
  i64 pitch;
  i64 units;
  i64 padded;
};

// The argument: parts one after the other, the last ones empty.
template <class E, class R>
struct Rounded {
  using Element = E;
  using Wide = R;
  Part<E, R> parts[MostParts];
};

template <int Threads, class E, class R>
DEVICE void round_numbers(const Part<E, R>& part, i64 block) {
  constexpr int Adjacent = 4;
  const R factor = static_cast<R>(part.factor);
  const i64 at = (block * Threads + thread()) * Adjacent;
  if (at + Adjacent <= part.count) {
    R values[Adjacent];
    E rounded[Adjacent];
    load(part.from + at, values);
    UNROLL for (int j = 0; j < Adjacent; ++j) narrow(values[j] * factor, rounded[j]);
    store(part.to + at, rounded);
    if (part.again) store(part.again + at, rounded);
    return;
  }
  for (i64 k = at; k < part.count; ++k) {
    narrow(part.from[k] * factor, part.to[k]);
    if (part.again) part.again[k] = part.to[k];
  }
}

template <int Threads, class E, class R>
DEVICE void round_within(const Part<E, R>& part, i64 block) {
  constexpr int Turns = 4;
  const u32 width = static_cast<u32>(part.width), units = static_cast<u32>(part.units);
  R values[Turns];
  UNROLL for (int j = 0; j < Turns; ++j) {
    const u32 at = static_cast<u32>(block) * (Turns * Threads) + j * Threads + thread(), row = at / width;
    const i64 place = (row / units * part.padded + row % units) * part.pitch + at % width;
    values[j] = at < part.count ? constant(part.from + place) : R(0);
  }
  UNROLL for (int j = 0; j < Turns; ++j) {
    const u32 at = static_cast<u32>(block) * (Turns * Threads) + j * Threads + thread();
    if (at < part.count) narrow(values[j] * static_cast<R>(part.factor), part.to[at]);
  }
}

template <int Threads, class E, class R>
DEVICE void round_sums(const Part<E, R>& part, i64 block) {
  constexpr int Columns = 32, Lanes = Threads / Columns, Turns = 8;
  R* const sums = reinterpret_cast<R*>(shared());
  const int side = thread() % Columns, lane = thread() / Columns, rows = static_cast<int>(part.rows);
  const i64 column = block * Columns + side, apart = Lanes * part.count;
  const R* from = part.from + lane * part.count + column;
  R total = R(0);
  if (column < part.count)
    for (int first = lane; first < rows; first += Turns * Lanes, from += Turns * apart) {
      R values[Turns];  // all are asked for before one is waited for
      UNROLL for (int k = 0; k < Turns; ++k) values[k] = first + k * Lanes < rows ? constant(from + k * apart) : R(0);
      UNROLL for (int k = 0; k < Turns; ++k) total += values[k];
    }
  sums[lane * Columns + side] = total;
  block_barrier();
  if (lane > 0 || column >= part.count) return;
  UNROLL for (int k = 1; k < Lanes; ++k) total += sums[k * Columns + side];
  E rounded;
  narrow(total * static_cast<R>(part.factor), rounded);
  part.to[column] = rounded;
  if (part.again) part.again[column] = rounded;
}

template <int Threads, class A>
DEVICE void rounded(const A& a) {
  i64 begin = 0;
  for (int k = 0; k < MostParts; ++k) {
    const auto& part = a.parts[k];
    if (block_x() >= part.end) {
      begin = part.end;
      continue;
    }
    if (part.width)
      round_within<Threads>(part, block_x() - begin);
    else if (part.rows == 1)
      round_numbers<Threads>(part, block_x() - begin);
    else
      round_sums<Threads>(part, block_x() - begin);
    return;
  }
}

}  // namespace longshort
