// All steps in one launch, forward, of many sequences: W_hh stays in shared memory, and teams of four warps multiply it.
//
// A group of Blocks blocks holds W_hh once, each block the four gates of 16 units, and has one set of sequences or two.
// A set's Splits teams share out K, and its cells. It knows nothing of the other set: while one computes cells, or waits,
// the other multiplies. At each step a team waits until the blocks have written their part of the operand h_{t-1} of (1)
// for its set, has its tiles copied to shared memory, multiplies (1), and computes (2) to (8) with adjacent units to a
// thread. No norm, projection or gate recurrence: those span units.
#include "hopper.cuh"
#include "exchange.cuh"
#include "units_forward.cuh"

namespace longshort {

//   K        numbers of the operand: padded H, which the tile divides
//   Columns  of a set: 8 times 1 to 8, 10, 12, 14 or 16
//   Sets     of a block: 1 or 2
//   Splits   teams of a set, each with a part of K
//   Stages   tiles of the operand that a team has room for, at least 2
//   Units    adjacent units of a thread
template <int K_, int Columns_, int Sets_, int Splits_, int Stages_, int Units_>
struct Team {
  static constexpr int K = K_, Columns = Columns_, Sets = Sets_, Splits = Splits_, Stages = Stages_, Units = Units_;
  static constexpr int BlockUnits = 16, Blocks = K / BlockUnits, Rows = 4 * BlockUnits;
  static constexpr int Threads = Splits * TeamThreads;  // of a set
};

template <class F, class Cut, class A>
struct TeamForward {
  using E = typename A::Element;
  using R = typename A::Wide;
  static constexpr int RowBytes = 128, Pieces = 4, Vector = 16 / sizeof(E), Tile = RowBytes / sizeof(E);
  static constexpr int Chunks = Cut::K / Tile, Most = (Chunks + Cut::Splits - 1) / Cut::Splits, Stages = Cut::Stages;
  static constexpr int WeightBytes = Chunks * Cut::Rows * RowBytes, StageBytes = Cut::Columns * RowBytes;
  static constexpr int RoomBytes = Stages * StageBytes, SetBytes = Cut::Splits * RoomBytes;
  static constexpr int Tiles = Cut::Columns / 8, PerColumn = Cut::BlockUnits / Cut::Units;
  // cells of a thread, a few units each
  static constexpr int Cells = (Cut::Columns * PerColumn + Cut::Threads - 1) / Cut::Threads;
  // Whether W_ih x is asked for before the product: in registers that the product leaves.
  static constexpr bool Early = Cells * Cut::Units <= 8;
  static_assert(Cut::K % Tile == 0 && Stages >= 2, "whole tiles, and room for the sums, which take that of two");
  static_assert(Most * (Cut::Splits - 1) < Chunks, "every team has a part");
  using Few = Held<Cut::Units, A>;

  const A& a;
  F has;
  const int team, set, at;     // this thread's team and set of the block, its place among the set's threads
  const int unit0, u;          // the block's first unit and this thread's
  const int first, count;      // sequence of column 0, columns that are sequences
  const int chunk0, chunks;    // this team's part of K
  char *weights, *stages;      // stages of this team
  u64 *full, *empty;           // of each stage: its tile is there; all warps have multiplied it
  u64* posts;                  // of the set: the operand of a step is there
  R* sums;                     // of each team of the set, (Columns, 4, 16) where its stages are
  E* operand;                  // (2, K / Tile, Columns, 128 bytes), as tiles lie in shared memory; of steps in turns
  u32* posted;                 // (128): steps whose operand a block has written
  typename A::Element bias[4][Cut::Units];
  int fetched = 0, fetches = 0;  // the stage of the tile to be fetched next, and how often it was
  int taken = 0, turn = 0;       // the stage of the tile to be multiplied next, and the parity of its phase

  DEVICE_MEMBER explicit TeamForward(const A& arguments)
      : a(arguments),
        has(arguments),
        team(uniform(thread() / TeamThreads)),
        set(team / Cut::Splits),
        at(thread() % Cut::Threads),
        unit0(block_x() % Cut::Blocks * Cut::BlockUnits),
        u(unit0 + at % PerColumn * Cut::Units),
        first((block_x() / Cut::Blocks * Cut::Sets + set) * a.sequences.value),
        count(least(a.sequences.value, a.N.value - first)),
        chunk0(team % Cut::Splits * Most),
        chunks(least(Most, Chunks - chunk0)),
        weights(shared()),
        stages(shared() + WeightBytes + team * RoomBytes),
        full(reinterpret_cast<u64*>(shared() + WeightBytes + Cut::Sets * SetBytes) + team * 2 * Stages),
        empty(full + Stages),
        posts(full + (Cut::Sets * Cut::Splits - team) * 2 * Stages + set),
        sums(reinterpret_cast<R*>(shared() + WeightBytes + set * SetBytes)),
        operand(a.exchange + (block_x() / Cut::Blocks * Cut::Sets + set) * static_cast<i64>(2 * Cut::K * Cut::Columns)),
        posted(a.posted + (block_x() / Cut::Blocks * Cut::Sets + set) * 128) {}

  DEVICE_MEMBER static int least(int v, int w) { return v < w ? v : w; }
  DEVICE_MEMBER int column(int k) const { return (at + k * Cut::Threads) / PerColumn; }
  DEVICE_MEMBER bool owns(int k) const { return column(k) < count && u < a.H; }
  DEVICE_MEMBER bool leads() const { return thread() % TeamThreads == 0; }
  DEVICE_MEMBER void meet() const { team_barrier(set, Cut::Threads); }

  // One step of a cell of this thread; of what nobody owns, another's, to be read and not written.
  DEVICE_MEMBER UnitsForward<Cut::Units, A, F> cell(int k, int s) const {
    return {a, least(first + column(k), a.N.value - 1), s};
  }
  DEVICE_MEMBER Index readable() const { return least(u, static_cast<int>(a.H) - Cut::Units); }

  // Where number k of column c lies in the operand, and a sum of a column among the sums: no two lanes of a warp that
  // write at once, or read, meet in a bank.
  DEVICE_MEMBER static int place(int c, int k) {
    return (k / Tile * Cut::Columns + c) * Tile + ((k % Tile / Vector) ^ (c % 8)) * Vector + k % Vector;
  }
  DEVICE_MEMBER static int sum_place(int c, int gate, int unit) {
    return c * Cut::Rows + ((gate * Cut::BlockUnits + unit) ^ ((c / 2 % 4 * 8) ^ (c % 2 * 16)));
  }

  DEVICE_MEMBER void load_weights() const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    constexpr int PerRow = RowBytes / 16;
    for (int k = thread(); k < Chunks * Cut::Rows * PerRow; k += Cut::Sets * Cut::Threads) {
      const int piece = k % PerRow, row = k / PerRow % Cut::Rows, chunk = k / PerRow / Cut::Rows;
      const int unit = unit0 + row % Cut::BlockUnits;
      const Index slot = slots[row / Cut::BlockUnits];
      Four v = {0, 0, 0, 0};
      if (slot >= 0 && unit < a.H)
        v = rounded(*reinterpret_cast<const Four*>(a.weights + (slot * a.H + unit) * a.weight_pitch + chunk * Tile +
                                                   piece * Vector));
      *reinterpret_cast<Four*>(weights + (chunk * Cut::Rows + row) * RowBytes + ((piece ^ (row % 8)) * 16)) = v;
    }
  }

  // 16 bytes of an operand: float32 rounds to tf32, of which the product would cut the rest off.
  DEVICE_MEMBER static Four rounded(Four v) {
    if (sizeof(E) == 4)
      v = {rounded_to_tf32(v.x), rounded_to_tf32(v.y), rounded_to_tf32(v.z), rounded_to_tf32(v.w)};
    return v;
  }
  DEVICE_MEMBER static float multiplicand(float v) { return float_of(rounded_to_tf32(bits_of(v))); }
  template <class T>
  DEVICE_MEMBER static T multiplicand(T v) { return v; }

  // Writes some units of column c to the operand of step j of this launch.
  template <int Units>
  DEVICE_MEMBER void tell(int j, int c, int unit, const E (&values)[Units]) const {
    E own[Units];
    UNROLL for (int k = 0; k < Units; ++k) own[k] = multiplicand(values[k]);
    store(operand + j % 2 * Cut::K * Cut::Columns + place(c, unit), own);
  }

  // The operand of step j is written, as far as it is this block's.
  DEVICE_MEMBER void post(int j) const {
    order_in_shared();  // the sums were where the next tiles will be
    meet();
    if (at == 0) release(posted + block_x() % Cut::Blocks, static_cast<u32>(j + 1));
  }

  // The state from which this launch starts: of the launch before it, or the given one, or a reset's (0).
  DEVICE_MEMBER void begin() const {
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int c = column(k), n = first + c;
      E values[Cut::Units];
      UNROLL for (int j = 0; j < Cut::Units; ++j) {
        narrow(R(0), values[j]);
        if (c >= count || u + j >= a.H) continue;
        const Index cell = n * a.H + u + j;
        E h;
        if (a.step.value > 0) {
          h = a.h[cell];
        } else {
          const bool again = resets_after(a, has, n, -1);
          h = again ? initial_h_at(a, n, u + j) : a.h_given[cell];
          a.h[cell] = h;
          a.c[cell] = again ? initial_c_at(a, has, n, u + j) : a.c_given[cell];
        }
        values[j] = operand_of(keeps_hidden<1>(a, has, n, u + j)[0], h);
        if (a.operand && a.step.value == 0) a.operand[cell] = values[j];
      }
      if (c < Cut::Columns) tell(0, c, u, values);
    }
  }

  // Waits until every block has posted the operand of step j: the first warp of a team.
  DEVICE_MEMBER bool await(int j) const {
    const u32 wanted = static_cast<u32>(j + 1);
    Patience patience;
    for (;;) {
      bool there = true;
      if (lane() * 4 < Cut::Blocks) {
        const Four v = acquire(posted + lane() * 4);
        const u32 all[4] = {v.x, v.y, v.z, v.w};
        UNROLL for (int k = 0; k < 4; ++k) there = there && (lane() * 4 + k >= Cut::Blocks || all[k] >= wanted);
      }
      if (all_in_warp(there)) break;
      if (patience.is_over(a, a.step + j)) return false;
      relax();
    }
    warp_barrier();
    return true;
  }

  // Has tile `chunk` of the operand of step j copied to the next stage, once that is free.
  DEVICE_MEMBER void fetch(int j, int chunk) {
    if (fetches > 0)
      while (!is_over(empty + fetched, (fetches - 1) % 2)) relax();
    arrive_before(full + fetched, StageBytes);
    char* to = stages + fetched * StageBytes;
    const E* from = operand + (j % 2 * Chunks + chunk) * Cut::Columns * Tile;
    copy_arriving(to, from, StageBytes, full + fetched);
    if (++fetched == Stages) fetched = 0, ++fetches;
  }

  // (1), this team's part of it.
  DEVICE_MEMBER void multiply(int j, float (&d)[Tiles][4]) {
    UNROLL for (int k = 0; k < Tiles; ++k) UNROLL for (int r = 0; r < 4; ++r) d[k][r] = 0;
    if (thread() % TeamThreads < 32) {
      // One warp of the set looks: the fewer do, the sooner others' numbers arrive.
      if (team % Cut::Splits == 0 && await(j) && leads()) arrive(posts);
      while (!is_over(posts, j % 2)) relax();
      order_in_memory();
      if (leads()) ROLLED for (int chunk = 0; chunk < Stages && chunk < chunks; ++chunk) fetch(j, chunk0 + chunk);
      warp_barrier();
    }
    int before = 0;
    ROLLED for (int chunk = 0; chunk < chunks; ++chunk) {
      while (!is_over(full + taken, turn)) relax();
      held(d);
      begin_products();
      UNROLL for (int piece = 0; piece < Pieces; ++piece)
        multiply_tile(E{}, d, weights + (chunk0 + chunk) * Cut::Rows * RowBytes, stages + taken * StageBytes, piece);
      end_products();
      held(d);
      if (chunk > 0) {  // the tile before is multiplied
        wait_products<1>();
        if (lane() == 0) arrive(empty + before);
        if (leads() && chunk - 1 + Stages < chunks) fetch(j, chunk0 + chunk - 1 + Stages);
        warp_barrier();
      }
      before = taken;
      if (++taken == Stages) taken = 0, turn ^= 1;
    }
    wait_products<0>();
    held(d);
    if (lane() == 0) arrive(empty + before);
  }

  DEVICE_MEMBER void ask(int s, Few (&few)[Cells]) const {
    UNROLL for (int k = 0; k < Cells; ++k) {
      const auto here = cell(k, s);
      here.ask_inputs(readable(), few[k]);
      load(a.c + here.n * a.H + readable(), few[k].c);
    }
  }

  // The sums of all teams, into what was asked for.
  DEVICE_MEMBER void add_up(int c, Few& few) const {
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      load(sums + sum_place(c, gate, u - unit0), few.of_h[gate]);
      UNROLL for (int other = 1; other < Cut::Splits; ++other) {
        R more[Cut::Units];
        load(sums + other * (RoomBytes / static_cast<int>(sizeof(R))) + sum_place(c, gate, u - unit0), more);
        UNROLL for (int i = 0; i < Cut::Units; ++i) few.of_h[gate][i] += more[i];
      }
    }
  }

  DEVICE_MEMBER void step(int j) {
    const int s = a.step.value + j;
    const bool more = j + 1 < a.steps.value;
    Few few[Cells];
    if (Early) ask(s, few);
    UNROLL for (int k = 0; k < Cells; ++k)
      if (owns(k) && more) cell(k, s).ask_ahead(u, true);
    float d[Tiles][4];
    multiply(j, d);
    meet();  // the sums take the place of the stages
    const int gate = thread() % TeamThreads / 32, group = lane() / 4, quarter = lane() % 4;
    R* own = reinterpret_cast<R*>(stages);
    UNROLL for (int k = 0; k < Tiles; ++k)
      UNROLL for (int r = 0; r < 4; ++r)
        own[sum_place(8 * k + 2 * quarter + r % 2, gate, group + r / 2 * 8)] = d[k][r];
    if (!Early) ask(s, few);
    meet();
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int c = column(k);
      if (!owns(k)) {
        E zero[Cut::Units];
        UNROLL for (int i = 0; i < Cut::Units; ++i) narrow(R(0), zero[i]);
        if (c < Cut::Columns && more) tell(j + 1, c, u, zero);
        continue;
      }
      const auto here = cell(k, s);
      add_up(c, few[k]);
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int i = 0; i < Cut::Units; ++i) few[k].bias[gate][i] = bias[gate][i];
      here.add_parts(few[k]);
      here.open(u, few[k]);
      R out[Cut::Units];
      UNROLL for (int i = 0; i < Cut::Units; ++i) out[i] = few[k].cell[i].cell;
      here.close(u, few[k], out, [&](const R (&fresh)[Cut::Units]) {
        move_outputs(a, has, here.n, u, s, !more, fresh, [&](const E (&values)[Cut::Units]) {
          if (more) tell(j + 1, c, u, values);
        });
      });
    }
    if (more) post(j + 1);  // before what no block waits for
    UNROLL for (int k = 0; k < Cells; ++k)
      if (owns(k)) cell(k, s).keep(u, few[k]);
  }

  DEVICE_MEMBER void run() {
    load_weights();
    if (at == 0) open_barrier(posts, 1);
    if (thread() % TeamThreads < Stages) {
      open_barrier(full + thread() % TeamThreads, 1);
      open_barrier(empty + thread() % TeamThreads, TeamThreads / 32);
    }
    begin();
    cell(0, 0).load_gates(a.bias, readable(), bias);
    if (a.bias_hh) {
      typename A::Element more[4][Cut::Units];
      cell(0, 0).load_gates(a.bias_hh, readable(), more);
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Cut::Units; ++j) narrow(wide(bias[gate][j]) + wide(more[gate][j]), bias[gate][j]);
    }
    order_in_shared();
    block_barrier();
    post(0);
    for (int j = 0; j < a.steps.value; ++j) step(j);
  }
};

template <class F, class Cut, class A>
DEVICE void team_forward(const A& a) {
  TeamForward<F, Cut, A> kernel(a);
  kernel.run();
}

}  // namespace longshort
