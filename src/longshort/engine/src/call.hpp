// What a caller hands to the engine: sizes, places in memory and the variant. Nothing here depends on an
// instruction set. Axis letters: N sequences, T steps, C inputs, H units, P outputs of a step (H without a
// projection). Sizes and strides count values (of x, h, y in pairs, strides count words), never bytes, and are 64 bits wide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace longshort {

using Index = std::ptrdiff_t;

// The 16-bit type whose values h takes after every step, where x and the weights are of one.
enum class Rounding { none, bfloat16, float16 };

enum class Norm { none, ba2016, per_gate, products };

// Mirrors scan/variant.py, field by field.
struct Variant {
  bool peephole = false, coupled = false, gate_recurrence = false;
  bool input_gate = true, forget_gate = true, output_gate = true;
  bool input_activation = true, output_activation = true;
  bool hard_sigmoid = false;
  Norm norm = Norm::none;
  double norm_eps = 1e-5;
  double cell_clip = std::numeric_limits<double>::infinity();
  double projection_clip = std::numeric_limits<double>::infinity();

  // Gates that are computed, of i, f, g, o.
  bool computes(int gate) const {
    return gate == 0 ? input_gate : gate == 1 ? forget_gate && !coupled : gate == 2 ? true : output_gate;
  }
  int gate_count() const { return computes(0) + computes(1) + computes(2) + computes(3); }
  int sigmoid_count() const { return gate_count() - 1; }
};

// Mirrors scan/masks.py. Rates in [0, 1). In evaluation zoneout mixes instead of choosing.
struct Noise {
  double variational_h = 0, recurrent_dropout = 0, zoneout_h = 0, zoneout_c = 0;
  std::uint64_t seed = 0;
  std::int64_t first = 0;  // the number of step 0 in the counters
  bool training = false;
};

// Rows of `width` contiguous values for each sequence and step; data may be null where the array is absent.
template <class Value>
struct Sequences {
  Value* data = nullptr;
  Index sequence_stride = 0, step_stride = 0;
  Value* row(Index n, Index t) const { return data + n * sequence_stride + t * step_stride; }
  explicit operator bool() const { return data != nullptr; }
};

// One row for each sequence. stride 0 gives every sequence the same row; null stands for zeros.
template <class Value>
struct Rows {
  Value* data = nullptr;
  Index stride = 0;
  Value* row(Index n) const { return data + n * stride; }
  explicit operator bool() const { return data != nullptr; }
};

// torch's layout: the computed gates stacked along the rows. In pairs, C and P and the strides of w_ih and w_hh count words.
template <class Real>
struct Weights {
  Index C = 0, H = 0, P = 0;
  Rows<const Real> w_ih, w_hh;            // (G H, C), (G H, P): row r at row(r)
  const Real* bias = nullptr;             // (G H) or null
  Rows<const Real> w_hr;                  // (P, H) or absent
  const Real* peephole = nullptr;         // (S H)
  Rows<const Real> w_gates;               // (S H, S H)
  const Real *gain_ih = nullptr, *gain_hh = nullptr;    // (G H)
  const Real *gain_c = nullptr, *shift_c = nullptr;     // (H)
};

template <class Real>
struct PackedWeights;  // defined once for each instruction set, in weights.hpp

// The inputs that forward and backward share.
template <class Real>
struct SequenceCall {
  Index N = 0, T = 0;
  Sequences<const Real> x;                  // (N, T, C)
  Rows<const Real> h, c;                    // state before the first step, (N, P) and (N, H)
  Sequences<const std::uint8_t> reset;      // (N, T), nonzero: start this step from the initial state
  Rows<const Real> initial_h, initial_c;    // what a reset returns to
  const std::int64_t* lengths = nullptr;    // (N), each in [0, T]
  bool reverse = false;
  Noise noise;
  int threads = 1;
};

template <class Real>
struct ForwardCall : SequenceCall<Real> {
  const Real* bias = nullptr;    // (G H), or null: that of the packed weights
  Sequences<Real> y;             // (N, T, P)
  Rows<Real> h_n, c_n;           // (N, P), (N, H)
  Sequences<Real> cells, gates;  // (N, T, H) and (N, T, G H), or absent
  Real* tape = nullptr;          // tape_values(...) values for a later backward, or null
};

template <class Real>
struct BackwardCall : SequenceCall<Real> {
  Sequences<const Real> y;
  const Real* tape = nullptr;
  Sequences<const Real> dy;                // or absent: zero
  Rows<const Real> dh_n, dc_n;             // or absent: zero
  Sequences<const Real> dcells, dgates;    // or absent: zero
  Sequences<Real> dx;                      // absent where not wanted, as all below
  Rows<Real> dh, dc;                       // (N, P), (N, H)
  Rows<Real> dinitial_h, dinitial_c;       // (N, P), (N, H): to be summed by the caller where shared
  Rows<Real> dw_ih, dw_hh, dw_hr, dw_gates;
  Real *dbias = nullptr, *dpeephole = nullptr;
  Real *dgain_ih = nullptr, *dgain_hh = nullptr, *dgain_c = nullptr, *dshift_c = nullptr;
};

// Steps of the plain cell. h of step t is y's row t; the cell is moved on in c_n.
template <class Real>
struct StepCall {
  Index N = 0, T = 1;
  Sequences<const Real> x;       // (N, T, C)
  Rows<const Real> h, c;         // (N, H)
  Sequences<Real> y;             // (N, T, H); with T = 1 it may be h itself
  Rows<Real> c_n;                // (N, H), may be c itself
  const Index* only = nullptr;   // the N sequences, as rows of the arrays, where not all of them step
  bool backwards = false;        // from the last block of units: what was read last is still in cache
  int threads = 1;
};

// out = bias + a b' of matrices, each with one contiguous axis.
template <class Real>
struct MatrixCall {
  struct Matrix {
    const Real* data = nullptr;
    Index row_stride = 0, column_stride = 0;
    const Real* at(Index row, Index column) const { return data + row * row_stride + column * column_stride; }
  };
  Index M = 0, C = 0, K = 0;
  Matrix a, b;                 // (M, C) and (K, C)
  const Real* bias = nullptr;  // (K), or null: zero
  Rows<Real> out;              // (M, K)
  int threads = 1;
};

// Scores of M rows become the gradient of their losses.
template <class Real>
struct EntropyCall {
  Index M = 0, V = 0;
  Rows<Real> scores;                      // (M, V)
  const std::int64_t* targets = nullptr;  // (M), each in 0 ... V - 1
  Real* losses = nullptr;                 // (M)
  int threads = 1;
};

enum class Stored { full, bfloat16, int8 };

// The weights of a step: those that were packed, or short copies of them; see stored.hpp.
template <class Real>
struct StepWeights {
  Stored stored = Stored::full;
  Index C = 0, H = 0;
  const Real* bias = nullptr;                                       // blocked
  const void *input = nullptr, *recurrent = nullptr;
  const Real *input_scale = nullptr, *recurrent_scale = nullptr;    // int8: one for each gate of each unit, blocked
  const std::int32_t *input_offset = nullptr, *recurrent_offset = nullptr;  // int8: what unsigned activations add
};

}  // namespace longshort
