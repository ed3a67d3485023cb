// All steps in one launch, forward: the weights of W_hh stay in registers and shared memory, the cell in registers.
//
// A group of Blocks blocks holds W_hh once, each block the four gates of Units units, and runs Subs sub-batches of
// sequences. At each step a block needs the whole operand h_{t-1} of (1): alone it has it in shared memory, else it
// takes it from the exchange: few sequences straight into the lanes' registers, more through shared memory. Then one
// product (1), sums over the warps along K, and (2) to (8) with one thread
// for a cell. For a norm the blocks meet once more in a step, or twice: `meeting.cuh`; for a projection they tell each other
// h̃ too: `projection.cuh`. No gate recurrence.
#include "inputs.cuh"
#include "meeting.cuh"
#include "projection.cuh"

namespace longshort {

template <class F, class Cut, class A>
struct PersistentForward {
  using E = typename A::Element;
  using R = typename A::Wide;
  using Taped = typename Either<Cut::Normed, R, E>::Type;  // as `tapes_wide` says
  using Accuracy = typename Either<sizeof(E) == 4 && !Cut::Exact, Tf32, E>::Type;  // of activations
  static constexpr bool Direct = Cut::WK == 1;  // sums need no reduction: a thread's own are whole
  // W_ih x of the next step is asked for a step ahead where no wait for other blocks hides its way, and it fits.
  static constexpr bool Ahead = !Cut::Exchanges && Cut::NT == 1 && !Cut::Inputs;
  static constexpr bool Carries = Cut::Exchanges || Cut::Single;  // addresses, see `Places`
  static constexpr int Tiles = 4 * Cut::Units / 16 / Cut::WM, Pairs = Tiles / 2;
  using Core = typename CoreOf<Cut::RowByRow, E, Cut::K, Tiles, Cut::NT, Cut::WM, Cut::WK, Cut::InRegisters,
                               Cut::InShared, Cut::Exact>::Type;
  static constexpr int Cells = Cut::Single ? Pairs
                               : Direct    ? Pairs * Cut::NT * 2
                                           : (Cut::Units * Cut::Columns + Cut::Threads - 1) / Cut::Threads;
  // Few columns go straight into registers: every one of the WM warps reads them, but none waits for a stage.
  static constexpr bool Arrives = Cut::Exchanges && Cut::NT == 1;
  static constexpr bool Shared = Arrives && Cut::Subs == 1;  // `Places::share` is that of a lane, else of a block
  static constexpr int StageBytes = Cut::Columns * Core::Pitch;
  static constexpr int Stages = Arrives ? 0 : Cut::Exchanges ? 1 : 2 * Cut::Subs;
  static constexpr int SumPitch = Cut::Units + 1;  // of 16 bytes
  static constexpr int SumBytes = Direct ? 0 : Cut::WK * Cut::Columns * SumPitch * 16;
  static constexpr int SumStages = Arrives ? 2 : 1;  // no barrier parts their readers from the next writers
  // In registers, what a cell hands to the next step: but not where there are several sub-batches or column tiles.
  static constexpr bool Kept = Cut::Subs == 1 && !(Cut::Exchanges && Cut::NT > 1);
  static constexpr int CarriedBytes = Kept ? 0 : Cut::Subs * Cells * Cut::Threads * 8;
  using Meets = Meeting<Cut, A, 4, !Direct && Cut::Units == 32>;
  static constexpr int MeetingBytes = Cut::Normed ? Meets::Bytes : 0;
  using Outputs = typename Either<Cut::Projects, Projection<Cut, A, F>, Nothing>::Type;
  static constexpr int ProjectionBytes = Outputs::Bytes;
  using Inputs = typename Either<(Cut::Inputs > 0), InputProduct<Cut, A, Tiles>, Nothing>::Type;
  static constexpr int Bytes = Core::WeightBytes + Stages * StageBytes + SumStages * SumBytes + CarriedBytes +
                               MeetingBytes + ProjectionBytes + Inputs::Bytes;
  static_assert(Cut::Subs * Cells <= 32, "a bit for each cell of each sub-batch");
  static_assert(Tiles % 2 == 0 && Pairs * 8 * Cut::WM == Cut::Units, "a pair of tiles holds four gates of eight units");
  static_assert(Cut::Threads % Cut::Units == 0 || Direct, "a thread's cells have one unit");
  static_assert(!Arrives || !Direct, "the sums' barrier is the only one of a step");

  struct Sums { float i, f, g, o; };
  struct Gains { R ih[4], hh[4], c, shift; };
  struct alignas(8) Carried {
    R cell;
    E h;
  };

  // Where the first cell of this thread, of the first sub-batch, stands in memory at the step at hand. Each step moves
  // these on, for addresses made anew are a third of its instructions, and waited for; but those of several sequences in a
  // block alone, which has no registers for them.
  struct Places {
    const R* z;      // W_ih x, or its N
    E* told;         // the operand of the step after
    const E* share;  // of the operand of this step, the first that this lane takes
    E* y;
    Taped* gates;    // of the tape
    R* cells;        // that are kept
    int rows, steps;  // sequences from a step to the one after, and rows of y; below zero where t falls
  };

  const A& a;
  F has;
  Core core;
  char* stages;
  Sums *all_sums, *sums;
  int products = 0;
  int unit0;
  Carried kept[Cells], *carried;
  R bias[Direct ? Pairs : 1][4];
  Peepholes<R> peepholes[Direct ? Pairs : 1];
  static constexpr bool Gained = Cut::Normed && Cut::Threads <= 256;  // more threads have no registers for gains
  Gains gains[Gained && Direct ? Pairs : 1];
  Meets meets;
  Outputs projection;
  Inputs inputs;
  float input_sums[Cut::Inputs ? Tiles : 1][Cut::NT][4];  // W_ih x of the step at hand
  R ahead[Cells][4];
  struct { R before, after; } own[Cells];  // where lanes share gates out, this one's, and its activation
  u8 reset_ahead[Cells];
  u32 told_clock = 0;            // when this thread had told its cells of the step before, by the clock
  Slice<Cut, A> only;            // the one sub-batch, if there is one
  Places at;
  u32 hidden = 0;                // m_h of (1), a bit for each cell of each sub-batch
  Decisions<Cells, Direct ? 4 : 1, !Cut::Exchanges && Cut::Subs == 1, F> decided;  // of the step at hand
  Lengths<Cells, Cut::Subs == 1, F> lengths;

  DEVICE_MEMBER PersistentForward(const A& arguments)
      : a(arguments),
        has(arguments),
        meets(arguments),
        projection(arguments),
        inputs(arguments),
        only(arguments, 0),
        decided(has),
        lengths(has) {}

  static DEVICE_MEMBER u32 place() { return static_cast<u32>(thread()); }
  // The pair of tiles that holds the unit of cell k.
  static DEVICE_MEMBER constexpr int pair_of(int k) { return Cut::Single ? k : Direct ? k / (2 * Cut::NT) : 0; }
  DEVICE_MEMBER int unit(int k) const {
    return unit0 + (Direct ? core.wm * 8 * Pairs + pair_of(k) * 8 + core.group
                           : static_cast<int>(place() % Cut::Units));
  }
  DEVICE_MEMBER int column(int k) const {
    return Cut::Single ? 0
           : Direct    ? k / 2 % Cut::NT * 8 + 2 * core.quarter + k % 2
                       : static_cast<int>(place() / Cut::Units) + k * (Cut::Threads / Cut::Units);
  }
  // From cell 0 of a thread to cell k: columns, and units.
  static DEVICE_MEMBER constexpr int across(int k) {
    return Cut::Single ? 0 : Direct ? k / 2 % Cut::NT * 8 + k % 2 : k * (Cut::Threads / Cut::Units);
  }
  static DEVICE_MEMBER constexpr int along(int k) { return pair_of(k) * 8; }
  DEVICE_MEMBER bool owns(const Slice<Cut, A>& slice, int k) const { return column(k) < slice.count; }
  DEVICE_MEMBER Slice<Cut, A> slice_of(int sub) const { return Carries && Cut::Subs == 1 ? only : Slice<Cut, A>(a, sub); }
  // Sequences from cell 0 of the first sub-batch to cell k of this one.
  DEVICE_MEMBER Index apart(int sub, int k) const {
    return (Cut::Subs == 1 ? 0 : sub * a.sequences.value) + across(k);
  }
  DEVICE_MEMBER char* stage(int sub, int step) const {
    return stages + (Cut::Exchanges ? 0 : (step % 2 * Cut::Subs + sub)) * StageBytes;
  }

  DEVICE_MEMBER Carried& carry(int sub, int k) {
    return Kept ? kept[k] : carried[(sub * Cells + k) * Cut::Threads + thread()];
  }

  DEVICE_MEMBER bool keeps(int sub, int k) const { return !has(MasksHidden) || hidden >> (sub * Cells + k) & 1u; }

  DEVICE_MEMBER void decide_all(const Slice<Cut, A>& slice, int j) {
    const int s = a.step.value + j;
    decided.make(
        a, time_of(a, has, s), time_of(a, has, s + 1), j, [&](int k) { return slice.first + column(k); },
        [&](int k) { return unit(k); });
  }

  // The operand of step j of this launch, to whoever needs it: u may lie in the padding, whose operand is 0.
  DEVICE_MEMBER void tell(int sub, int j, int n, int c, int u, E value) const {
    if (Cut::Exchanges)
      store_relaxed(a.exchange + (j * a.N + n) * Cut::K + u, Core::told(value));
    else
      *reinterpret_cast<E*>(stage(sub, j) + c * Core::Pitch + u * sizeof(E)) = Core::told(value);
  }

  // With one sequence in a block, whose one column all eight of a tile are, the four lanes of a group have the same cells:
  // one of them writes. Where no gate needs another they share the gates of a cell out, lane q the one of slot q.
  DEVICE_MEMBER bool writes() const { return !Cut::Single || core.quarter == 0; }
  DEVICE_MEMBER bool splits() const {
    return Cut::Single && !has(Peephole | Coupled | NoInputGate | NoForgetGate | NoOutputGate | HardSigmoid | LinearInput);
  }

  // The same of cell k at the step after, unless it was the last.
  DEVICE_MEMBER void tell_next(int sub, int k, int j, E value) const {
    if (j + 1 >= a.steps.value || !writes()) return;
    if (Cut::Exchanges)
      store_relaxed(at.told + apart(sub, k) * Cut::K + along(k), Core::told(value));
    else
      *reinterpret_cast<E*>(stage(sub, j + 1) + column(k) * Core::Pitch + unit(k) * sizeof(E)) = Core::told(value);
  }

  // A given NaN is made `canonical` here: one that products of parts cut would be an infinity.
  DEVICE_MEMBER Carried initial_at(int n, int u) const {
    return {initial_c_at(a, has, n, u), canonical(initial_h_at(a, n, u))};
  }

  // What the next product reads of h, which a step made, or `initial_at`: as `operand_of`, but that a block alone takes any
  // NaN.
  DEVICE_MEMBER E operand(int sub, int k, E h) const {
    return kept_or_zero(keeps(sub, k), Cut::Exchanges ? unmarked(h) : h);
  }

  // The state from which this launch starts: of the launch before it, or the given one, or a reset's (0).
  DEVICE_MEMBER Carried enter(int n, int u) const {
    const int at = n * a.H + u;
    if (Cut::Projects) {  // its owner has h
      Carried from = {a.c_given[at]};
      if (a.step.value > 0)
        from.cell = a.c[at];
      else if (resets_after(a, has, n, -1))
        from.cell = initial_c_at(a, has, n, u);
      return from;
    }
    if (a.step.value > 0) return {a.c[at], a.h[at]};
    if (resets_after(a, has, n, -1)) return initial_at(n, u);
    return {a.c_given[at], canonical(a.h_given[at])};
  }

  DEVICE_MEMBER void begin(char* memory) {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    unit0 = block_x() % Cut::Blocks * Cut::Units;
    // of what nobody owns, another's: its sums are not read
    const auto row_of = [&](const E* weights, Index pitch, int wm, int tile, int row) {
      const int u = unit0 + wm * 8 * Pairs + tile / 2 * 8 + row % 8;
      const Index slot = slots[tile % 2 * 2 + row / 8];
      return weights + ((slot < 0 ? 0 : slot) * a.H + (u < a.H ? u : 0)) * pitch;
    };
    core.load(memory, [&](int wm, int tile, int row) {
      return row_of(a.weights, Index(a.weight_pitch), wm, tile, row);
    });
    if constexpr (Cut::Inputs > 0) inputs.begin(memory + Bytes - Inputs::Bytes, row_of);
    stages = memory + Core::WeightBytes;
    all_sums = sums = reinterpret_cast<Sums*>(stages + Stages * StageBytes);
    carried = reinterpret_cast<Carried*>(stages + Stages * StageBytes + SumStages * SumBytes);
    if (Cut::Normed) meets.begin(memory + Bytes - Inputs::Bytes - ProjectionBytes - MeetingBytes);
    for (int at = thread() * 16; at < Stages * StageBytes; at += Cut::Threads * 16)
      *reinterpret_cast<Four*>(stages + at) = {0, 0, 0, 0};
    block_barrier();
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Cells; ++k) {
        const int n = slice.first + column(k), u = unit(k);
        Carried hands;
        narrow(R(0), hands.h);
        hands.cell = R(0);
        E operand = hands.h;
        if (owns(slice, k) && u < a.H) {
          hands = enter(n, u);
          lengths.keep(a, k, n);
          if (!Cut::Projects) hidden |= static_cast<u32>(keeps_hidden<1>(a, has, n, u)[0]) << (sub * Cells + k);
          operand = operand_of(keeps(sub, k), hands.h);
          if (!Cut::Projects && a.operand && a.step.value == 0 && writes()) a.operand[n * a.H + u] = operand;
        }
        carry(sub, k) = hands;
        if (!Cut::Projects && owns(slice, k) && writes()) tell(sub, 0, n, column(k), u, operand);
      }
    }
    if constexpr (Cut::Projects)
      projection.begin(memory + Bytes - Inputs::Bytes - ProjectionBytes,
                       [&](int sub, int c, int n, int p, E value) { tell(sub, 0, n, c, p, value); });
    if (Carries) take_places();
  }

  DEVICE_MEMBER void take_places() {
    const int first = only.first, n = first + column(0), u = unit(0);
    const Index t = time_of(a, has, a.step);
    at.rows = held(static_cast<int>(by() * a.N)), at.steps = held(static_cast<int>(by() * a.row_t));
    const Index of_gate = splits() ? core.quarter * a.H : 0;  // of the one that is this lane's
    at.z = z_at(n, t, u) + of_gate;
    if (Cut::Exchanges) at.told = a.exchange + (a.N + n) * Cut::K + u;
    if (Cut::Exchanges) at.share = a.exchange + first * Cut::K;
    if constexpr (Shared) at.share = core.share(at.share, 0, only.count);
    if (!Cut::Projects) at.y = y_at(n, t, u);
    if (has(Tapes)) at.gates = gates_at(n, t, u) + of_gate;
    if (has(KeepsCells) || has(Tapes)) at.cells = cells_at(n, t, u);
  }

  // On to the next step.
  DEVICE_MEMBER void advance() {
    at.z += at.rows * a.G * a.H;
    if (Cut::Exchanges) at.told += Index(a.N) * Cut::K;
    if (Cut::Exchanges) at.share += Index(a.N) * Cut::K;
    if (!Cut::Projects) at.y += at.steps * a.P;
    if (has(Tapes)) at.gates += at.rows * 4 * a.H;
    if (has(KeepsCells) || has(Tapes)) at.cells += Index(has(KeepsCells) ? at.steps : at.rows) * a.H;
  }
  DEVICE_MEMBER Index by() const { return has(Reversed) ? -1 : 1; }  // from a step to the one after, in t

  DEVICE_MEMBER const R* z_at(int n, Index t, int u) const { return a.z + ((t - a.z_first) * a.N + n) * a.G * a.H + u; }
  DEVICE_MEMBER E* y_at(int n, Index t, int u) const { return a.y + row_of(a, n, t) * a.P + u; }
  DEVICE_MEMBER Taped* gates_at(int n, Index t, int u) const {
    return reinterpret_cast<Taped*>(a.tape_gates) + (t * a.N + n) * 4 * a.H + u;
  }
  DEVICE_MEMBER R* cells_at(int n, Index t, int u) const {
    return (has(KeepsCells) ? a.cells : a.tape_cells) + taped_cells(a, has, n, t) + u;
  }

  // W_ih x of cell k at step j of this launch, which is the one at hand or, `ahead`, the one after.
  DEVICE_MEMBER const R* z_of(int sub, const Slice<Cut, A>& slice, int k, int j, bool ahead) const {
    if (!Carries) return z_at(slice.first + column(k), time_of(a, has, a.step.value + j), unit(k));
    return at.z + (ahead ? at.rows * a.G * a.H : 0) + apart(sub, k) * a.G * a.H + along(k);
  }
  DEVICE_MEMBER E* y_of(int sub, int k, int n, Index t) const {
    return Carries ? at.y + apart(sub, k) * a.row_n * a.P + along(k) : y_at(n, t, unit(k));
  }
  DEVICE_MEMBER Taped* gates_of(int sub, int k, int n, Index t) const {
    return Carries ? at.gates + apart(sub, k) * 4 * a.H + along(k) : gates_at(n, t, unit(k));
  }
  DEVICE_MEMBER R* cells_of(int sub, int k, int n, Index t) const {
    if (!Carries) return cells_at(n, t, unit(k));
    return at.cells + apart(sub, k) * (has(KeepsCells) ? Index(a.row_n) : Index(1)) * a.H + along(k);
  }

  // Whether W_hh operand is added to W_ih x as it is made; a mask's scale is one product's alone.
  DEVICE_MEMBER bool joins() const { return Cut::Inputs > 0 && !has(MasksHidden); }

  // (2), (3) of this lane's gate of cell k, and those of the other lanes of its group. All lanes of a warp call it together.
  DEVICE_MEMBER void split(int k, const Sums& sum, R x, R (&shared)[4]) {
    const int q = core.quarter;
    const R mine = q & 2 ? (q & 1 ? sum.o : sum.g) : (q & 1 ? sum.f : sum.i);
    own[k].before = fused(mine, has(MasksHidden) ? R(a.scale_h) : R(1), x + bias[pair_of(k)][0]);
    own[k].after = Activation<Accuracy>::gate(own[k].before, q == 2);
    UNROLL for (int gate = 0; gate < 4; ++gate) shared[gate] = of_lane(own[k].after, lane() - q + gate);
  }

  // (2) to (6) of one cell. sum: W_hh operand, gates i, f, g, o; x: W_ih x, unless they are joined; shared: of `split`.
  // Returns h̃.
  DEVICE_MEMBER R open(int sub, int k, int j, const Sums& sum, const R (&x)[4], const R (&shared)[4], Cell<R>& v) {
    const R scale = has(MasksHidden) ? R(a.scale_h) : R(1);
    const R(&b)[4] = bias[pair_of(k)];
    const R mask = candidate_mask(a, has, decided.candidate(k));
    if (splits()) {
      v.i = shared[0], v.f = shared[1], v.g = shared[2], v.o = shared[3];
      close_cell(has, carry(sub, k).cell, mask, R(a.cell_clip), v);
      return v.o * activated<Accuracy>(has, v.cell);
    }
    const auto past = [&](int gate) { return joins() ? b[gate] : x[gate] + b[gate]; };
    const R pre[4] = {fused(sum.i, scale, past(0)), fused(sum.f, scale, past(1)), fused(sum.g, scale, past(2)),
                      fused(sum.o, scale, past(3))};
    const Peepholes<R>& p = peepholes[pair_of(k)];
    open_gates<Accuracy>(has, pre, carry(sub, k).cell, p, mask, R(a.cell_clip), v);
    open_output<Accuracy>(has, pre[3], p, v);
    return v.o * activated<Accuracy>(has, v.cell);
  }

  // (6) to (8): to the next product, to memory and to the next step. reset: of the step
  // after, which other blocks are told of at once.
  DEVICE_MEMBER void close(int sub, int k, int j, int n, int u, const Cell<R>& v, R fresh, bool reset) {
    const int s = a.step.value + j;
    const Index t = time_of(a, has, s);
    const bool on = lengths.active(a, k, n, t);
    const bool again = Cut::Exchanges && reset && restarts(k, n, s + 1);
    const Carried hands = carry(sub, k);
    if constexpr (Cut::Projects) {
      projection.product.put(j, n, column(k), u, fresh);
      const R c = finish_cell(a, has, decided.cell(k), v.cell, hands.cell);
      carry(sub, k).cell = again ? initial_c_at(a, has, n, u) : on ? c : hands.cell;
      keep(sub, k, n, t, u, v, c, on);
      return;
    }
    E seen, next = renewed_output(a, has, n, u, t, on, decided.output(k), fresh, hands.h, seen);
    if (again) next = initial_at(n, u).h;
    tell_next(sub, k, j, operand(sub, k, next));
    in_order();
    if (writes()) *y_of(sub, k, n, t) = seen;
    const R c = finish_cell(a, has, decided.cell(k), v.cell, hands.cell);
    carry(sub, k) = {again ? initial_c_at(a, has, n, u) : on ? c : hands.cell, next};
    keep(sub, k, n, t, u, v, c, on);
  }

  DEVICE_MEMBER void keep(int sub, int k, int n, Index t, int u, const Cell<R>& v, R c, bool on) const {
    if (has(KeepsCells) && writes())
      *cells_of(sub, k, n, t) = on ? c : R(0);
    else if (has(Tapes) && on && writes())
      *cells_of(sub, k, n, t) = c;
    using Held = Tape<E, R>;
    if (has(Tapes) && on && splits()) {
      const bool candidate = core.quarter == 2;
      narrow(candidate ? Held::of_candidate(own[k].before, own[k].after) : Held::of_sigmoid(own[k].after),
             *gates_of(sub, k, n, t));
    } else if (has(Tapes) && on && writes()) {
      const R held[4] = {Held::of_sigmoid(v.i), Held::of_sigmoid(v.f), Held::of_candidate(v.a_g, v.g),
                         Held::of_sigmoid(v.o)};
      Taped* to = gates_of(sub, k, n, t);
      UNROLL for (int gate = 0; gate < 4; ++gate) narrow(held[gate], to[gate * a.H]);
    }
    if (!has(KeepsGates) || !writes()) return;
    const R values[4] = {v.i, v.f, v.g, v.o};
    R* to = a.gates + row_of(a, n, t) * 4 * a.H + u;
    UNROLL for (int gate = 0; gate < 4; ++gate) to[gate * a.H] = on ? values[gate] : R(0);
  }

  // Whether a reset of step s is one.
  DEVICE_MEMBER bool restarts(int k, int n, int s) const {
    return has(Resets) && s < a.T.value && lengths.active(a, k, n, time_of(a, has, s));
  }

  // The cells whose next step starts from a reset, in a block alone: apart from the others' code, where each step would
  // wait for a load that few make.
  DEVICE_MEMBER void restart(int sub, const Slice<Cut, A>& slice, int j, const u8 (&resets)[Cells]) {
    u8 any = 0;
    UNROLL for (int k = 0; k < Cells; ++k) any |= resets[k];
    if (!any_in_warp(any != 0)) return;
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!resets[k] || u >= a.H || !restarts(k, n, a.step.value + j + 1)) continue;
      if (Cut::Projects) {
        carry(sub, k).cell = initial_c_at(a, has, n, u);
        continue;
      }
      const Carried from = initial_at(n, u);
      carry(sub, k) = from;
      tell_next(sub, k, j, operand(sub, k, from.h));
    }
  }

  // The bias and the peepholes of this thread's units, which stay in registers.
  DEVICE_MEMBER void keep_weights() {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    UNROLL for (int p = 0; p < (Direct ? Pairs : 1); ++p) {
      const int u = unit(Cut::Single ? p : Direct ? p * 2 * Cut::NT : 0);
      UNROLL for (int gate = 0; gate < 4; ++gate)
        bias[p][gate] = u < a.H ? bias_at(a, slots[gate], u) : R(0);
      if (splits()) bias[p][0] = u < a.H ? bias_at(a, core.quarter, u) : R(0);
      if (u < a.H) peepholes[p] = peepholes_of(a, has, u);
      if (Gained && u < a.H) gains[p] = gains_of(u);
    }
  }

  DEVICE_MEMBER Gains gain(int k) const {
    return Gained ? gains[pair_of(k)] : gains_of(forgotten(unit(k)));
  }

  DEVICE_MEMBER Gains gains_of(int u) const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    Gains kept;
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      kept.hh[gate] = weight_at<A>(a.gain_hh, slots[gate], a.H, u);
      kept.ih[gate] = weight_at<A>(a.gain_ih, slots[gate], a.H, u);
    }
    kept.c = weight_at<A>(a.gain_c, 0, a.H, u), kept.shift = weight_at<A>(a.shift_c, 0, a.H, u);
    return kept;
  }

  // W_ih x of this thread's cells at step j of this launch, or its N with a norm of products, asked for before it is needed.
  // Nothing is computed with it yet: that would wait for it.
  DEVICE_MEMBER void ask(int sub, const Slice<Cut, A>& slice, int j, bool next, R (&x)[Cells][4]) const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!owns(slice, k) || unit(k) >= a.H) continue;
      const R* row = z_of(sub, slice, k, j, next);
      if (splits()) {
        x[k][0] = *row;
        continue;
      }
      UNROLL for (int gate = 0; gate < 4; ++gate) x[k][gate] = slots[gate] < 0 ? R(0) : row[slots[gate] * a.H];
    }
  }

  // The resets of the step after step j of this launch. Read sooner than W_ih x, they would make a thread wait for that
  // too: loads share what is waited for.
  DEVICE_MEMBER void ask_resets(const Slice<Cut, A>& slice, int j, u8 (&to)[Cells]) const {
    if (!has(Resets)) return;
    const int s = a.step.value + j + 1, last = a.T.value - 1;  // after the last step, again its own
    const Index t = time_of(a, has, s < last ? s : last);
    UNROLL for (int k = 0; k < Cells; ++k) {
      to[k] = 0;
      if (owns(slice, k)) to[k] = constant(a.reset + (slice.first + column(k)) * static_cast<Index>(a.T) + t);
    }
  }

  // Has W_ih x of step j, the one after that at hand, brought nearer.
  DEVICE_MEMBER void ask_ahead(int sub, const Slice<Cut, A>& slice, int j) const {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o};
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!owns(slice, k) || unit(k) >= a.H) continue;
      const R* row = z_of(sub, slice, k, j, true);
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (slots[gate] >= 0) fetch_ahead(row + slots[gate] * a.H);
    }
  }

  // A thread's sums of its own cell k.
  static DEVICE_MEMBER Sums own_sum(const float (&d)[Tiles][Cut::NT][4], int k) {
    const int p = pair_of(k), c = Cut::Single ? 0 : k / 2 % Cut::NT, e = Cut::Single ? 0 : k % 2;
    return {d[2 * p][c][e], d[2 * p][c][2 + e], d[2 * p + 1][c][e], d[2 * p + 1][c][2 + e]};
  }

  // W_hh operand of this thread's cell k: its own part, or those of all warps along K.
  DEVICE_MEMBER Sums sum_of(const float (&d)[Tiles][Cut::NT][4], int k) const {
    if (Direct) return own_sum(d, k);
    Sums sum = {0, 0, 0, 0};
    UNROLL for (int w = 0; w < Cut::WK; ++w) {
      const Sums part = sums[(w * Cut::Columns + column(k)) * SumPitch + (unit(k) - unit0)];
      sum.i += part.i, sum.f += part.f, sum.g += part.g, sum.o += part.o;
    }
    return sum;
  }

  // ---- with a norm; all threads of the block call these

  // (2): N of the recurrent product, or of each gate of both products' sum, in place of it; then the gains.
  DEVICE_MEMBER void normalise(const Slice<Cut, A>& slice, int j, R (&r)[Cells][4], const R (&x)[Cells][4]) {
    const Index slots[4] = {a.slot_i, a.slot_f, a.slot_g, a.slot_o}, t = time_of(a, has, a.step.value + j);
    const int numbers = static_cast<int>(a.G), meeting = meetings_before(j);
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!owns(slice, k) || unit(k) >= a.H) continue;
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (slots[gate] >= 0) meets.put(column(k), static_cast<int>(slots[gate]), unit(k) - unit0, r[k][gate]);
    }
    if (has(NormsProducts))
      meets.template standardise<1>(meeting, slice.first, slice.count, a.step + j, numbers);
    else
      meets.template standardise<4>(meeting, slice.first, slice.count, a.step + j, numbers);
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k) || u >= a.H) continue;
      const Gains gain = this->gain(k);
      const Index row = t * a.N + n;
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (slots[gate] < 0) continue;
        const int of = has(NormsProducts) ? 0 : static_cast<int>(slots[gate]);
        const R mean = meets.result(column(k), 2 * of), scale = meets.result(column(k), 2 * of + 1);
        const R hat = (r[k][gate] - mean) * scale;
        if (has(Tapes)) a.hat_r[(row * a.G + slots[gate]) * a.H + u] = hat;
        if (has(Tapes) && u == 0) a.scale_r[has(NormsProducts) ? row : row * a.G + slots[gate]] = scale;
        r[k][gate] = hat * gain.hh[gate];
        if (has(NormsProducts)) r[k][gate] += x[k][gate] * gain.ih[gate];
      }
    }
  }

  // Meetings of this launch before step j of it.
  DEVICE_MEMBER int meetings_before(int j) const { return has(NormsGates) || has(NormsOutput) ? 2 * j : j; }

  // (2) to (8) of all cells of a sub-batch. x: W_ih x, or N of it.
  DEVICE_MEMBER void normed_cells(int sub, const Slice<Cut, A>& slice, int j, const float (&d)[Tiles][Cut::NT][4],
                                  const R (&x)[Cells][4], const u8 (&resets)[Cells]) {
    const bool of_cell = has(NormsGates) || has(NormsOutput);
    const Index t = time_of(a, has, a.step.value + j);
    R r[Cells][4];
    UNROLL for (int k = 0; k < Cells; ++k) {
      const Sums sum = sum_of(d, k);
      const R scale = has(MasksHidden) ? R(a.scale_h) : R(1), parts[4] = {sum.i, sum.f, sum.g, sum.o};
      UNROLL for (int gate = 0; gate < 4; ++gate)
        r[k][gate] = has(NormsProducts) ? parts[gate] * scale : fused(parts[gate], scale, x[k][gate]);
    }
    normalise(slice, j, r, x);
    Cell<R> v[Cells];
    UNROLL for (int k = 0; k < Cells; ++k) {
      if (!owns(slice, k) || unit(k) >= a.H) continue;
      const R(&b)[4] = bias[pair_of(k)];
      UNROLL for (int gate = 0; gate < 4; ++gate) r[k][gate] += b[gate];
      const R mask = candidate_mask(a, has, decided.candidate(k));
      const Peepholes<R>& p = peepholes[pair_of(k)];
      open_gates<Accuracy>(has, r[k], carry(sub, k).cell, p, mask, R(a.cell_clip), v[k]);
      if (of_cell) meets.put(column(k), 0, unit(k) - unit0, v[k].cell);
    }
    if (of_cell)
      meets.template standardise<1>(meetings_before(j) + 1, slice.first, slice.count, a.step + j, 1);
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k) || u >= a.H) continue;
      const Gains gain = this->gain(k);
      R out = v[k].cell;
      if (of_cell) {
        const R stats[2] = {meets.result(column(k), 0), meets.result(column(k), 1)};
        if (has(Tapes) && u == 0) store(a.stats_c + (t * a.N + n) * 2, stats);
        out = (out - stats[0]) * stats[1] * gain.c + gain.shift;
        if (has(NormsGates)) v[k].cell = out;
      }
      open_output<Accuracy>(has, r[k][3], peepholes[pair_of(k)], v[k]);
      close(sub, k, j, n, u, v[k], v[k].o * activated<Accuracy>(has, out), resets[k] != 0);
    }
  }

  // W_hh operand, behind W_ih x where they are joined.
  DEVICE_MEMBER void multiply_joined(const char* operand, float (&d)[Tiles][Cut::NT][4]) const {
    if (!joins()) {
      core.template run<1>(operand, d);
      return;
    }
    UNROLL for (int m = 0; m < Tiles; ++m)
      UNROLL for (int c = 0; c < Cut::NT; ++c)
        UNROLL for (int r = 0; r < 4; ++r) d[m][c][r] = input_sums[m][c][r];
    core.template run<1, true>(operand, d);
  }

  DEVICE_MEMBER void step(int sub, int j) {
    const Slice<Cut, A> slice = slice_of(sub);
    R x[Cells][4];
    u8 resets[Cells];
    if (Ahead) {
      UNROLL for (int k = 0; k < Cells; ++k) {
        UNROLL for (int gate = 0; gate < 4; ++gate) x[k][gate] = ahead[k][gate];
        resets[k] = reset_ahead[k];
      }
      if (j + 1 < a.steps.value) ask(sub, slice, j + 1, true, ahead), ask_resets(slice, j + 1, reset_ahead);
      // A step of few instructions is shorter than the way from far memory.
      if (splits() && j + 3 < a.steps.value)
        UNROLL for (int k = 0; k < Cells; ++k)
          if (unit(k) < a.H) fetch_ahead(z_of(sub, slice, k, j, false) + 3 * at.rows * a.G * a.H);
    } else if constexpr (Cut::Inputs > 0) {
      UNROLL for (int k = 0; k < Cells; ++k) {
        if (joins()) continue;
        const Sums sum = own_sum(input_sums, k);
        x[k][0] = sum.i, x[k][1] = sum.f, x[k][2] = sum.g, x[k][3] = sum.o;
      }
      if (j + 2 < a.steps.value) inputs.ask(slice, time_of(a, has, a.step.value + j + 2));
      ask_resets(slice, j, resets);
    } else {
      ask(sub, slice, j, false, x);
      ask_resets(slice, j, resets);
    }
    char* operand = stage(sub, j);
    const auto later = [&] {
      decide_all(slice, j);
      if (j + 1 < a.steps.value) ask_ahead(sub, slice, j + 1);
    };
    float d[Tiles][Cut::NT][4];
    if constexpr (Cut::Inputs > 0) {
      multiply_joined(operand, d);
      decide_all(slice, j);
    } else if constexpr (Arrives) {
      if (slice.count == 0) return;
      const E* share[1] = {at.share};
      if (Shared) rest(told_clock, static_cast<u32>(a.rest));
      if (!Shared) share[0] = core.share(at.share + apart(sub, 0) * Cut::K, 0, slice.count);
      core.run_arriving(a, share, a.step + j, later, d);
      sums = all_sums + products++ % 2 * (SumBytes / 16);
    } else {
      if (Cut::Exchanges) {
        const E* from = at.share + apart(sub, 0) * Cut::K;
        gather<Cut::K, Core::Pitch, Cut::Threads, Cut::Columns>(a, from, operand, slice.count, a.step + j, later);
        block_barrier();
      }
      core.template run<1, false, Cut::Single>(operand, d);
      if (!Cut::Exchanges) decide_all(slice, j);
    }
    if (!Direct) {
      UNROLL for (int p = 0; p < Pairs; ++p)
        UNROLL for (int c = 0; c < Cut::NT; ++c)
          UNROLL for (int e = 0; e < 2; ++e)
            sums[(core.wk * Cut::Columns + c * 8 + core.quarter * 2 + e) * SumPitch + core.wm * 8 * Pairs + p * 8 +
                 core.group] = {d[2 * p][c][e], d[2 * p][c][2 + e], d[2 * p + 1][c][e], d[2 * p + 1][c][2 + e]};
      block_barrier();
    }
    if constexpr (Cut::Normed) normed_cells(sub, slice, j, d, x, resets);
    R shared[Cells][4];
    if (splits())
      UNROLL for (int k = 0; k < Cells; ++k) split(k, sum_of(d, k), x[k][0], shared[k]);
    UNROLL for (int k = 0; k < Cells; ++k) {
      const int n = slice.first + column(k), u = unit(k);
      if (!owns(slice, k)) continue;
      if (u < a.H) {
        if (Cut::Normed) continue;
        Cell<R> v;
        const R fresh = open(sub, k, j, sum_of(d, k), x[k], shared[k], v);
        close(sub, k, j, n, u, v, fresh, resets[k] != 0);
        continue;
      }
      if constexpr (Cut::Projects) {
        projection.product.put(j, n, column(k), u, R(0));
      } else {
        E zero;
        narrow(R(0), zero);
        tell_next(sub, k, j, zero);
      }
    }
    if (Shared) told_clock = clocks();
    if constexpr (Cut::Inputs > 0) {
      inputs.multiply(j + 1, input_sums);
      if (j + 2 < a.steps.value) inputs.put(slice, j);
    }
    // Behind what waits for x: a reset's byte is waited for with it.
    if (has(Resets) && !Cut::Exchanges) restart(sub, slice, j, resets);
    if constexpr (Cut::Projects)
      projection.run(sub, slice, j, [&](int sub, int c, int n, int p, E value) { tell(sub, j + 1, n, c, p, value); });
    // The next sub-batch writes the one stage, or the sums, that slower threads still read.
    if (Cut::Exchanges && Direct) block_barrier();
  }

  DEVICE_MEMBER void run() {
    begin(shared());
    keep_weights();
    const Slice<Cut, A> slice = only;
    decided.begin(a, [&](int k) { return slice.first + column(k); }, [&](int k) { return unit(k); });
    // Before the loop, not at its first step: a load that only some steps make is waited for at every step.
    if (Ahead && a.steps.value > 0) ask(0, slice, 0, false, ahead), ask_resets(slice, 0, reset_ahead);
    if constexpr (Cut::Inputs > 0) {
      for (int j = 0; j < 2 && j < a.steps.value; ++j) {
        inputs.ask(slice, time_of(a, has, a.step.value + j));
        inputs.put(slice, j);
      }
    }
    block_barrier();
    if constexpr (Cut::Inputs > 0) {
      inputs.multiply(0, input_sums);
      block_barrier();  // the first step ends by writing where this reads
    }
    for (int j = 0; j < a.steps.value; ++j) {
      for (int sub = 0; sub < Cut::Subs; ++sub) {
        step(sub, j);
        if (!Cut::Exchanges && !Direct && sub + 1 < Cut::Subs) block_barrier();
      }
      if (Carries) advance();
      if (!Cut::Exchanges) block_barrier();
    }
    for (int sub = 0; sub < Cut::Subs; ++sub) {
      const Slice<Cut, A> slice(a, sub);
      UNROLL for (int k = 0; k < Cells; ++k) {
        const int n = slice.first + column(k), u = unit(k);
        if (!owns(slice, k) || u >= a.H || !writes()) continue;
        const Carried hands = carry(sub, k);
        if (!Cut::Projects) a.h[n * a.H + u] = hands.h;
        a.c[n * a.H + u] = hands.cell;
      }
    }
    if constexpr (Cut::Projects) projection.leave();
  }
};

template <class F, class Cut, class A>
DEVICE void persistent_forward(const A& a) {
  PersistentForward<F, Cut, A> kernel(a);
  kernel.run();
}

}  // namespace longshort
