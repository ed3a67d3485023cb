// Matrices copied as products read them: with zeros behind columns and behind the rows of each gate, or transposed gate
// by gate; and sequences step by step, with zeros in the padding. Bits pass as they are.
#include "device.cuh"

namespace longshort {

// The argument, packed by the names below; eight bytes each.
template <class E, class R>
struct Copied {
  using Element = E;
  using Wide = R;
  const E* from;  // in: (G H, P), columns side by side
  E* to;          // out: transposed (P, G, K), padded (G rows, K), zeros where `from` has nothing
  i64 pitch;      // of a row of `from`, in elements
  i64 G;
  i64 H;
  i64 P;
  i64 K;
  i64 rows;
  i64 adjacent;   // columns that a thread copies at once, 4, 2 or 1: they divide P, K, all pitches and addresses
  // of `sequences`: `from` is (N, T, P), n so far apart as `pitch` says, and `to` (T, N, K)
  i64 N;
  i64 T;
  i64 pitch_t;
  const i64* lengths;  // in: (N), or null: from there on a sequence is zeros, whatever stands there
};

// Block (x, g) turns a tile of gate g, Tile units by Tile columns, in shared memory: so lanes lie side by side where
// they read and where they write. Rows there are an odd number of words apart, for lanes go down a column.
template <int Tile, int Threads, class A>
DEVICE void transposed(const A& a) {
  using E = typename A::Element;
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

// Copies `all` rows of K columns, zeros where source(row) is null and behind P. A thread owns `Adjacent` columns of `Rows`
// rows, which lie as far apart as there are threads to a row of them.
template <int Rows, int Adjacent, class A, class Source>
DEVICE void adjacent_rows(const A& a, u32 all, Source source) {
  using E = typename A::Element;
  const u32 apart = (all + Rows - 1) / Rows, columns = static_cast<u32>(a.K / Adjacent);
  const u32 own = static_cast<u32>(block_x()) * threads() + thread(), first = own / columns;
  const i64 p = static_cast<i64>(own % columns) * Adjacent;
  if (first >= apart) return;
  E kept[Rows][Adjacent] = {};
  UNROLL for (int k = 0; k < Rows; ++k) {
    const u32 row = first + k * apart;
    if (row >= all || p >= a.P) continue;
    const E* from = source(row);
    if (from) load(from + p, kept[k]);
  }
  UNROLL for (int k = 0; k < Rows; ++k) {
    const u32 row = first + k * apart;
    if (row < all) store(a.to + row * a.K + p, kept[k]);
  }
}
template <int Rows, class A, class Source>
DEVICE void rows(const A& a, u32 all, Source source) {
  if (a.adjacent == 4) adjacent_rows<Rows, 4>(a, all, source);
  else if (a.adjacent == 2) adjacent_rows<Rows, 2>(a, all, source);
  else adjacent_rows<Rows, 1>(a, all, source);
}

template <int Rows, class A>
DEVICE void padded(const A& a) {
  rows<Rows>(a, static_cast<u32>(a.G * a.rows), [&](u32 row) {
    const u32 gate = row / static_cast<u32>(a.rows), unit = row % static_cast<u32>(a.rows);
    return unit < a.H ? a.from + (gate * a.H + unit) * a.pitch : nullptr;
  });
}

template <int Rows, class A>
DEVICE void sequences(const A& a) {
  const u32 N = static_cast<u32>(a.N);
  rows<Rows>(a, static_cast<u32>(a.T) * N, [&](u32 row) {
    const u32 n = row % N, t = row / N;
    return !a.lengths || t < constant(a.lengths + n) ? a.from + n * a.pitch + t * a.pitch_t : nullptr;
  });
}

}  // namespace longshort
