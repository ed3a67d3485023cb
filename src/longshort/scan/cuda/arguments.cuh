// The one argument of every kernel: all sizes, options and pointers of a call.
//
// The host packs it by the names below (`sources.py` reads this struct), so every field has eight bytes.
// E is the type of x, y and the weights; R that of the cell and of all sums (float for 16 bits). Sizes are
// N sequences, T steps, H cells, P outputs, G computed gates, S of them sigmoids. Arrays are dense in the
// order written, aligned to 16 bytes unless strides are given, and none overlaps another but where it says so.
// "in" is only read, "out" only written, "state" both, by the one thread that owns the element (n, unit); a null
// pointer means that the call has no such thing. Steps run s = 0 .. T-1 in the order of computation and stand at
// t = s, or T-1-s reversed.
#pragma once
#include "device.cuh"

namespace longshort {

// Bits of `flags`; what they do is in definition.py, by equation.
enum Flag : u32 {
  Peephole = 1u << 0,           // (2), (5)
  Coupled = 1u << 1,            // (3)
  NoInputGate = 1u << 2,        // (3)
  NoForgetGate = 1u << 3,       // (3)
  NoOutputGate = 1u << 4,       // (5)
  LinearInput = 1u << 5,        // (3)
  LinearOutput = 1u << 6,       // (6)
  HardSigmoid = 1u << 7,        // σ
  ClipsCell = 1u << 8,          // (4)
  ClipsProjection = 1u << 9,    // (6)
  Projected = 1u << 10,         // (6)
  NormsProducts = 1u << 11,     // (2) "ba2016", "products"
  NormsGates = 1u << 12,        // (2), (4) "per_gate"
  NormsOutput = 1u << 13,       // (6) "ba2016"
  GateRecurrence = 1u << 14,    // (2)
  MasksHidden = 1u << 15,       // (1) m_h, in training
  MasksCandidate = 1u << 16,    // (4) m_g, in training
  ZonesHidden = 1u << 17,       // (7) in training
  ZonesCell = 1u << 18,         // (7) in training
  MixesHidden = 1u << 19,       // (7) in evaluation
  MixesCell = 1u << 20,         // (7) in evaluation
  Reversed = 1u << 21,
  Ragged = 1u << 22,            // (8): there are lengths
  Resets = 1u << 23,            // (0): there are resets
  Tapes = 1u << 24,             // forward: for a way back
  KeepsCells = 1u << 25,        // the call returns them
  KeepsGates = 1u << 26,
};

// The flags as the kernel meets them: known when compiled, or in the arguments.
template <u32 Known>
struct Fixed {
  template <class A>
  DEVICE_MEMBER explicit Fixed(const A&) {}
  static constexpr int Parts = Known & (NormsProducts | NormsGates) ? 12 : 4;
  DEVICE_MEMBER constexpr bool operator()(u32 flag) const { return (Known & flag) != 0; }
};
struct Open {
  static constexpr int Parts = 12;
  u32 flags;
  template <class A>
  DEVICE_MEMBER explicit Open(const A& a) : flags(static_cast<u32>(a.flags)) {}
  DEVICE_MEMBER bool operator()(u32 flag) const { return (flags & flag) != 0; }
};

// A size in the eight bytes of a field, below 2³¹: multiplying two of them is one instruction, two i64 take four.
struct Size {
  int value, high;
  DEVICE_MEMBER operator Index() const { return value; }
};

template <class E, class R>
struct Arguments {
  using Element = E;
  using Wide = R;
  // sizes and options
  Size N;
  Size T;
  Size H;
  Size P;
  Size G;
  Size S;
  i64 flags;
  Size step;           // s of this launch, in the plan of one launch a step
  Size steps;          // steps of this launch, in the persistent plan: s = step .. step + steps - 1; in the other the
                       // first s whose W_ih x is not in `z`; of a span, in `norms_back`
  i64 first;          // number of step t = 0 in the counters of the noise
  Size z_first;        // t of the first row of `z`
  i64 slot_i;         // block of rows of gate i in z, r, bias and da; -1 where it is not computed
  i64 slot_f;
  i64 slot_g;
  i64 slot_o;
  i64 sigmoid_i;      // block of gate i in peephole, s and w_gates; -1 where there is none
  i64 sigmoid_f;
  i64 sigmoid_o;
  Size pitch;          // H, or more: units a gate has in `da` and `dz`
  double cell_clip;
  double projection_clip;
  double norm_eps;
  i64 least_h;        // a word of philox.cuh keeps its unit from here on: ⌊rate · 2³²⌋ of variational_h
  i64 least_g;        // of recurrent_dropout
  i64 least_zone_h;
  i64 least_zone_c;
  double scale_h;     // 1 / (1 - rate) of variational_h, else 1
  double scale_g;     // of recurrent_dropout, else 1
  double share_h;     // zoneout in evaluation: the renewed share 1 - ρ
  double share_c;
  // what the call was given
  const i64* seed;          // in: one number, on the device
  const E* bias;            // in: (G H)
  const E* bias_hh;         // in: (G H)  or null: a second one; the bias is their sum, rounded. Not for one launch a step
  const E* peephole;        // in: (S H)
  const E* gain_ih;         // in: (G H)
  const E* gain_hh;         // in: (G H)
  const E* gain_c;          // in: (H)
  const E* shift_c;         // in: (H)
  const E* h_given;         // in: (N, P)
  const R* c_given;         // in: (N, H + S H), S = 0 without gate recurrence
  const E* initial_h;       // in: (N, P), or null for zeros
  const R* initial_c;       // in: like c_given, or null for zeros
  const u8* reset;          // in: (N, T)
  const i64* lengths;       // in: (N)
  // products of the call, made by a matrix product before the launch
  const R* z;               // in: (steps from z_first, N, G H)  W_ih x; persistent, with a norm of products, N of it
  const R* r;               // in: (N, G H)  W_hh operand
  const R* r_gates;         // in: (N, S H)  W_gates s
  const R* projected;       // in: (N, P)  W_hr unprojected
  // the state from which the next step starts, reset and all
  E* h;                     // state: (N, P)
  R* c;                     // state: (N, H + S H) as c_given
  E* operand;               // out: (N, P)  h where it is kept by variational_h, else 0; read by the next product.
                            // Null where y is that; then, and in the persistent plan, the first one alone
  Size operand_pitch;       // forward, one launch a step: elements from one sequence's operand to the next
  R* unprojected;           // out: (N, H)  h̃ before the projection
  // what the call returns, laid out as x is: (n, t) is row n row_n + t row_t of each
  E* y;                     // out: (N, T, P); in on the way back
  R* cells;                 // out: (N, T, H)
  R* gates;                 // out: (N, T, 4 H)  i, f, g, o
  Size row_n;
  Size row_t;
  // what the way back needs, written forward and read backward
  E* tape_gates;            // (T, N, 4 H)  i, f, g, o; of type R with a norm, see `tapes_wide`
  R* tape_cells;            // (T, N, H)  the cell after the step; null forward, and backward `cells`, where a call returns
                            // those
  R* hat_z;                 // (T, N, G H)  N(z)
  R* hat_r;                 // (T, N, G H)  N(r), or N of each gate
  R* scale_z;               // (T, N)  1 / sqrt(var + eps)
  R* scale_r;               // (T, N, 1), or (T, N, G)
  R* stats_c;               // (T, N, 2)  mean and 1 / sqrt(var + eps) of c̃ where it is normed
  u8* unclipped;            // (T, N, P)  where the projection's clip passes
  // gradients that arrive; strides in elements, units side by side
  const E* dy;              // in; of zeros where none arrives, in the persistent plan
  i64 dy_n;
  i64 dy_t;
  const R* dcells;          // in
  i64 dcells_n;
  i64 dcells_t;
  const R* dgates;          // in
  i64 dgates_n;
  i64 dgates_t;
  // gradients of the state after the step at hand
  const R* dh_product;      // in: (dh_parts, N, P)  W_hh' dr of the step after, to be added up; null at the last step
  Size dh_parts;            // up to `Parts` of the flags
  Size dh_pitch;            // elements from one sequence's row of dh_product to the next
  R* dh;                    // state: (N, P)  what reaches h past the product; persistent, in, and null is zero
  R* dc;                    // state: (N, H)  likewise
  const R* ds_product;      // in: (N, S H)  W_gates' da of the step after; null at the last step
  R* ds;                    // state: (N, S H)  what reaches s past the product
  const R* m;               // in: (N, H)  W_hr' dprojected
  R* dprojected;            // out: (T, N, P)  h̄' of (11)
  R* unprojected_all;       // out: (T, N, H)  h̃ of (6) again
  // gradients that leave
  E* da;                    // out: (T, N, G, pitch)  ā: without a norm it is also dr and dz. With one, persistent, r̄; in
                            // bfloat16 (T, N, 3, G, pitch), as `dr_parts`
  E* dr;                    // out: (T, N, G H)  r̄, with a norm
  R* da_wide;               // out: (T, N, G H)  ā, with a norm in the persistent plan; in for `norms_back`
  R* dr_wide;               // out: (N, G H)  r̄ of this step, with a norm and float16: its sum cancels
  E* dr_parts;              // out: (N, 3, G H)  with bfloat16 instead, as a sum: r̄ rounded, then what that left of it, twice
  E* dz;                    // out: (T, N, G, pitch)  z̄, with a norm of both products; in 16 bits (T, N, 2, G, pitch), as
                            // a sum: rounded, and what that left, for W_ih' z̄ cancels
  R* gates_before;          // out: (T, N, S H)  s_{t-1} of the operands' kernel
  R* da_sigmoid;            // out: (T, N, S H)  ā of the sigmoids, with gate recurrence
  R* sums;                  // state: (N, K, H), of `norms_back` (blocks, K, H)  sums over t, one block for each row that a
                            // field below names
  i64 sum_peephole;         // first block of the S blocks Σ ā ⊙ c; -1 where there is none
  i64 sum_cell;             // of the two blocks for gain_c and shift_c
  i64 sum_ih;               // of the G blocks for gain_ih
  i64 sum_hh;               // of the G blocks for gain_hh
  i64 sum_bias;             // of the G blocks for the bias, with a norm
  i64 sum_count;            // K
  R* dh_first;              // out: (N, P)  gradient of h_given; persistent, null where nobody needs it
  R* dc_first;              // out: (N, H + S H)  likewise
  R* dh_initial;            // state: (N, P)  gradient of initial_h
  R* dc_initial;            // state: (N, H + S H)
  // persistent plan
  const E* weights;         // in: rows of resident weights, padded with zeros to `weight_pitch`
  i64 weight_pitch;         // elements; forward W_hh (G H, pitch), backward W_hh' (P, G, padded H)
  E* exchange;              // state: (steps + 1, N, padded P), every bit set before the launch; see exchange.cuh
                            // Of teams: (sets, 2, padded H, columns), see team_forward.cu
  u32* posted;              // state: (sets, 128)  zero before the launch; how many operands a block of a set has written
  R* bias_sums;             // out: (groups, G H)  Σ ā over t and the sequences of one group; not with a norm
  const E* x;               // in: (N, T, C) by strides, where the kernel makes W_ih x itself: rows of `x_vectors` times 16
                            // bytes, whole and at addresses that 16 bytes divide; else null
  i64 x_n;
  i64 x_t;
  Size x_vectors;
  const E* input_weights;   // in: then W_ih (G H, padded C)
  const E* projection;      // in: W_hr, rows dense and padded with zeros to the padded H; in the way back W_hr'
  E* exchange_second;       // state: (steps, N, 3, padded H) h̃, backward (T, N, 3, padded P) h̄', told as h is, every bit set
                            // before the launch; of 4 bytes one in place of three. See projection.cuh
  float* meetings;          // state: (meetings of the launch, N, Blocks, 8), every bit set before it; see meeting.cuh
  R* normed_z;              // out: like z, N of it; may be z
  i64* stuck;               // out: (2)  block and step of a wait that never ended
  i64 patience;             // nanoseconds a wait may last
  Size sequences;            // sequences of one sub-batch of a block, or of a set
  i64 rest;                 // clocks from when a thread told its cells to its first look at the others', where there is one
                            // sub-batch: a look in vain takes as long as one that finds all, and holds others up
};

// The argument of a kernel compiled for the sizes of one call: constants hide the fields of the same name, and every
// stride but those of N and T becomes part of an instruction.
template <class A, i64 H_, i64 P_, i64 G_, i64 S_, i64 I, i64 F, i64 C, i64 O, i64 SigmoidI, i64 SigmoidF, i64 SigmoidO>
struct Sized : A {
  static constexpr Index H = H_, P = P_, G = G_, S = S_, slot_i = I, slot_f = F, slot_g = C, slot_o = O;
  static constexpr Index sigmoid_i = SigmoidI, sigmoid_f = SigmoidF, sigmoid_o = SigmoidO;
};

}  // namespace longshort
