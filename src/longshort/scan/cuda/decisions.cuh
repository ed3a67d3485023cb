// What the noise decides of a thread's cells in a persistent kernel, one bit each.
//
// A thread there owns one unit of several sequences, and a call of Philox decides four adjacent units of one. So the
// four lanes that own those units share their calls: each makes the words of one cell and kind in four, and four votes
// of the warp give every lane the bits of its own unit.
#pragma once
#include "call.cuh"

namespace longshort {

// Lanes Apart and 2 Apart from each other own adjacent units of the same sequences. Lasts: whether a thread has the
// same cells at every step, and the decisions of one step are still there at the next. Then what no step changes is
// made once, and a call serves two steps where half of the lanes would have none to make.
template <int Cells, int Apart, bool Lasts, class F>
struct Decisions {
  static constexpr int Calls = (3 * Cells + 3) / 4;
  F has;
  u32 bits[Calls];  // set where a mask keeps, or a zone renews: for each call, a bit in Apart for each lane's words
  Noise noise;      // of the one call of a step, if decisions last

  DEVICE_MEMBER explicit Decisions(const F& options) : has(options) {}
  DEVICE_MEMBER bool zones_hidden() const { return has(ZonesHidden) && !has(Projected); }  // else outputs are others' own
  DEVICE_MEMBER bool at(int task) const { return bits[task / 4] >> (Apart * (task % 4)) & 1u; }
  DEVICE_MEMBER bool candidate(int k) const { return at(k); }
  DEVICE_MEMBER bool output(int k) const { return at(Cells * has(MasksCandidate) + k); }
  DEVICE_MEMBER bool cell(int k) const { return at(Cells * (has(MasksCandidate) + zones_hidden()) + k); }

  DEVICE_MEMBER static int own() { return lane() / Apart % 4; }
  DEVICE_MEMBER int tasks() const { return (has(MasksCandidate) + zones_hidden() + has(ZonesCell)) * Cells; }
  DEVICE_MEMBER bool once() const { return Lasts && tasks() > 0 && tasks() <= 4; }
  DEVICE_MEMBER bool twice() const { return once() && tasks() <= 2; }

  // Calls each(kind, cell, task).
  template <class Each>
  DEVICE_MEMBER void for_tasks(Each each) const {
    const bool there[3] = {has(MasksCandidate), zones_hidden(), has(ZonesCell)};
    int task = 0;
    UNROLL for (int at = 0; at < 3 * Cells; ++at)
      if (there[at / Cells]) each(at / Cells, at % Cells, task++);
  }
  DEVICE_MEMBER static u32 stream(int kind) { return kind == 0 ? RecurrentDropout : kind == 1 ? ZoneoutH : ZoneoutC; }
  template <class A>
  DEVICE_MEMBER static u32 least_of(const A& a, int kind) {
    return static_cast<u32>(kind == 0 ? a.least_g : kind == 1 ? a.least_zone_h : a.least_zone_c);
  }

  // From the words of each lane's task, the bits of this lane's unit.
  DEVICE_MEMBER static u32 vote(const u32 (&words)[4], u32 from) {
    u32 votes[4];
    UNROLL for (int j = 0; j < 4; ++j) votes[j] = votes_in_warp(words[j] >= from);
    const u32 mine = own() & 2 ? (own() & 1 ? votes[3] : votes[2]) : (own() & 1 ? votes[1] : votes[0]);
    return mine >> (lane() - own() * Apart);
  }

  // Calls each(kind, cell) for the task of this lane's one call.
  template <class Each>
  DEVICE_MEMBER void for_own(Each each) const {
    for_tasks([&](int kind, int k, int task) {
      if (own() % (twice() ? tasks() : 4) == task) each(kind, k);
    });
  }

  // Before the first step: n_of(k) and u_of(k) of cell k.
  template <class A, class N, class U>
  DEVICE_MEMBER void begin(const A& a, N n_of, U u_of) {
    if (!once()) return;
    u32 of = 0, n = 0, quad = 0;
    for_own([&](int kind, int k) { of = stream(kind), n = n_of(k), quad = u_of(k) / 4; });
    noise = noise_of(seed_of(a), of, n, quad);
  }

  // Of step t, by all lanes of a warp together. next: t of the turn after; turn: how many there were before.
  template <class A, class N, class U>
  DEVICE_MEMBER void make(const A& a, Index t, Index next, int turn, N n_of, U u_of) {
    u32 words[4];
    if (once()) {
      if (twice() && turn % 2 != 0) {
        bits[0] >>= Apart * tasks();
      } else {
        u32 quad = 0, from = 0;
        for_own([&](int, int k) { quad = u_of(k) / 4; });
        const i64 of = a.first + (twice() && own() >= tasks() ? next : t);
        // forgotten, for what follows from it would be kept and something else spilled
        noise_words(noise, static_cast<u32>(forgotten(static_cast<int>(quad))), of, words);
        for_own([&](int kind, int) { from = least_of(a, kind); });
        bits[0] = vote(words, from);
      }
      return;
    }
    u32 made[Calls] = {}, of = 0, n = 0, quad = 0, from = 0;
    for_tasks([&](int kind, int k, int task) {
      if (own() == task % 4) of = stream(kind), n = n_of(k), quad = u_of(k) / 4, from = least_of(a, kind);
      if (task % 4 != 3 && task + 1 != tasks()) return;
      noise_words(seed_of(a), of, a.first + t, n, quad, words);
      made[task / 4] = vote(words, from);
    });
    UNROLL for (int call = 0; call < Calls; ++call) bits[call] = made[call];  // no index of a member but a constant
  }
};

}  // namespace longshort
