// The cross entropy of rows of scores, with its gradient left in their place.
//
//   loss = -log p_y,   p = softmax(s),   s <- p - onehot(y)
//
// A row stays in the second-level cache while it is passed over three times. A row with a score that is not a number,
// or infinite above, becomes not-a-number; a score of minus infinity has p = 0.
#pragma once

#include <limits>

#include "activation.hpp"
#include "packing.hpp"
#include "team.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr Index ScoresWorthTeam = 64 * 1024;  // that pay for waking the team
constexpr Index SummedTogether = 4096;        // terms of a lane's sum stay few, so that long rows lose nothing

template <class Real>
inline Real largest(const Real* s, Index count) {
  constexpr Real least = -std::numeric_limits<Real>::infinity();
  Vector<Real> most = broadcast(least);
  for_each_vector<Real>(count, [&](Index first, int lanes) {
    const Vector<Real> value = load_some(s + first, lanes);
    most = maximum(most, lanes == Lanes<Real> ? value : lanes_of<Real>((1u << lanes) - 1) ? value : broadcast(least));
  });
  Real found = most[0];
  for (int lane = 1; lane < Lanes<Real>; ++lane) found = std::max(found, most[lane]);
  return found;
}

// s <- exp(s - top); returns the sum.
template <class Real>
inline double to_powers(Real* s, Index count, Real top) {
  double total = 0;
  for (Index from = 0; from < count; from += SummedTogether) {
    Vector<Real> sum{};
    for_each_vector<Real>(std::min(SummedTogether, count - from), [&](Index first, int lanes) {
      const Vector<Real> below = load_some(s + from + first, lanes) - top;
      Vector<Real> power = below < -ExpTable<Real>::Limit ? Vector<Real>{} : exp<Real>(below);
      if (lanes < Lanes<Real>) power = lanes_of<Real>((1u << lanes) - 1) ? power : Vector<Real>{};
      store_some(s + from + first, power, lanes);
      sum += power;
    });
    for (int lane = 0; lane < Lanes<Real>; ++lane) total += sum[lane];
  }
  return total;
}

template <class Real>
void run_cross_entropy(const EntropyCall<Real>& call) {
  const int threads = call.M * call.V < ScoresWorthTeam ? 1 : static_cast<int>(std::clamp<Index>(call.M, 1, call.threads));
  run_team(threads, [&](int member) {
    const Range own = part(call.M, threads, member);
    for (Index m = own.first; m < own.last; ++m) {
      Real* s = call.scores.row(m);
      const Real top = largest(s, call.V), of_target = s[call.targets[m]];
      const double total = to_powers(s, call.V, top);
      const Real share = static_cast<Real>(1 / total);
      for_each_vector<Real>(call.V, [&](Index first, int lanes) { store_some(s + first, load_some(s + first, lanes) * share, lanes); });
      s[call.targets[m]] -= 1;
      call.losses[m] = static_cast<Real>(std::log(total) + (static_cast<double>(top) - static_cast<double>(of_target)));
    }
  });
}

}  // namespace longshort::LONGSHORT_ISA
