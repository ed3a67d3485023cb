// How a call is cut over the threads of a team, and each member's own memory.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "call.hpp"
#include "memory.hpp"
#include "threads.hpp"

namespace longshort {

// Sequences are split first: groups never wait for each other. Only where there are too few of them do
// the members of a group split the units, and then they meet at a barrier each step.
struct Split {
  int groups = 1, members = 1;
  int threads() const { return groups * members; }
};

constexpr Index RowsWorthSplitting = 3;             // fewer rows than this no longer fill the product's tile
constexpr Index ProductsWorthBarrier = 32 * 1024;   // multiply-adds a step that pay for a barrier

constexpr Index ProductsWorthTeam = 512 * 1024;     // multiply-adds of a whole call that pay for waking the team

inline Split split(Index sequences, Index steps, Index unit_blocks, Index products_per_row, int threads,
                   bool units_may_split) {
  if (sequences * steps * products_per_row < ProductsWorthTeam) return {};
  const auto clamp = [](Index value, Index most) { return static_cast<int>(std::clamp<Index>(value, 1, std::max<Index>(most, 1))); };
  if (units_may_split && sequences < RowsWorthSplitting * threads) {
    const int groups = clamp(sequences / RowsWorthSplitting, threads);
    const Index rows = (sequences + groups - 1) / groups;
    const int members = clamp(std::min<Index>(threads / groups, rows * products_per_row / ProductsWorthBarrier), unit_blocks);
    if (members > 1) return {groups, members};
  }
  return {clamp(sequences, threads), 1};
}

struct Range {
  Index first, last;
  Index size() const { return last - first; }
};

// Part `i` of `parts` of 0 ... count - 1, as even as they get.
inline Range part(Index count, Index parts, Index i) { return {count * i / parts, count * (i + 1) / parts}; }

}  // namespace longshort
