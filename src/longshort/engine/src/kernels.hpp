// What one instruction set offers, as functions; dispatch.cpp chooses among the sets.
#pragma once

#include <stdexcept>

#include "weights.hpp"

namespace longshort {

template <class Real>
struct Kernels {
  double (*peak_of_pairs)();  // peak() of products of bfloat16 in pairs; null where the set has none
  void (*pack)(const Weights<Real>&, PackedWeights<Real>&, bool back, int threads);
  bool (*holds)(const Weights<Real>&, const PackedWeights<Real>&, int threads);  // sizes and variant agree
  void (*pack_bias)(const Real*, PackedWeights<Real>&);  // null: no bias
  void (*forward)(const ForwardCall<Real>&, const PackedWeights<Real>&);
  void (*backward)(const BackwardCall<Real>&, const PackedWeights<Real>&);
  void (*step)(const StepCall<Real>&, const StepWeights<Real>&, Room&);
  StepWeights<Real> (*store)(const PackedWeights<Real>&, Stored, Room&);  // short copies lie in the room
  void (*multiply)(const MatrixCall<Real>&);
  void (*cross_entropy)(const EntropyCall<Real>&);
  Index (*tape_row)(const PackedWeights<Real>&, const Noise&);  // values for each sequence and step
  double (*peak)();  // floating-point operations a second of one core, in a product that fits its first cache
  double (*reading)(Index bytes);  // bytes a second that one core reads, of so many over and over
  void (*activate)(int which, const Real* from, Real* to, Index count);  // 0 exp, 1 sigmoid, 2 tanh: for tests
};

struct InstructionSet {
  const char* name;
  bool (*supported)();
  const Kernels<float>& single_precision;
  const Kernels<double>& double_precision;
};

template <class Real>
const Kernels<Real>& kernels_of(const InstructionSet& set);
template <>
inline const Kernels<float>& kernels_of<float>(const InstructionSet& set) { return set.single_precision; }
template <>
inline const Kernels<double>& kernels_of<double>(const InstructionSet& set) { return set.double_precision; }

struct UnknownSet : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The best set this processor has, or the one LONGSHORT_ENGINE_ISA names.
// Throws UnknownSet where that one is unknown or the processor lacks it.
const InstructionSet& instruction_set();

// Every set that was compiled in and that this processor has, best first.
const InstructionSet* const* instruction_sets(int& count);

}  // namespace longshort
