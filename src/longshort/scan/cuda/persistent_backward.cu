// All steps in one launch, backward: (9) to (20) with W_hh' resident and c̄ in registers.
//
// Groups, blocks, sub-batches and owners as forward; a block holds the rows of W_hh' of its Units units. At each step
// it needs all of ā of the step after: alone it has it in shared memory, else it comes from `da`, straight into the
// lanes' registers. `da` is the exchange and, when the kernel is done, the operand of the weights' gradients.
//
// With a norm the blocks meet twice more in a step (`meeting.cuh`), the operand is r̄ in place of ā, and ā goes to memory,
// wide, for what `norms.cu` does when all steps are over. Rounded to 16 bits r̄ would show, for its sum cancels: in
// bfloat16 it is a sum of three, multiplied one after the other.
//
// With a projection the first product has outputs for rows, h̄' of (11) goes through a second one: `projection.cuh`.
#include "cell_back.cuh"
#include "meeting.cuh"
#include "projection.cuh"

namespace longshort {

template <class F, class Cut, class A>
struct PersistentBackward {
  using E = typename A::Element;
  using R = typename A::Wide;
  using Taped = typename Either<Cut::Normed, R, E>::Type;  // as `tapes_wide` says
  static constexpr int Rows = Cut::Projects ? Cut::Outputs : Cut::Units;  // of the product in a block
  static constexpr int Tiles = Rows / 16 / Cut::WM;
  static constexpr int Parts = Cut::Parts;
  using Core = typename CoreOf<Cut::RowByRow, E, Cut::K, Tiles, Cut::NT, Cut::WM, Cut::WK, Cut::InRegisters,
                               Cut::InShared, Cut::Exact>::Type;
  static constexpr int Cells = Cut::Single ? 1 : (Cut::Units * Cut::Columns + Cut::Threads - 1) / Cut::Threads;
  static constexpr bool Carries = Cut::Exchanges || Cut::Single;  // addresses, as forward
  static constexpr int StageBytes = Parts * Cut::Columns * Core::Pitch, Stages = Cut::Exchanges ? 0 : Cut::Subs;
  static constexpr int SumPitch = Rows + 4;  // of 4 bytes
  static constexpr int SumBytes = Cut::WK * Cut::Columns * SumPitch * 4;
  static constexpr int SumStages = Cut::Exchanges ? 2 : 1;  // no barrier parts their readers from the next writers
  static constexpr int BiasBytes = Cut::Normed ? 0 : Cut::Threads * 16;
  using Meets = Meeting<Cut, A, 8, Cut::Units == 32>;
  static constexpr int MeetingBytes = Cut::Normed ? Meets::Bytes : 0;
  using Outputs = typename Either<Cut::Projects, ProjectionBack<Cut, A, F>, Nothing>::Type;
  static constexpr int ProjectionBytes = Outputs::Bytes;
  // In registers, what a cell hands to the step before: but not where there are several sub-batches or column tiles.
  static constexpr bool Kept = Cut::Subs == 1 && !(Cut::Exchanges && Cut::NT > 1);
  static constexpr int CarriedBytes = Kept ? 0 : Cut::Subs * Cells * Cut::Threads * 8;
  static constexpr int Bytes = Core::WeightBytes + Stages * StageBytes + SumStages * SumBytes + BiasBytes + CarriedBytes +
                               MeetingBytes + ProjectionBytes;
  static_assert(Cut::Subs * Cells <= 32, "a bit for each cell of each sub-batch");
  static_assert(Tiles * 16 * Cut::WM == Rows && Cut::Threads % Cut::Units == 0, "tiles cover the rows");
  static_assert(!Cut::Single || Cut::Units <= Cut::Threads, "a thread has one cell or none");
  static_assert(!Cut::Exchanges || Cut::WM == 1, "each lane's share of the operand is its own");

  // What memory holds of a cell's norms at the step at hand: N of r, or of each gate, and its scale.
  struct Seen { R hat[4], scale[4]; };
  struct Stats { R of[2]; };  // mean and scale of c̃
  struct Gains { R hh[4], c, shift; };
  struct OutputGradients { E dy[Cut::Projects ? (Cut::Outputs * Cut::Columns + Cut::Threads - 1) / Cut::Threads : 1]; };

  struct alignas(8) Carried {
    R past, dc;  // what reaches h past the product, and c̄
  };

  // Where the first cell of this thread, of the first sub-batch, stands in memory at the step at hand; as forward.
  struct Places {
    const Taped* gates;       // of the tape
    const R* cells;           // after the step
    const R* before;          // c_{t-1}, where all lie `along`
    const E* dy;
    E* told;                  // ā of this step
    const E* share[Cut::NT];  // of ā of the step after, the first that this lane takes
  };

  const A& a;
  F has;
  Core core;
  char* stages;
  float* sums;
  int products = 0;
  int unit0;
  Carried kept[Cells], *carried;
  Slice<Cut, A> only;            // the one sub-batch, if there is one
  Places at;
  u32 told_clock = 0;            // when this thread had told its cells of the step after, by the clock
  u32 hidden = 0;                // m_h of (1), a bit for each cell of each sub-batch
  Decisions<Cells, 1, !Cut::Exchanges && Cut::Subs == 1, F> decided;  // of the step at hand
  Lengths<Cells, Cut::Subs == 1, F> lengths;
  u32 reset = 0, again = 0;  // a bit for each cell, if there is one sub-batch: the step at hand, or after it, is reset
  Peepholes<R> peepholes;
  Gains gain;
  Meets meets;
  Outputs projection;
  float (*bias)[4];  // Σ ā of this thread's unit, in shared memory: in registers it costs spills

  DEVICE_MEMBER PersistentBackward(const A& arguments)
      : a(arguments),
        has(arguments),
        only(arguments, 0),
        decided(has),
        lengths(has),
        meets(arguments),
        projection(arguments) {}

  DEVICE_MEMBER int unit(int) const { return unit0 + static_cast<int>(place() % Cut::Units); }
  DEVICE_MEMBER int column(int k) const {
    return static_cast<int>(place() / Cut::Units) + k * (Cut::Threads / Cut::Units);
  }
  static DEVICE_MEMBER u32 place() { return static_cast<u32>(thread()); }
  DEVICE_MEMBER bool owns(const Slice<Cut, A>& slice, int k) const { return column(k) < slice.count; }
  static DEVICE_MEMBER constexpr int across(int k) { return k * (Cut::Threads / Cut::Units); }  // columns from cell 0
  DEVICE_MEMBER Slice<Cut, A> slice_of(int sub) const { return Carries && Cut::Subs == 1 ? only : Slice<Cut, A>(a, sub); }
  // Sequences from cell 0 of the first sub-batch to cell k of this one.
  DEVICE_MEMBER Index apart(int sub, int k) const {
    return (Cut::Subs == 1 ? 0 : sub * a.sequences.value) + across(k);
  }
  DEVICE_MEMBER char* stage(int sub) const { return stages + sub * StageBytes; }

  DEVICE_MEMBER Carried& carry(int sub, int k) {
    return Kept ? kept[k] : carried[(sub * Cells + k) * Cut::Threads + thread()];
  }

  static DEVICE_MEMBER E zero() {
    E value;
    narrow(R(0), value);
    return value;
  }

  DEVICE_MEMBER void begin(char* memory) {
    unit0 = block_x() % Cut::Blocks * Cut::Units;
    const int first = block_x() % Cut::Blocks * Rows;
    core.load(memory, [&](int wm, int tile, int row) {  // of what nobody owns, another's: its sums are not read
      const int k = first + (wm * Tiles + tile) * 16 + row;
      return a.weights + (k < a.P ? k : 0) * a.weight_pitch;
    });
    stages = memory + Core::WeightBytes;
    sums = reinterpret_cast<float*>(stages + Stages * StageBytes);
    for (int at = thread() * 16; at < Stages * StageBytes; at += Cut::Threads * 16)
      *reinterpret_cast<Four*>(stages + at) = {0, 0, 0, 0};
    bias = reinterpret_cast<float(*)[4]>(reinterpret_cast<char*>(sums) + SumStages * SumBytes) + thread();
    if (!Cut::Normed)
      UNROLL for (int gate = 0; gate < 4; ++gate) (*bias)[gate] = 0.0f;
    if (Cut::Normed) meets.begin(memory + Bytes - ProjectionBytes - MeetingBytes), keep_gains();
    if constexpr (Cut::Projects) projection.begin(memory + Bytes - ProjectionBytes, unit0);
    carried = reinterpret_cast<Carried*>(reinterpret_cast<char*>(sums) + SumStages * SumBytes + BiasBytes);
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Cells; ++k) {
        const int n = slice.first + column(k), u = unit(k);
        const bool mine = owns(slice, k) && u < a.H;
        if (mine) lengths.keep(a, k, n);
        if (mine) reset |= static_cast<u32>(starts(k, n, a.T.value - 1, asked_reset(a, has, n, a.T.value - 1))) << k;
        if (mine && !Cut::Projects) hidden |= static_cast<u32>(keeps_hidden<1>(a, has, n, u)[0]) << (sub * Cells + k);
        const R past = mine && !Cut::Projects && a.dh ? a.dh[n * a.H + u] : R(0);
        const R dc = mine && a.dc ? a.dc[n * a.H + u] : R(0);
        carry(sub, k) = {waited_for(past), waited_for(dc)};
      }
    }
  }

  // Those of the last step.
  DEVICE_MEMBER void take_places() {
    const int n = only.first + column(0), u = unit(0), s = a.T.value - 1;
    const Index t = time_of(a, has, s);
    at.gates = gates_at(n, t, u);
    at.cells = cells_at(n, t, u);
    if (along()) at.before = s > 0 ? at.cells - cell_step() : a.c_given + n * a.H + u;
    if (!Cut::Projects) at.dy = dy_at(n, t, u);
    at.told = told_at(n, t, u);
    if constexpr (Cut::Exchanges)
      UNROLL for (int j = 0; j < Cut::NT; ++j) {
        at.share[j] = told_at(only.first, t + by(), 0);
        if (Cut::Subs == 1) at.share[j] = core.template share<Parts>(at.share[j], j, only.count);
      }
  }

  // On to the step before s; of what step 0 reads nothing is left.
  DEVICE_MEMBER void advance(int s) {
    if (Cut::Exchanges)
      UNROLL for (int j = 0; j < Cut::NT; ++j) at.share[j] -= by() * a.N * Parts * Cut::K;
    if (s <= 0) return;
    at.told -= by() * a.N * Parts * Cut::K;
    at.gates -= by() * a.N * 4 * a.H;
    if (along()) {
      at.cells = at.before;
      at.before = s > 1 ? at.before - cell_step() : a.c_given + (only.first + column(0)) * a.H + unit(0);
    } else {
      at.cells -= cell_step();
    }
    if (!Cut::Projects) at.dy -= by() * static_cast<Index>(a.dy_t);
  }
  DEVICE_MEMBER Index by() const { return has(Reversed) ? -1 : 1; }  // from a step to the one after, in t
  DEVICE_MEMBER Index cell_step() const { return by() * (has(KeepsCells) ? Index(a.row_t) : Index(a.N)) * a.H; }
  // Whether c_{t-1} of all sequences is at the same place beside that of the first.
  DEVICE_MEMBER bool along() const {
    return Carries && !has(KeepsCells) && !(has(Reversed) && has(Ragged));
  }

  DEVICE_MEMBER const Taped* gates_at(int n, Index t, int u) const {
    return reinterpret_cast<const Taped*>(a.tape_gates) + (t * a.N + n) * 4 * a.H + u;
  }
  DEVICE_MEMBER const R* cells_at(int n, Index t, int u) const { return a.tape_cells + taped_cells(a, has, n, t) + u; }
  DEVICE_MEMBER const E* dy_at(int n, Index t, int u) const { return a.dy + at_strides(n, a.dy_n, t, a.dy_t) + u; }
  DEVICE_MEMBER E* told_at(int n, Index t, int u) const { return a.da + (t * a.N + n) * Parts * Cut::K + u; }

  // Of cell k, of sequence n, at the step at hand, which stands at t.
  DEVICE_MEMBER const Taped* gates_of(int sub, int k, int n, Index t) const {
    return Carries ? at.gates + apart(sub, k) * 4 * a.H : gates_at(n, t, unit(k));
  }
  DEVICE_MEMBER const R* cells_of(int sub, int k, int n, Index t) const {
    if (!Carries) return cells_at(n, t, unit(k));
    return at.cells + apart(sub, k) * (has(KeepsCells) ? Index(a.row_n) : Index(1)) * a.H;
  }
  DEVICE_MEMBER const E* dy_of(int sub, int k, int n, Index t) const {
    return Carries ? at.dy + apart(sub, k) * static_cast<Index>(a.dy_n) : dy_at(n, t, unit(k));
  }
  DEVICE_MEMBER E* told_of(int sub, int k, int n, Index t) const {
    return Carries ? at.told + apart(sub, k) * Parts * Cut::K : told_at(n, t, unit(k));
  }
  // c_{t-1}. neighbour: whether it is that of the step before.
  DEVICE_MEMBER const R* before_of(int sub, int k, int n, Index t, bool neighbour) const {
    if (along()) return at.before + apart(sub, k) * a.H;
    const R* first = a.c_given + n * a.H + unit(k);
    if (Carries) return neighbour ? cells_of(sub, k, n, t) - cell_step() : first;
    return neighbour ? cells_at(n, t - by(), unit(k)) : first;
  }

  // What memory holds of cell k at the step at hand. starts, neighbour: whether c_{t-1} is a reset's, or that of the step
  // before.
  DEVICE_MEMBER Recalled<A> recall(int sub, int k, int n, Index t, bool starts, bool neighbour) const {
    Recalled<A> r;
    const Taped* gates = gates_of(sub, k, n, t);
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      if constexpr (Cut::Normed)
        r.wide_gates[gate] = gates[gate * a.H];
      else
        r.gates[gate] = gates[gate * a.H];
    }
    r.cell = *cells_of(sub, k, n, t);
    r.arriving = cell_gradient(a, has, n, t, unit(k));
    r.before = starts ? initial_c_at(a, has, n, unit(k)) : *before_of(sub, k, n, t, neighbour);
    return r;
  }

  // Has what the step before the one at hand, s, will read brought nearer, but for the cell after it, which this one read.
  DEVICE_MEMBER void recall_ahead(int sub, int k, int n, int s) const {
    const Index t = time_of(a, has, s);
    const Taped* gates = gates_of(sub, k, n, t) - by() * a.N * 4 * a.H;
    UNROLL for (int gate = 0; gate < 4; ++gate) fetch_ahead(gates + gate * a.H);
    if (Cut::Normed) see_ahead(n, s - 1, unit(k));
    if (s > 1) fetch_ahead(cells_of(sub, k, n, t) - 2 * cell_step());
    if (!Cut::Projects) fetch_ahead(dy_of(sub, k, n, t) - by() * static_cast<Index>(a.dy_t));
    if (has(KeepsCells) && a.dcells)
      fetch_ahead(a.dcells + at_strides(n, a.dcells_n, t - by(), a.dcells_t) + unit(k));
  }

  DEVICE_MEMBER void keep_gains() {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    const int u = unit(0);
    if (u >= a.H) return;
    UNROLL for (int gate = 0; gate < 4; ++gate) gain.hh[gate] = weight_at<A>(a.gain_hh, slots[gate], a.H, u);
    gain.c = weight_at<A>(a.gain_c, 0, a.H, u), gain.shift = weight_at<A>(a.shift_c, 0, a.H, u);
  }

  // Whether step s of cell k's sequence n starts from a reset; asked: of `asked_reset`.
  DEVICE_MEMBER bool starts(int k, int n, int s, u8 asked) const {
    return has(Resets) && asked && lengths.active(a, k, n, time_of(a, has, s));
  }

  // Of step s, which is at hand. Where there is one sub-batch, `divert` has seen to the reset of the step after.
  DEVICE_MEMBER Moment at_hand(int k, int n, int s) const {
    return {s >= 0 && lengths.active(a, k, n, time_of(a, has, s)), Cut::Subs > 1 && resets_after(a, has, n, s)};
  }

  // (19) where the step after started from a reset: what arrived goes to the initial state, and nothing before it. Apart
  // from the others' code, as few steps are such.
  DEVICE_MEMBER void divert(int sub, const Slice<Cut, A>& slice, float (&arrived)[Cells]) {
    if (!any_in_warp(again != 0)) return;
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!(again >> k & 1u)) continue;
      const int n = slice.first + column(k), u = unit(k);
      Carried hands = carry(sub, k);
      if (!Cut::Projects) {
        R total = R(arrived[k]);
        if (has(MasksHidden)) total = keeps(sub, k) ? total * R(a.scale_h) : R(0);
        if (a.dh_initial) add(a.dh_initial + n * a.P + u, R(hands.past + total));
        hands.past = R(0), arrived[k] = 0.0f;
      }
      if (a.dc_initial) add(a.dc_initial + n * state_row(a, has) + u, hands.dc);
      hands.dc = R(0);
      carry(sub, k) = hands;
    }
  }

  // c_{t-1} of a step that starts from a reset, for those cells of this thread, likewise apart.
  DEVICE_MEMBER void restart(const Slice<Cut, A>& slice, Recalled<A> (&was)[Cells]) const {
    if (!any_in_warp(reset != 0)) return;
    UNROLL for (int k = 0; k < Cells; ++k)
      if (reset >> k & 1u) was[k].before = initial_c_at(a, has, slice.first + column(k), unit(k));
  }

  DEVICE_MEMBER bool keeps(int sub, int k) const { return !has(MasksHidden) || hidden >> (sub * Cells + k) & 1u; }

  DEVICE_MEMBER void decide_all(const Slice<Cut, A>& slice, int s) {
    decided.make(
        a, time_of(a, has, s), time_of(a, has, s - 1), a.T.value - 1 - s,
        [&](int k) { return slice.first + column(k); }, [&](int k) { return unit(k); });
  }

  // ā of cell k, or r̄ with a norm, to the weights' gradients and to the next product; in the padding it is 0.
  DEVICE_MEMBER void tell(int sub, int k, int n, Index t, const R (&a_bar)[4]) const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    const int c = column(k), u = unit(k);
    const auto each = [&](auto use) {  // of the numbers that there are
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        R rest = a_bar[gate];
        UNROLL for (int part = 0; part < Parts; ++part)
          use(part, static_cast<int>(slots[gate]) * Cut::Units * Cut::Blocks, taken<E>(rest));
      }
    };
    if (!Cut::Exchanges)
      each([&](int part, int at, E value) {
        char* to = stage(sub) + (part * Cut::Columns + c) * Core::Pitch;
        *reinterpret_cast<E*>(to + (at + u) * sizeof(E)) = Core::told(value);
      });
    E* row = told_of(sub, k, n, t);
    each([&](int part, int at, E value) {
      store_relaxed(row + part * Cut::K + at, Cut::Exchanges ? unmarked(value) : value);
    });
  }

  // (18): W_hh' ā of step s+1 for this thread's cells, 0 after the last step; with a projection m of (12), from all of it.
  DEVICE_MEMBER void product(int sub, const Slice<Cut, A>& slice, int s, float (&found)[Cells]) {
    UNROLL for (int k = 0; k < Cells; ++k) found[k] = 0.0f;
    if (s + 1 >= a.T) decide_all(slice, s);
    if (slice.count == 0) return;
    OutputGradients arriving;
    if constexpr (Cut::Projects) projection.ask(slice, s, arriving.dy);
    if (s + 1 >= a.T) {
      if (Cut::Projects && Cut::Exchanges && Cut::Subs > 1) block_barrier();  // else the first product's parts them
      if constexpr (Cut::Projects) project(sub, slice, s, arriving, [](int, int) { return 0.0f; }, found);
      return;
    }
    float d[Tiles][Cut::NT][4];
    float* mine = sums;
    if constexpr (Cut::Exchanges) {
      const auto later = [&] {
        decide_all(slice, s);
        UNROLL for (int k = 0; k < Cells; ++k)
          if (s > 0 && owns(slice, k) && unit(k) < a.H) recall_ahead(sub, k, slice.first + column(k), s);
        if constexpr (Cut::Projects)
          if (s > 0) projection.ask_ahead(slice, s - 1);
      };
      const E* share[Cut::NT];
      UNROLL for (int j = 0; j < Cut::NT; ++j) {
        share[j] = at.share[j];
        if (Cut::Subs > 1)
          share[j] = core.template share<Parts>(at.share[j] + apart(sub, 0) * Parts * Cut::K, j, slice.count);
      }
      if (Cut::Subs == 1) rest(told_clock, static_cast<u32>(a.rest));
      core.template run_arriving<Parts, true>(a, share, s, later, d);
      mine += products++ % 2 * (SumBytes / 4);
    } else {
      core.template run<Parts, false, Cut::Single>(stage(sub), d);
      decide_all(slice, s);
    }
    const int own = (core.wk * Cut::Columns + core.quarter * 2) * SumPitch + core.wm * Tiles * 16 + core.group;
    UNROLL for (int m = 0; m < Tiles; ++m)
      UNROLL for (int c = 0; c < Cut::NT; ++c)
        UNROLL for (int r = 0; r < 4; ++r)
          if (!Cut::Single || (r % 2 == 0 && core.quarter == 0))  // of columns that are all alike, the first
            mine[own + (c * 8 + r % 2) * SumPitch + m * 16 + r / 2 * 8] = d[m][c][r];
    block_barrier();
    const auto sum = [&](int column, int row) {
      float total = 0.0f;
      UNROLL for (int w = 0; w < Cut::WK; ++w) total += mine[(w * Cut::Columns + column) * SumPitch + row];
      return total;
    };
    if constexpr (Cut::Projects) {
      project(sub, slice, s, arriving, sum, found);
    } else {
      UNROLL for (int k = 0; k < Cells; ++k)
        if (owns(slice, k)) found[k] = sum(column(k), unit(k) - unit0);
    }
  }

  template <class Sum>
  DEVICE_MEMBER void project(int sub, const Slice<Cut, A>& slice, int s, const OutputGradients& arriving, Sum sum,
                             float (&m)[Cells]) {
    projection.run(sub, slice, s, arriving.dy, sum);
    UNROLL for (int k = 0; k < Cells; ++k)
      if (s >= 0 && owns(slice, k)) m[k] = projection.m(column(k), unit(k) - unit0);
  }

  DEVICE_MEMBER void step(int sub, int s) {
    const Slice<Cut, A> slice = slice_of(sub);
    // The state before the first step is the last turn of the loop, so that the product is compiled once; what it asks
    // for is the first step's, for a load that only some turns make is waited for at every one.
    const int asked = s < 0 ? 0 : s;
    Recalled<A> was[Cells];
    E dy[Cells];
    Stats stats[Cells];
    u8 before[Cells];  // resets of the step before, which this one asks for
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k) || u >= a.H) continue;
      if (Cut::Subs == 1) before[k] = asked_reset(a, has, n, s > 0 ? s - 1 : 0);
      if (!lengths.active(a, k, n, time_of(a, has, asked))) continue;
      const bool neighbour = asked > 0 && (!has(Reversed) || lengths.active(a, k, n, time_of(a, has, asked - 1)));
      const bool starts = Cut::Subs > 1 && resets(a, has, n, time_of(a, has, asked));
      was[k] = recall(sub, k, n, time_of(a, has, asked), starts, neighbour);
      if (Cut::Normed && norms_cell(has))
        UNROLL for (int i = 0; i < 2; ++i) stats[k].of[i] = a.stats_c[(time_of(a, has, asked) * a.N + n) * 2 + i];
      if (!Cut::Projects) dy[k] = *dy_of(sub, k, n, time_of(a, has, asked));
    }
    float arrived[Cells];
    product(sub, slice, s, arrived);
    // Before the product, a cell that restarts would wait there for all that was asked for.
    if (has(Resets) && Cut::Subs == 1) restart(slice, was), divert(sub, slice, arrived);
    if (s < 0)
      leave(sub, slice, arrived);
    else if constexpr (Cut::Normed)
      move_normed(sub, slice, s, was, stats, dy, arrived);
    else
      move(sub, slice, s, was, dy, arrived);
    if (Cut::Exchanges && Cut::Subs == 1) told_clock = clocks();
    if (!has(Resets) || Cut::Subs > 1) return;
    again = reset;
    reset = 0;
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k);
      if (owns(slice, k) && unit(k) < a.H) reset |= static_cast<u32>(starts(k, n, s - 1, before[k])) << k;
    }
  }

  // m of (12) for a cell.
  DEVICE_MEMBER R arriving(int sub, int k, int n, int u, int s, Moment now, float arrived, E dy, R& past) const {
    if (Cut::Projects) return R(arrived);
    return arriving_output(a, has, n, u, s, now, keeps(sub, k), decided.output(k), R(arrived), dy, past);
  }

  DEVICE_MEMBER void move(int sub, const Slice<Cut, A>& slice, int s, const Recalled<A> (&was)[Cells],
                          const E (&dy)[Cells], const float (&arrived)[Cells]) {
    const Index t = time_of(a, has, s);
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k)) continue;
      R a_bar[4] = {R(0), R(0), R(0), R(0)};
      if (u < a.H) {
        Carried hands = carry(sub, k);
        const Moment now = at_hand(k, n, s);
        const R m = arriving(sub, k, n, u, s, now, arrived[k], dy[k], hands.past);
        hands.dc = arriving_state(a, has, n, u, now, hands.dc);
        if (now.on) {
          const CellNorm<R> none = {};
          unit_back(a, has, n, s, u, Masked{decided.candidate(k), decided.cell(k)}, peepholes, was[k], none, false, m,
                    kept_gradient(a, has, n, t, u), hands.dc, a_bar);
        } else if (Cut::Projects) {
          a.unprojected_all[(t * a.N + n) * a.H + u] = R(0);
        }
        carry(sub, k) = hands;
      }
      tell(sub, k, n, t, a_bar);
      UNROLL for (int gate = 0; gate < 4; ++gate) (*bias)[gate] += a_bar[gate];
    }
  }

  // ---- with a norm; all threads of the block call these

  DEVICE_MEMBER void see(int n, Index t, int u, Seen& seen) const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o}, row = t * a.N + n;
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      if (slots[gate] < 0) continue;
      seen.hat[gate] = a.hat_r[(row * a.G + slots[gate]) * a.H + u];
      seen.scale[gate] = a.scale_r[has(NormsProducts) ? row : row * a.G + slots[gate]];
    }
  }

  // Has what `see` reads at step s brought nearer; where blocks exchange, `recall_ahead` does.
  DEVICE_MEMBER void see_ahead(int n, int s, int u) const {
    const Index row = time_of(a, has, s) * a.N + n;
    for (Index gate = 0; gate < a.G; ++gate) fetch_ahead(a.hat_r + (row * a.G + gate) * a.H + u);
  }

  // A cell whose step is its sequence's own, on its way through `move_normed`.
  struct Moved {
    bool on;
    R m;
    CellNorm<R> norm;
    R a_bar[4];
  };

  DEVICE_MEMBER R pass(const Slice<Cut, A>& slice, int k, int s, bool first, const Recalled<A>& was, Moved& cell,
                       R& dc) const {
    const int n = slice.first + column(k), u = unit(k);
    return unit_back(a, has, n, s, u, Masked{decided.candidate(k), decided.cell(k)}, peepholes, was, cell.norm, first,
                     cell.m, kept_gradient(a, has, n, time_of(a, has, s), u), dc, cell.a_bar);
  }

  // (9) to (13): what arrives at a cell, and what the norm of c̃ needs of it.
  DEVICE_MEMBER void enter(int sub, const Slice<Cut, A>& slice, int k, int s, const Recalled<A>& was, const Stats& stats,
                           E dy, float arrived, Moved& cell) {
    const int n = slice.first + column(k), u = unit(k);
    Carried hands = carry(sub, k);
    const Moment now = at_hand(k, n, s);
    cell.on = now.on;
    cell.m = arriving(sub, k, n, u, s, now, arrived, dy, hands.past);
    hands.dc = arriving_state(a, has, n, u, now, hands.dc);
    carry(sub, k) = hands;
    R q = R(0), dot = R(0);
    if (now.on && norms_cell(has)) {
      const Cell<R> v = opened<A>(has, was);
      cell.norm = {stats.of[0], stats.of[1], R(0), R(0), R(0), gain.c, gain.shift};
      cell.norm.raw = cell_again(a, has, v, was, Masked{decided.candidate(k), decided.cell(k)});
      q = pass(slice, k, s, true, was, cell, hands.dc) * gain.c;
      dot = q * cell.norm.hat();
    }
    if (Cut::Projects && !now.on) a.unprojected_all[(time_of(a, has, s) * a.N + n) * a.H + u] = R(0);
    if (!norms_cell(has)) return;
    meets.put(column(k), 0, u - unit0, q);
    meets.put(column(k), 1, u - unit0, dot);
  }

  // (14) to (17): ā, and what the norm of the recurrent product, or those of the gates, need of it.
  DEVICE_MEMBER void pass_cell(int sub, const Slice<Cut, A>& slice, int k, int s, const Recalled<A>& was,
                               const Seen& seen, Moved& cell) {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    const int n = slice.first + column(k), u = unit(k);
    const Index row = time_of(a, has, s) * a.N + n;
    R sums[8] = {};
    if (cell.on) {
      Carried hands = carry(sub, k);
      const R q[1] = {pass(slice, k, s, false, was, cell, hands.dc)};
      carry(sub, k) = hands;
      if (norms_cell(has)) {
        const R dot[1] = {q[0] * cell.norm.hat()};
        add_sums(a, n, a.sum_cell, u, dot), add_sums(a, n, a.sum_cell + 1, u, q);
      }
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        a.da_wide[(row * a.G + slots[gate]) * a.H + u] = cell.a_bar[gate];
        const R d = cell.a_bar[gate] * gain.hh[gate];
        const int of = has(NormsProducts) ? 0 : gate;
        sums[2 * of] += d, sums[2 * of + 1] += d * seen.hat[gate];
      }
    }
    UNROLL for (int i = 0; i < 8; ++i)
      if (i < 2 || has(NormsGates)) meets.put(column(k), i, u - unit0, sums[i]);
  }

  // (18): r̄ to the next product.
  DEVICE_MEMBER void tell_normed(int sub, int k, int n, Index t, const Seen& seen, const Moved& cell) {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    R dr[4] = {R(0), R(0), R(0), R(0)};
    const R count = R(has(NormsProducts) ? a.G * a.H : Index(a.H));
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      if (!cell.on || slots[gate] < 0) continue;
      const int of = has(NormsProducts) ? 0 : gate;
      const R mean = shared_out(meets.result(column(k), 2 * of), count);
      const R dot = shared_out(meets.result(column(k), 2 * of + 1), count);
      dr[gate] = through_norm(R(cell.a_bar[gate] * gain.hh[gate]), seen.hat[gate], mean, dot, seen.scale[gate]);
    }
    tell(sub, k, n, t, dr);
  }

  DEVICE_MEMBER void move_normed(int sub, const Slice<Cut, A>& slice, int s, const Recalled<A> (&was)[Cells],
                                 const Stats (&stats)[Cells], const E (&dy)[Cells], const float (&arrived)[Cells]) {
    const int meeting = s * (norms_cell(has) ? 2 : 1), last = meeting + norms_cell(has);
    const Index t = time_of(a, has, s);
    Moved cells[Cells];
    const auto mine = [&](int k) { return owns(slice, k) && unit(k) < a.H; };
    // Asked for here and not with the tape, for which registers are too few; the first meeting hides their way.
    Seen seen[Cells];
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!mine(k)) continue;
      see(slice.first + column(k), t, unit(k), seen[k]);
      if (!Cut::Exchanges && s > 0) see_ahead(slice.first + column(k), s - 1, unit(k));
    }
    UNROLL for (int k = 0; k < Cells; ++k)
      if (mine(k)) enter(sub, slice, k, s, was[k], stats[k], dy[k], arrived[k], cells[k]);
    if (norms_cell(has)) {
      meets.template total<2>(meeting, slice.first, slice.count, s);
      UNROLL for (int k = 0; k < Cells; ++k) {
        if (!mine(k)) continue;
        cells[k].norm.mean_q = shared_out(meets.result(column(k), 0), R(a.H));
        cells[k].norm.mean_dot = shared_out(meets.result(column(k), 1), R(a.H));
      }
    }
    UNROLL for (int k = 0; k < Cells; ++k)
      if (mine(k)) pass_cell(sub, slice, k, s, was[k], seen[k], cells[k]);
    if (has(NormsProducts))
      meets.template total<2>(last, slice.first, slice.count, s);
    else
      meets.template total<8>(last, slice.first, slice.count, s);
    const R zeros[4] = {R(0), R(0), R(0), R(0)};
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (mine(k))
        tell_normed(sub, k, slice.first + column(k), t, seen[k], cells[k]);
      else if (owns(slice, k))
        tell(sub, k, slice.first + column(k), t, zeros);
    }
  }

  DEVICE_MEMBER void leave(int sub, const Slice<Cut, A>& slice, const float (&arrived)[Cells]) {
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k) || u >= a.H) continue;
      Carried hands = carry(sub, k);
      const Moment now = at_hand(k, n, -1);
      if (!Cut::Projects) arriving_output(a, has, n, u, -1, now, keeps(sub, k), true, R(arrived[k]), zero(), hands.past);
      const R first = arriving_state(a, has, n, u, now, hands.dc);
      if (!Cut::Projects && a.dh_first) a.dh_first[n * a.H + u] = hands.past;
      if (a.dc_first) a.dc_first[n * a.H + u] = first;
    }
  }

  // A row for each group: the host adds the rows, so that the order of the sum never changes.
  DEVICE_MEMBER void write_bias() const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    const Index row = block_x() / Cut::Blocks;
    const int u = unit(0);
    block_barrier();
    if (thread() >= Cut::Units || u >= a.H) return;
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      float total = 0.0f;
      UNROLL for (int other = 0; other < Cut::Threads; other += Cut::Units) total += bias[other][gate];
      if (slots[gate] >= 0) a.bias_sums[(row * a.G + slots[gate]) * a.H + u] = total;
    }
  }

  DEVICE_MEMBER void run() {
    begin(shared());
    const Slice<Cut, A> slice = only;
    if (Carries) take_places();
    decided.begin(a, [&](int k) { return slice.first + column(k); }, [&](int k) { return unit(k); });
    if (unit(0) < a.H) peepholes = peepholes_of(a, has, unit(0));
    block_barrier();
    for (int s = a.T.value - 1; s >= -1; --s) {
      for (int sub = 0; sub < Cut::Subs; ++sub) {
        step(sub, s);
        if (!Cut::Exchanges && sub + 1 < Cut::Subs) block_barrier();  // the next one writes the sums
      }
      if (Carries) advance(s);
      if (!Cut::Exchanges) block_barrier();
    }
    if (a.bias_sums) write_bias();
  }
};

template <class F, class Cut, class A>
DEVICE void persistent_backward(const A& a) {
  PersistentBackward<F, Cut, A> kernel(a);
  kernel.run();
}

}  // namespace longshort
