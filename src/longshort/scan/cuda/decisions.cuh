// What the noise decides of a thread's cells in a persistent kernel, one bit each.
//
// A thread there owns one unit of several sequences, and a call of Philox decides four adjacent units of one. So the
// four lanes that own those units share their calls: each makes the words of one cell and kind in four, and four votes
// of the warp give every lane the bits of its own unit.
#pragma once
#include "call.cuh"

namespace longshort {

// Lanes Apart and 2 Apart from each other own adjacent units of the same sequences. Lasts: whether the decisions of one
// step are still there at the next; then a call serves two steps where half of the lanes would have none to make.
template <int Cells, int Apart, bool Lasts, class F>
struct Decisions {
  static constexpr int Calls = (3 * Cells + 3) / 4;
  F has;
  u32 bits[Calls];  // set where a mask keeps, or a zone renews: for each call, a bit in Apart for each lane's words

  DEVICE_MEMBER explicit Decisions(const F& options) : has(options) {
    UNROLL for (int call = 0; call < Calls; ++call) bits[call] = 0;
  }
  DEVICE_MEMBER bool at(int task) const { return bits[task / 4] >> (Apart * (task % 4)) & 1u; }
  DEVICE_MEMBER bool candidate(int k) const { return at(k); }
  DEVICE_MEMBER bool output(int k) const { return at(Cells * has(MasksCandidate) + k); }
  DEVICE_MEMBER bool cell(int k) const { return at(Cells * (has(MasksCandidate) + has(ZonesHidden)) + k); }

  // Of step t, by all lanes of a warp together: n_of(k) and u_of(k) of cell k. next: t of the turn after. turn: how many
  // there were before, if decisions last.
  template <class A, class N, class U>
  DEVICE_MEMBER void make(const A& a, Index t, Index next, int turn, N n_of, U u_of) {
    const bool there[3] = {has(MasksCandidate), has(ZonesHidden), has(ZonesCell)};
    const Stream streams[3] = {RecurrentDropout, ZoneoutH, ZoneoutC};
    const i64 least[3] = {a.least_g, a.least_zone_h, a.least_zone_c};
    const int tasks = (there[0] + there[1] + there[2]) * Cells, own = lane() / Apart % 4;
    const bool twice = Lasts && tasks > 0 && 2 * tasks <= 4;
    if (twice && turn % 2 != 0) {
      bits[0] >>= Apart * tasks;
      return;
    }
    const Index of = twice && own >= tasks ? next : t;
    u32 made[Calls] = {}, stream = 0, n = 0, quad = 0, from = 0;
    int task = 0;
    UNROLL for (int at = 0; at < 3 * Cells; ++at) {
      const int kind = at / Cells, k = at % Cells;
      if (!there[kind]) continue;
      if ((twice ? own % tasks : own) == task % 4)
        stream = streams[kind], n = n_of(k), quad = u_of(k) / 4, from = static_cast<u32>(least[kind]);
      if (++task % 4 != 0 && task != tasks) continue;
      u32 words[4], votes[4];
      noise_words(seed_of(a), stream, a.first + of, n, quad, words);
      UNROLL for (int j = 0; j < 4; ++j) votes[j] = votes_in_warp(words[j] >= from);
      const u32 mine = own & 2 ? (own & 1 ? votes[3] : votes[2]) : (own & 1 ? votes[1] : votes[0]);
      made[(task - 1) / 4] = mine >> (lane() - own * Apart);
    }
    UNROLL for (int call = 0; call < Calls; ++call) bits[call] = made[call];  // with no index known late
  }
};

}  // namespace longshort
