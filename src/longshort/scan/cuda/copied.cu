// Matrices copied as products read them: with zeros behind columns and behind the rows of each gate, or transposed gate
// by gate; and sequences step by step, with zeros in the padding. Bits pass as they are.
//
// What a pass needs of these is one launch: parts one after the other, each with so many blocks.
#include "device.cuh"

namespace longshort {

constexpr int MostParts = 5;

// Packed by the names below; eight bytes each. Row r of `to` is row r % inner of the outer one r / inner.
template <class E, class R>
struct Part {
  const E* from;       // in: rows of P columns side by side; or null: all bits of `to` are set, for nothing is there yet
  E* to;               // out: (rows, K), zeros where `from` has nothing
  const i64* lengths;  // in: (inner), or null: an inner row has so many outer ones, whatever stands behind them
  i64 inner;           // of padded gates, rows of a gate with padding; of sequences N
  i64 limit;           // inner rows from there on are zeros
  i64 pitch;           // of inner rows of `from`, in elements
  i64 pitch_outer;
  i64 P;
  i64 K;
  i64 rows;
  i64 adjacent;        // columns that a thread copies at once, 4, 2 or 1: they divide P, K, all pitches and addresses
  i64 end;             // the first block that is a later part's
};

// The argument: parts, the last ones empty.
template <class E, class R>
struct Copied {
  using Element = E;
  using Wide = R;
  Part<E, R> parts[MostParts];
};

// The argument of `transposed`, packed by the names below; eight bytes each.
template <class E, class R>
struct Transposed {
  using Element = E;
  using Wide = R;
  const E* from;  // in: (G H, P), columns side by side
  E* to;          // out: (P, G, K), zeros where `from` has nothing
  i64 pitch;      // of a row of `from`, in elements
  i64 G;
  i64 H;
  i64 P;
  i64 K;
  i64 tiles;      // blocks (x, g) that turn; those behind them set bits
  E* blank;       // out: all bits of so many times 16 bytes are set, for nothing is there yet
  i64 vectors;
};

// Block (x, g) turns a tile of gate g, Tile units by Tile columns, in shared memory: so lanes lie side by side where
// they read and where they write. Rows there are an odd number of words apart, for lanes go down a column.
template <int Tile, int Threads, int Vectors, class A>
DEVICE void transposed(const A& a) {
  using E = typename A::Element;
  if (block_x() >= a.tiles) {
    i64 at = ((block_x() - a.tiles) * a.G + block_y()) * (Threads * Vectors) + thread();
    UNROLL for (int k = 0; k < Vectors; ++k, at += Threads)
      if (at < a.vectors) reinterpret_cast<Four*>(a.blank)[at] = {~0u, ~0u, ~0u, ~0u};
    return;
  }
  constexpr int Pitch = Tile + (sizeof(E) < 4 ? 4 / sizeof(E) : 1), Step = Threads / Tile, Turns = Tile / Step;
  E* const tile = reinterpret_cast<E*>(shared());
  const int P = static_cast<int>(a.P), H = static_cast<int>(a.H), K = static_cast<int>(a.K), across = (P + Tile - 1) / Tile;
  const int unit = block_x() / across * Tile, column = block_x() % across * Tile;
  const int side = thread() % Tile, down = thread() / Tile;
  const i64 gate = block_y(), read = Step * a.pitch, written = Step * a.G * a.K;

  E kept[Turns];  // all are asked for before one is waited for
  const E* from = a.from + (gate * H + unit + down) * a.pitch + column + side;
  UNROLL for (int k = 0; k < Turns; ++k)
    kept[k] = unit + down + k * Step < H && column + side < P ? constant(from + k * read) : E{};
  UNROLL for (int k = 0; k < Turns; ++k) tile[(down + k * Step) * Pitch + side] = kept[k];
  block_barrier();
  E* to = a.to + ((column + down) * a.G + gate) * K + unit + side;
  UNROLL for (int k = 0; k < Turns; ++k)
    if (unit + side < K && column + down + k * Step < P) to[k * written] = tile[side * Pitch + down + k * Step];
}

// All bits set, as `exchange.cuh` knows what is not there yet. Blocks tell each other no doubles.
DEVICE void set_bits(bfloat16& v) { v.bits = 0xffff; }
DEVICE void set_bits(float& v) { v = float_of(~0u); }
DEVICE void set_bits(double&) {}

// Copies a part. A thread owns `Adjacent` columns of `Rows` rows, which lie as far apart as there are threads to a row of
// them.
template <int Rows, int Adjacent, class E, class R>
DEVICE void adjacent_rows(const Part<E, R>& part, u32 block) {
  const u32 all = static_cast<u32>(part.rows), apart = (all + Rows - 1) / Rows, columns = static_cast<u32>(part.K / Adjacent);
  const u32 own = block * threads() + thread(), first = own / columns, inner = static_cast<u32>(part.inner);
  const i64 p = static_cast<i64>(own % columns) * Adjacent;
  if (first >= apart) return;
  E kept[Rows][Adjacent] = {};
  if (!part.from)
    UNROLL for (int k = 0; k < Rows; ++k)
      UNROLL for (int j = 0; j < Adjacent; ++j) set_bits(kept[k][j]);
  UNROLL for (int k = 0; k < Rows; ++k) {
    const u32 row = first + k * apart, outer = row / inner, in = row % inner;
    if (row >= all || p >= part.P || in >= part.limit || !part.from) continue;
    if (part.lengths && outer >= constant(part.lengths + in)) continue;
    load(part.from + outer * part.pitch_outer + in * part.pitch + p, kept[k]);
  }
  UNROLL for (int k = 0; k < Rows; ++k) {
    const u32 row = first + k * apart;
    if (row < all) store(part.to + row * part.K + p, kept[k]);
  }
}

template <int Rows, class A>
DEVICE void copied(const A& a) {
  i64 begin = 0;
  for (int k = 0; k < MostParts; ++k) {
    const auto& part = a.parts[k];
    if (block_x() >= part.end) {
      begin = part.end;
      continue;
    }
    const u32 block = static_cast<u32>(block_x() - begin);
    if (part.adjacent == 4) adjacent_rows<Rows, 4>(part, block);
    else if (part.adjacent == 2) adjacent_rows<Rows, 2>(part, block);
    else adjacent_rows<Rows, 1>(part, block);
    return;
  }
}

}  // namespace longshort
