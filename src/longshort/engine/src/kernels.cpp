// Compiled once for each instruction set, with LONGSHORT_ISA as the namespace of everything in it, and in each once
// for float and once for double (LONGSHORT_REAL), so that a compiler with several cores has work for them.
#include <chrono>

#include "backward.hpp"
#include "cross_entropy.hpp"
#include "forward.hpp"
#include "matrix.hpp"
#include "pack_weights.hpp"
#include "set.hpp"
#include "step.hpp"

namespace longshort::LONGSHORT_ISA {
namespace {

template <class Real>
Index tape_row(const PackedWeights<Real>& w, const Noise& noise) {
  return Layout<Real>(w, Options<Real>(w, noise)).row;
}

template <class Real, class Form = Whole<Real>>
double peak() {
  constexpr Index depth = 64;
  alignas(64) static Real panel[depth * PanelColumns<Real>], row[depth], start[TileRows][PanelColumns<Real>];
  const Real* rows[TileRows];
  const Real* from[TileRows];
  Real* to[TileRows];
  for (int r = 0; r < TileRows; ++r) {
    rows[r] = row;
    from[r] = to[r] = start[r];
  }
  const Tile<Real> multiply = Form::tile(TileRows, PanelVectors);
  double best = 0;
  for (int trial = 0; trial < 20; ++trial) {
    constexpr int calls = 2000;
    const auto begin = std::chrono::steady_clock::now();
    for (int k = 0; k < calls; ++k) multiply(rows, panel, depth, from, to);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, (Form::paired ? 4.0 : 2.0) * calls * depth * TileRows * PanelColumns<Real> / seconds.count());
  }
  return best;
}

template <class Real>
double reading(Index bytes) {
  constexpr int L = Lanes<Real>, sums = 8;
  const Index rows = std::max<Index>(1, bytes / static_cast<Index>(sizeof(Real)) / (sums * L));
  Room room;
  Real* values = reinterpret_cast<Real*>(room.bytes(static_cast<std::size_t>(rows * sums * L) * sizeof(Real)));
  std::fill(values, values + rows * sums * L, Real(1));
  const Index calls = std::max<Index>(2, 16'000'000 / (rows * sums * RegisterBytes));
  double best = 0;
  for (int trial = 0; trial < 15; ++trial) {
    Vector<Real> sum[sums] = {};
    const auto begin = std::chrono::steady_clock::now();
    for (Index call = 0; call < calls; ++call)
      for (Index row = 0; row < rows; ++row)
#pragma GCC unroll 8
        for (int k = 0; k < sums; ++k) sum[k] += load(values + (row * sums + k) * L);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    for (int k = 1; k < sums; ++k) sum[0] += sum[k];
    values[0] = sum[0][0] > 0 ? Real(1) : Real(0);  // so that the sums are wanted
    best = std::max(best, static_cast<double>(calls * rows) * sums * RegisterBytes / seconds.count());
  }
  return best;
}

template <class Real>
void activate(int which, const Real* from, Real* to, Index count) {
  for (Index k = 0; k < count; k += Lanes<Real>) {
    const int lanes = static_cast<int>(std::min<Index>(Lanes<Real>, count - k));
    const Vector<Real> x = load_first(from + k, lanes);
    store_first(to + k, which == 0 ? exp<Real>(x) : which == 1 ? sigmoid<Real>(x) : tanh<Real>(x), lanes);
  }
}

// Each of the three in the form of its weights. bindings.cpp lets none be packed in pairs where the set has no such products.
template <class Real, Dot dot, bool Rounds, class Body>
void in_form([[maybe_unused]] const PackedWeights<Real>& w, Body&& body) {
  if constexpr (std::is_same_v<Real, float>) {
#if defined(__AVX512F__)
    if constexpr (dot == Dot::bfloat16)
      if (w.paired) return body(Pairs{});
#endif
    if constexpr (Rounds)
      if (w.rounding != Rounding::none) return body(Rounded{});
  }
  body(Whole<Real>{});
}

template <class Real, Dot dot>
void pack_in_form(const Weights<Real>& from, PackedWeights<Real>& to, bool back, int threads) {
  in_form<Real, dot, false>(to, [&]<class Form>(Form) { pack<Real, Form>(from, to, back, threads); });
}

template <class Real, Dot dot>
void forward_in_form(const ForwardCall<Real>& call, const PackedWeights<Real>& w) {
  in_form<Real, dot, true>(w, [&]<class Form>(Form) { run_forward<Real, Form>(call, w); });
}

template <class Real, Dot dot>
void backward_in_form(const BackwardCall<Real>& call, const PackedWeights<Real>& w) {
  in_form<Real, dot, false>(w, [&]<class Form>(Form) { run_backward<Real, Form>(call, w); });
}

template <class Real, Dot dot>
constexpr double (*peak_of_pairs())() {
#if defined(__AVX512F__)
  if constexpr (dot == Dot::bfloat16 && std::is_same_v<Real, float>) return peak<Real, Pairs>;
#endif
  return nullptr;
}

}  // namespace

template <class Real, Dot dot>
constinit const Kernels<Real> Made<Real, dot>::kernels = {peak_of_pairs<Real, dot>(), pack_in_form<Real, dot>, holds<Real>, pack_bias<Real>, forward_in_form<Real, dot>, backward_in_form<Real, dot>, run_step<Real, dot>, store_weights<Real>, run_product<Real>, run_cross_entropy<Real>, tape_row<Real>, peak<Real>, reading<Real>, activate<Real>};

template struct Made<LONGSHORT_REAL, Dot::none>;
#if defined(__AVX512F__)
template struct Made<LONGSHORT_REAL, Dot::int8>;
template struct Made<LONGSHORT_REAL, Dot::bfloat16>;
#endif

}  // namespace longshort::LONGSHORT_ISA
