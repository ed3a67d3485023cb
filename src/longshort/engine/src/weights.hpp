// A layer's weights, packed once for one instruction set and used until they change.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "call.hpp"
#include "memory.hpp"

namespace longshort {

// Places inside one arena; the layouts are those of packing.hpp for the set that packed them. Null where
// the variant has no such weight, or where packing was asked to leave the way back out.
template <class Real>
struct PackedWeights {
  Variant variant;
  Index C = 0, H = 0, P = 0;
  bool projected = false;
  Rounding rounding = Rounding::none;
  bool paired = false;                        // the weights, x, h and y are bfloat16 in pairs; see pairs.hpp
  Index gate_first[4] = {-1, -1, -1, -1};     // first row of gate i, f, g, o in the stacked weights
  Index sigmoid_first[4] = {-1, -1, -1, -1};  // the same among the computed gates other than g
  std::unique_ptr<Arena> arena;
  std::vector<std::uint64_t> marks;           // of the rows that were packed; see marks.hpp

  Real* input = nullptr;           // blocks x (C x panel); in pairs this and the next are half as deep
  Real* recurrent = nullptr;       // blocks x (R x panel), R = P, or P + S H with full gate recurrence
  Real* projection = nullptr;      // panels over P of H rows
  Real* bias = nullptr;            // blocked
  Real* peephole = nullptr;        // blocked, g's lanes zero
  Real *gain_ih = nullptr, *gain_hh = nullptr;       // blocked
  Real *gain_c = nullptr, *shift_c = nullptr;        // one value a unit, padded with zeros
  Real* input_back = nullptr;      // panels over C of 4 x padded H rows, half of them in pairs, as the next
  Real* recurrent_back = nullptr;  // panels over R
  Real* projection_back = nullptr; // panels over H of P rows

  // How many places in memory so many values of x, h or y take.
  Index words(Index values) const { return paired ? values / 2 : values; }
  Index recurrent_depth() const { return P + (variant.gate_recurrence ? variant.sigmoid_count() * H : 0); }
};

template <class Real>
void number_gates(PackedWeights<Real>& packed) {
  Index row = 0, sigmoid = 0;
  for (int gate = 0; gate < 4; ++gate) {
    if (!packed.variant.computes(gate)) continue;
    packed.gate_first[gate] = row;
    row += packed.H;
    if (gate == 2) continue;
    packed.sigmoid_first[gate] = sigmoid;
    sigmoid += packed.H;
  }
}

}  // namespace longshort
