// What the noise decides of a thread's cells in a persistent kernel, one bit each.
//
// A thread there owns one unit of several sequences, and a call of Philox decides four adjacent units of one. So the
// four lanes that own those units share their calls: each makes the words of one cell and kind in four, and two
// shuffles give every lane the bits of its own unit.
#pragma once
#include "call.cuh"

namespace longshort {

template <int Cells, class F>
struct Decisions {
  static_assert(3 * Cells <= 32, "a bit for each cell and kind");
  F has;
  u32 bits;  // set where a mask keeps, or a zone renews, Cells of each kind that there is; of no other kind is one read
  DEVICE_MEMBER bool candidate(int k) const { return bits >> k & 1u; }
  DEVICE_MEMBER bool output(int k) const { return bits >> (Cells * has(MasksCandidate) + k) & 1u; }
  DEVICE_MEMBER bool cell(int k) const {
    return bits >> (Cells * (has(MasksCandidate) + has(ZonesHidden)) + k) & 1u;
  }
};

// Of step t, by all lanes of a warp together: lanes Apart and 2 Apart from each other own adjacent units of the same
// sequences, n_of(k) and u_of(k) of cell k.
template <int Cells, int Apart, class A, class F, class N, class U>
DEVICE Decisions<Cells, F> decide(const A& a, const F& has, Index t, N n_of, U u_of) {
  const bool there[3] = {has(MasksCandidate), has(ZonesHidden), has(ZonesCell)};
  const Stream streams[3] = {RecurrentDropout, ZoneoutH, ZoneoutC};
  const i64 least[3] = {a.least_g, a.least_zone_h, a.least_zone_c};
  const int tasks = (there[0] + there[1] + there[2]) * Cells, own = lane() / Apart % 4;
  u32 bits = 0, stream = 0, n = 0, quad = 0, from = 0;
  int task = 0;
  UNROLL for (int at = 0; at < 3 * Cells; ++at) {
    const int kind = at / Cells, k = at % Cells;
    if (!there[kind]) continue;
    if (own == task % 4) stream = streams[kind], n = n_of(k), quad = u_of(k) / 4, from = static_cast<u32>(least[kind]);
    if (++task % 4 != 0 && task != tasks) continue;
    u32 words[4], shared = 0;
    noise_words(seed_of(a), stream, a.first + t, n, quad, words);
    UNROLL for (int j = 0; j < 4; ++j) shared |= static_cast<u32>(words[j] >= from) << (4 * own + j);
    shared |= across_warp(shared, Apart);
    shared |= across_warp(shared, 2 * Apart);
    const int first = (task - 1) / 4 * 4;
    UNROLL for (int j = 0; j < 4; ++j)
      if (first + j < task) bits |= (shared >> (4 * j + own) & 1u) << (first + j);
  }
  return {has, bits};
}

}  // namespace longshort
