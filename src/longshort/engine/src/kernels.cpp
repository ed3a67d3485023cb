// Compiled once for each instruction set, with LONGSHORT_ISA as the namespace of everything in it.
#include "kernels.hpp"

#include <chrono>

#include "backward.hpp"
#include "forward.hpp"
#include "pack_weights.hpp"
#include "step.hpp"

namespace longshort::LONGSHORT_ISA {
namespace {

template <class Real>
Index tape_row(const PackedWeights<Real>& w, const Noise& noise) {
  return Layout<Real>(w, Options<Real>(w, noise).plain).row;
}

template <class Real>
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
  double best = 0;
  for (int trial = 0; trial < 20; ++trial) {
    constexpr int calls = 2000;
    const auto begin = std::chrono::steady_clock::now();
    for (int k = 0; k < calls; ++k) tile<Real, TileRows, PanelVectors>(rows, panel, depth, from, to);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * calls * depth * TileRows * PanelColumns<Real> / seconds.count());
  }
  return best;
}

template <class Real>
Index panel_values(Index units, Index depth) {
  return block_count<Real>(units) * PanelColumns<Real> * depth;
}

template <class Real>
void activate(int which, const Real* from, Real* to, Index count) {
  for (Index k = 0; k < count; k += Lanes<Real>) {
    const int lanes = static_cast<int>(std::min<Index>(Lanes<Real>, count - k));
    const Vector<Real> x = load_first(from + k, lanes);
    store_first(to + k, which == 0 ? exp<Real>(x) : which == 1 ? sigmoid<Real>(x) : tanh<Real>(x), lanes);
  }
}

template <class Real>
constexpr Kernels<Real> kernels() {
  return {pack<Real>, pack_bias<Real>, run_forward<Real>, run_backward<Real>, run_step<Real>, narrow<Real>, panel_values<Real>, tape_row<Real>, peak<Real>, activate<Real>};
}

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

#define LONGSHORT_TEXT(name) #name
#define LONGSHORT_NAME(name) LONGSHORT_TEXT(name)

}  // namespace

extern const InstructionSet set;
const InstructionSet set = {LONGSHORT_NAME(LONGSHORT_ISA), supported, kernels<float>(), kernels<double>()};

}  // namespace longshort::LONGSHORT_ISA
