// Weights that stay, times an operand that changes every step: D (16 MT WM x 8 NT) = A (rows x K) B (K x 8 NT).
//
// A block's weights A are cut among its warps: WM along the rows, WK along K. Each warp keeps its part for the
// whole launch, the first InRegisters chunks of 64 bytes of K in registers, the other InShared in shared memory
// in the order in which lanes read them. K is permuted inside a chunk, alike in A and B, so that a lane's share
// of an operand is 16 bytes that lie together.
#pragma once
#include "exchange.cuh"

namespace longshort {

// A truth as a type, for a lambda.
template <bool Of>
struct Known { static constexpr bool Value = Of; };

// Exact: float32 from three products of tf32 parts instead of one of rounded operands.
template <class E, int K, int MT, int NT, int WM, int WK, int InRegisters, int InShared, bool Exact>
struct Product {
  static constexpr int Threads = WM * WK * 32, Columns = 8 * NT;
  static constexpr int Chunk = 64 / sizeof(E), Vector = 16 / sizeof(E), Chunks = InRegisters + InShared;
  static constexpr int WeightBytes = InShared * MT * 1024 * WM * WK;
  // bytes of a staged column: an odd number of 64, so that eight columns meet no bank twice
  static constexpr int Pitch = WK * Chunks * 64 + (WK * Chunks % 2 == 0 ? 64 : 0);
  static constexpr int Chains = MT * NT <= 2 ? 2 : 1;  // sums that do not wait for each other
  static_assert(K % Chunk == 0 && WK * Chunks * Chunk >= K, "the chunks cover K");
  static_assert(!Exact || sizeof(E) == 4, "16-bit products are exact as they are");

  // Chunks on their way to shared memory at once: a divisor of InShared, for some 16 loads of a thread.
  static constexpr int Together = InShared * MT <= 8        ? (InShared > 0 ? InShared : 1)
                                  : InShared % 8 == 0 && MT == 1 ? 8
                                  : InShared % 4 == 0 && MT <= 2 ? 4
                                  : InShared % 2 == 0 && MT <= 4 ? 2
                                                                 : 1;

  // Chunks in shared memory that one turn of the loop over them multiplies: enough that what a turn costs is little.
  static constexpr int Turn = Exact ? 4 : 8;

  // A chunk of one tile's weights as `multiply` takes them, in four registers that follow each other: of rows g and g + 8 in
  // turn, the first 8 bytes of this lane's 16, and the other 8. In another order each product would be four moves more.
  Four first[InRegisters > 0 ? InRegisters : 1][MT], second[InRegisters > 0 ? InRegisters : 1][MT];
  char* weights;
  int group, quarter, wm, wk;  // lane = 4 group + quarter
  int into;  // bytes from a column's first number to the first that is this lane's

  static constexpr bool Rounds = sizeof(E) == 4 && !Exact;

  // A number of the operand as it is to be told: whoever makes it rounds it, once, and not all who read it.
  static DEVICE_MEMBER E told(E v) {
    if constexpr (Rounds) return float_of(rounded_to_tf32(bits_of(v)));
    return v;
  }

  // A chunk of the weights of one tile, from its rows g and g + 8; zeros behind the end of K.
  DEVICE_MEMBER void fetch(const E* const (&rows)[2], int chunk, Four (&parts)[2]) const {
    const int k = (wk * Chunks + chunk) * Chunk + quarter * Vector;
    Four of[2] = {};
    UNROLL for (int half = 0; half < 2; ++half)
      if (WK * Chunks * Chunk == K || k < K) of[half] = kept(*reinterpret_cast<const Four*>(rows[half] + k));
    parts[0] = {of[0].x, of[1].x, of[0].y, of[1].y};
    parts[1] = {of[0].z, of[1].z, of[0].w, of[1].w};
  }

  // memory: WeightBytes, aligned to 16. row_of(wm, tile, row 0..15) points to K weights.
  template <class RowOf>
  DEVICE_MEMBER void load(char* memory, RowOf row_of) {
    const int warp = thread() / 32;
    group = lane() / 4, quarter = lane() % 4, wm = warp % WM, wk = warp / WM;
    into = held(wk * Chunks * 64 + quarter * 16);
    weights = memory + warp * (InShared * MT * 1024) + lane() * 16;
    const E* rows[MT][2];
    UNROLL for (int m = 0; m < MT; ++m)
      UNROLL for (int half = 0; half < 2; ++half) rows[m][half] = row_of(wm, m, 8 * half + group);
    Four parts[2];
    // Forgotten where they came from: the compiler would else make again in the loop over time what follows from them.
    UNROLL for (int chunk = 0; chunk < InRegisters; ++chunk)
      UNROLL for (int m = 0; m < MT; ++m) {
        fetch(rows[m], chunk, parts);
        first[chunk][m] = forgotten(parts[0]);
        second[chunk][m] = forgotten(parts[1]);
      }
    ROLLED for (int start = 0; start < InShared; start += Together)
      UNROLL for (int chunk = start; chunk < start + Together; ++chunk)
        UNROLL for (int m = 0; m < MT; ++m) {
          fetch(rows[m], InRegisters + chunk, parts);
          char* at = weights + (chunk * MT + m) * 1024;
          *reinterpret_cast<Four*>(at) = parts[0];
          *reinterpret_cast<Four*>(at + 512) = parts[1];
        }
  }

  // A number as two of tf32, by words: `first` and what it left. `Exact` alone needs both.
  struct Parts { Four first, rest; };
  // Of the operand. An infinity meets a weight's first part alone: what the weight left has either sign, and the
  // difference of infinities is NaN. So `finite` has 0 in its place, and nothing is left of it.
  struct OperandParts { Four first, rest, finite; };

  // Infinite, or no number, or would be when it is rounded.
  static DEVICE_MEMBER bool ends(u32 v) { return !(magnitude(float_of(v)) < float_of(0x7f7ff000u)); }
  // What a rounded part left of a number: the product cuts off what `lifted` has too much.
  static DEVICE_MEMBER u32 left(u32 v, u32 first) { return bits_of(float_of(v) - float_of(first & 0xffffe000u)); }
  static DEVICE_MEMBER void part_operand(u32 v, u32& first, u32& rest, u32& finite) {
    const bool end = ends(v);
    first = end ? v : lifted(v);
    rest = end ? 0u : left(v, lifted(v));
    finite = end ? 0u : lifted(v);
  }
  static DEVICE_MEMBER OperandParts parts_of_operand(Four v) {
    if (!Exact) return {v, {0, 0, 0, 0}, {0, 0, 0, 0}};
    OperandParts p;
    part_operand(v.x, p.first.x, p.rest.x, p.finite.x);
    part_operand(v.y, p.first.y, p.rest.y, p.finite.y);
    part_operand(v.z, p.first.z, p.rest.z, p.finite.z);
    part_operand(v.w, p.first.w, p.rest.w, p.finite.w);
    return p;
  }

  // Of weights, which the compiler keeps where they are few, for they are the same at every step; more take parts anew
  // each time, for kept they would take twice the registers. None is infinite: `load` leaves none.
  static constexpr bool Few = InShared == 0 && InRegisters * MT <= (Threads <= 256 ? 8 : 2);
  static DEVICE_MEMBER u32 part(u32 v) { return Few ? lifted(v) : lifted_anew(v); }
  static DEVICE_MEMBER Parts parts_of_weight(Four v) {
    if (!Exact) return {v, {0, 0, 0, 0}};
    const Four first = {part(v.x), part(v.y), part(v.z), part(v.w)};
    return {first, {left(v.x, first.x), left(v.y, first.y), left(v.z, first.z), left(v.w, first.w)}};
  }

  // A weight that is no number, or infinite, makes NaN of what it meets either way.
  static DEVICE_MEMBER u32 finite(u32 v) { return ends(v) ? 0x7fc00000u : v; }
  static DEVICE_MEMBER Four kept(Four v) {
    if (Rounds) return {rounded_to_tf32(v.x), rounded_to_tf32(v.y), rounded_to_tf32(v.z), rounded_to_tf32(v.w)};
    if (!Exact) return v;
    return {finite(v.x), finite(v.y), finite(v.z), finite(v.w)};
  }

  // Clears the sums of `multiply_chunk`.
  static DEVICE_MEMBER void clear(float (&sums)[Chains][MT][NT][4]) {
    UNROLL for (int c = 0; c < Chains; ++c)
      UNROLL for (int m = 0; m < MT; ++m)
        UNROLL for (int j = 0; j < NT; ++j)
          UNROLL for (int r = 0; r < 4; ++r) sums[c][m][j][r] = 0.0f;
  }

  // Adds a chunk of K. b: this lane's 16 bytes of the operand's columns `group` of each column tile. Unless the chunk
  // lies in shared memory for `certain`, its number must be a constant, for registers have no index.
  template <bool Certain = false>
  DEVICE_MEMBER void multiply_chunk(int chunk, const Four (&b)[NT], float (&sums)[Chains][MT][NT][4]) const {
    OperandParts of_b[NT];
    UNROLL for (int j = 0; j < NT; ++j) of_b[j] = parts_of_operand(b[j]);
    UNROLL for (int m = 0; m < MT; ++m) {
      Four one, two;
      if (!Certain && chunk < InRegisters) {
        one = first[chunk < InRegisters ? chunk : 0][m];
        two = second[chunk < InRegisters ? chunk : 0][m];
      } else {
        const char* at = weights + ((chunk - InRegisters) * MT + m) * 1024;
        one = *reinterpret_cast<const Four*>(at);
        two = *reinterpret_cast<const Four*>(at + 512);
      }
      const Parts of_one = parts_of_weight(one), of_two = parts_of_weight(two);
      UNROLL for (int j = 0; j < NT; ++j) {
        if (Exact) add(sums, m, j, of_one.rest, of_two.rest, of_b[j].finite);
        if (Exact) add(sums, m, j, of_one.first, of_two.first, of_b[j].rest);
        add(sums, m, j, of_one.first, of_two.first, of_b[j].first);
      }
    }
  }

  // Sixteen bytes of K of one tile's rows g and g + 8; b: one column of the operand.
  static DEVICE_MEMBER void add(float (&sums)[Chains][MT][NT][4], int m, int j, const Four& one, const Four& two,
                                const Four& b) {
    multiply(E(), sums[0][m][j], one.x, one.y, one.z, one.w, b.x, b.y);
    multiply(E(), sums[Chains - 1][m][j], two.x, two.y, two.z, two.w, b.z, b.w);
  }

  static DEVICE_MEMBER void total(const float (&sums)[Chains][MT][NT][4], float (&d)[MT][NT][4]) {
    UNROLL for (int m = 0; m < MT; ++m)
      UNROLL for (int j = 0; j < NT; ++j)
        UNROLL for (int r = 0; r < 4; ++r) {
          d[m][j][r] = sums[0][m][j][r];
          if (Chains > 1) d[m][j][r] += sums[Chains - 1][m][j][r];
        }
  }

  // stage: Columns rows of Pitch bytes, Parts times, of what was `told`. d[tile][column tile][4] as `multiply` lays it out.
  // Parts: numbers whose sum an operand is; the last and least of them first.
  // Adds: whether the product is added to d.   Alike: whether all columns are the first.
  template <int Parts = 1, bool Adds = false, bool Alike = false>
  DEVICE_MEMBER void run(const char* stage, float (&d)[MT][NT][4]) const {
    float sums[Chains][MT][NT][4];
    clear(sums);
    if constexpr (Adds)
      UNROLL for (int m = 0; m < MT; ++m)
        UNROLL for (int j = 0; j < NT; ++j)
          UNROLL for (int r = 0; r < 4; ++r) sums[0][m][j][r] = d[m][j][r];
    const char* column = stage + (Alike ? into : group * Pitch + wk * Chunks * 64 + quarter * 16);
    const auto multiply_parts = [&](int chunk, auto certain) {
      UNROLL for (int part = Parts - 1; part >= 0; --part) {
        Four b[NT];
        UNROLL for (int j = 0; j < NT; ++j)
          b[j] = *reinterpret_cast<const Four*>(column + (part * NT + j) * 8 * Pitch + chunk * 64);
        multiply_chunk<decltype(certain)::Value>(chunk, b, sums);
      }
    };
    constexpr int Turns = sizeof(E) == 4 && InShared / Turn >= 2 ? InShared / Turn : 0;  // 16 bits lose time with a loop
    UNROLL for (int chunk = 0; chunk < Chunks - Turns * Turn; ++chunk) multiply_parts(chunk, Known<false>());
    ROLLED for (int turn = 0; turn < Turns; ++turn)
      UNROLL for (int i = 0; i < Turn; ++i) multiply_parts(Chunks + (turn - Turns) * Turn + i, Known<true>());
    total(sums, d);
  }

  // Waits for a batch of chunks, multiplies it, and asks for the next one, if there are `more`.
  template <bool Certain, int Batch, int Parts, bool Lifts, class A, class At, class Over>
  DEVICE_MEMBER bool take(const A& a, Index s, const At& at, const Over& over, int batch, bool more,
                          Four (&v)[Batch * Parts * NT], float (&sums)[Chains][MT][NT][4]) const {
    if (!settle<E>(a, s, v, [&](int i) { return at(batch, i); })) return false;
    UNROLL for (int k = 0; k < Batch; ++k) {
      const int chunk = batch * Batch + k;
      if (!Certain && chunk >= Chunks) break;
      UNROLL for (int part = Parts - 1; part >= 0; --part) {
        const int first = (k * Parts + part) * NT;
        Four b[NT];
        UNROLL for (int j = 0; j < NT; ++j) {
          b[j] = over(chunk) ? Four{0, 0, 0, 0} : v[first + j];
          if (Lifts && Rounds) b[j] = {lifted(b[j].x), lifted(b[j].y), lifted(b[j].z), lifted(b[j].w)};
        }
        multiply_chunk<Certain>(chunk, b, sums);
        if (more)
          UNROLL for (int j = 0; j < NT; ++j) v[first + j] = load_relaxed(at(batch + 1, first + j));
      }
    }
    return true;
  }

  // The first that this lane takes of column tile j of an operand that others are writing.
  //   from: column 0; columns lie Parts K elements apart.   columns: how many there are, at least 1; the others repeat the
  //         last.
  template <int Parts = 1>
  DEVICE_MEMBER const E* share(const E* from, int j, int columns) const {
    const int wanted = j * 8 + group;
    return from + (wanted < columns ? wanted : columns - 1) * Parts * K + wk * Chunks * Chunk + quarter * Vector;
  }

  // The same of an operand that other blocks are writing: each lane waits for its own share, and no thread for its
  // block. Eight times 16 bytes, or as many whole chunks as that is, are asked for together; each makes room for one of the
  // next eight when it is multiplied.
  //   column: of each tile, this lane's `share`.
  //   Parts: as for `run`; those of a column lie one behind the other.
  //   Lifts: whether it is to be rounded here, for it is not only an operand. Its NaN are `canonical`.
  //   s:    the step, for the report of a wait that lasts longer than a.patience.
  //   meanwhile: what is done while the first of it is on its way.
  template <int Parts = 1, bool Lifts = false, class A, class Meanwhile>
  DEVICE_MEMBER void run_arriving(const A& a, const E* const (&column)[NT], Index s, Meanwhile meanwhile,
                                  float (&d)[MT][NT][4]) const {
    constexpr int Wide = Parts * NT, Most = 8 / Wide, Batch = Chunks < Most ? Chunks : Most;
    constexpr int Batches = (Chunks + Batch - 1) / Batch;
    // chunks behind the end of K have no weights: they read the last one that has, and multiply zeros
    const int last = K / Chunk - 1 - wk * Chunks;
    const auto over = [&](int chunk) { return WK * Chunks * Chunk != K && chunk > last; };
    const auto at = [&](int batch, int i) {
      const int chunk = batch * Batch + i / Wide;
      const int there = Chunks % Batch == 0 || chunk < Chunks ? chunk : Chunks - 1;
      return column[i % NT] + i / NT % Parts * K + (over(chunk) ? last : there) * Chunk;
    };
    float sums[Chains][MT][NT][4];
    clear(sums);
    Four v[Batch * Wide];
    UNROLL for (int i = 0; i < Batch * Wide; ++i) v[i] = load_relaxed(at(0, i));
    meanwhile();
    // Whole batches in shared memory are turns of a loop, if there are several, in float32: half the code, and no slower
    // (16 bits: 7 % slower at 64 x 1024).
    constexpr int First = (InRegisters + Batch - 1) / Batch, Whole = Chunks / Batch - First;
    constexpr int Turns = sizeof(E) == 4 && Whole > 1 ? Whole : 0;
    UNROLL for (int batch = 0; batch < First; ++batch)
      if (!take<false, Batch, Parts, Lifts>(a, s, at, over, batch, batch + 1 < Batches, v, sums)) return;
    ROLLED for (int batch = First; batch < First + Turns; ++batch)
      if (!take<true, Batch, Parts, Lifts>(a, s, at, over, batch, batch + 1 < Batches, v, sums)) return;
    UNROLL for (int batch = First + Turns; batch < Batches; ++batch)
      if (!take<false, Batch, Parts, Lifts>(a, s, at, over, batch, batch + 1 < Batches, v, sums)) return;
    total(sums, d);
  }
};

// The same for a single column, in float32 and without tensor cores, for which seven in eight columns would be nobody's:
// a lane keeps its part of one of the warp's 32 rows in registers.
template <int K, int MT, int WM, int WK, int Chunks>
struct RowProduct {
  static constexpr int WeightBytes = 0, Own = K / WK, Pitch = 64 * (WK * Chunks + (WK * Chunks % 2 == 0 ? 1 : 0));
  static_assert(MT == 2 && Own * WK == K && Own % 4 == 0, "a lane for each row of two tiles");
  float row[Own];
  int group, quarter, wm, wk;

  static DEVICE_MEMBER float told(float v) { return v; }

  template <class RowOf>
  DEVICE_MEMBER void load(char*, RowOf row_of) {
    const int warp = thread() / 32;
    group = lane() / 4, quarter = lane() % 4, wm = warp % WM, wk = warp / WM;
    const float* from = row_of(wm, lane() / 16, lane() % 16) + wk * Own;
    UNROLL for (int k = 0; k < Own; k += 4) {
      const Four v = forgotten(*reinterpret_cast<const Four*>(from + k));
      row[k] = float_of(v.x), row[k + 1] = float_of(v.y), row[k + 2] = float_of(v.z), row[k + 3] = float_of(v.w);
    }
  }

  template <int, bool = false, bool = false>
  DEVICE_MEMBER void run(const char* stage, float (&d)[MT][1][4]) const {
    const char* column = stage + wk * Own * 4;
    float sums[4] = {0, 0, 0, 0};  // that do not wait for each other
    UNROLL for (int k = 0; k < Own; k += 4) {
      const Four v = *reinterpret_cast<const Four*>(column + k * 4);
      sums[0] = fused(row[k], float_of(v.x), sums[0]);
      sums[1] = fused(row[k + 1], float_of(v.y), sums[1]);
      sums[2] = fused(row[k + 2], float_of(v.z), sums[2]);
      sums[3] = fused(row[k + 3], float_of(v.w), sums[3]);
    }
    const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    UNROLL for (int m = 0; m < MT; ++m) {
      d[m][0][0] = of_lane(sum, 16 * m + group);
      d[m][0][2] = of_lane(sum, 16 * m + group + 8);
      d[m][0][1] = d[m][0][3] = 0.0f;
    }
  }
};

template <bool Rows, class E, int K, int MT, int NT, int WM, int WK, int InRegisters, int InShared, bool Exact>
struct CoreOf {
  using Type = Product<E, K, MT, NT, WM, WK, InRegisters, InShared, Exact>;
};
template <int K, int MT, int WM, int WK, int InRegisters, bool Exact>
struct CoreOf<true, float, K, MT, 1, WM, WK, InRegisters, 0, Exact> {
  using Type = RowProduct<K, MT, WM, WK, InRegisters>;
};

}  // namespace longshort
