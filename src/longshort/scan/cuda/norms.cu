// What a norm leaves to do before and after the persistent kernels: rows of all steps at once, each with one block.
//
// Before: N of W_ih x (2), which no step changes. After: from ā, z̄ of (18), and the sums over t of the gains and the bias.
#include "cell_back.cuh"
#include "norms.cuh"
#include "row.cuh"

namespace longshort {

// N of a row of z, to `normed_z`. Block k has row k, of time z_first + k / N.
template <class F, int Units, int Chunks, int Warps, class A>
DEVICE void norm_inputs(const A& a) {
  using R = typename A::Wide;
  Row<Units, Chunks, Warps, R> units(a.H);
  const Index row = block_x();
  R held[Chunks][4][Units], mean[1], scale[1];
  units.each([&](int k, Index u) {
    UNROLL for (int gate = 0; gate < 4; ++gate)
      if (gate < a.G) load(a.z + (row * a.G + gate) * a.H + u, held[k][gate]);
  });
  const auto visit = [&](int k, auto take) {
    UNROLL for (int gate = 0; gate < 4; ++gate)
      if (gate < a.G) UNROLL for (int j = 0; j < Units; ++j) take(0, j, held[k][gate][j]);
  };
  units.standardise(static_cast<int>(a.G), R(a.norm_eps), visit, mean, scale);
  if (a.scale_z && thread() == 0) a.scale_z[a.z_first * a.N + row] = scale[0];
  units.each([&](int k, Index u) {
    UNROLL for (int gate = 0; gate < 4; ++gate) {
      if (gate >= a.G) continue;
      UNROLL for (int j = 0; j < Units; ++j) held[k][gate][j] = (held[k][gate][j] - mean[0]) * scale[0];
      store(a.normed_z + (row * a.G + gate) * a.H + u, held[k][gate]);
    }
  });
}

// What a thread holds of a few units at one step, and their sums over the steps.
template <int Units, class R>
struct Gradients {
  R a_bar[4][Units], hat_z[4][Units], hat_r[4][Units], q_z[4][Units];
};
template <int Units, class R>
struct OverTime {
  R bias[4][Units] = {}, ih[4][Units] = {}, hh[4][Units] = {};
};

// z̄ of the steps of a sequence, `steps` of them, and their sums to row k of `sums`: block k has sequence k % N and the
// steps from t = k / N steps on.
template <class F, int Units, int Chunks, int Warps, class A>
DEVICE void norms_back(const A& a) {
  using R = typename A::Wide;
  const F has(a);
  Row<Units, Chunks, Warps, R> units(a.H);
  const Index n = block_x() % a.N, first = block_x() / a.N * a.steps;
  const Index end = first + a.steps < a.T ? first + a.steps : Index(a.T);
  OverTime<Units, R> sums[Chunks];
  for (Index t = first; t < end; ++t) {
    const Index row = t * a.N + n;
    const bool on = active(a, has, n, t);
    Gradients<Units, R> held[Chunks];
    R total[2] = {R(0), R(0)};
    units.each([&](int k, Index u) {
      Gradients<Units, R>& at = held[k];
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (gate >= a.G || !on) continue;
        const Index place = (row * a.G + gate) * a.H + u;
        load(a.da_wide + place, at.a_bar[gate]);
        load(a.hat_r + place, at.hat_r[gate]);
        if (has(NormsProducts)) load(a.hat_z + place, at.hat_z[gate]);
      }
    });
    if (t + 1 < end) units.each([&](int, Index u) {
      for (Index gate = 0; gate < a.G; ++gate) {
        const Index place = ((row + a.N) * a.G + gate) * a.H + u;
        fetch_ahead(a.da_wide + place);
        fetch_ahead(a.hat_r + place);
        if (has(NormsProducts)) fetch_ahead(a.hat_z + place);
      }
    });
    units.each([&](int k, Index u) {
      Gradients<Units, R>& at = held[k];
      UNROLL for (int gate = 0; gate < 4; ++gate)
        UNROLL for (int j = 0; j < Units; ++j) {
          at.q_z[gate][j] = R(0);
          if (gate >= a.G || !on) continue;
          sums[k].bias[gate][j] += at.a_bar[gate][j];
          sums[k].hh[gate][j] += at.a_bar[gate][j] * at.hat_r[gate][j];
          if (!has(NormsProducts)) continue;
          sums[k].ih[gate][j] += at.a_bar[gate][j] * at.hat_z[gate][j];
          at.q_z[gate][j] = at.a_bar[gate][j] * weight_at<A>(a.gain_ih, gate, a.H, u + j);
          total[0] += at.q_z[gate][j], total[1] += at.q_z[gate][j] * at.hat_z[gate][j];
        }
    });
    if (!has(NormsProducts)) continue;
    const R scale = on ? a.scale_z[row] : R(0);
    units.total(total);
    UNROLL for (int i = 0; i < 2; ++i) total[i] = shared_out(total[i], R(a.G * a.H));
    units.each([&](int k, Index u) {
      UNROLL for (int gate = 0; gate < 4; ++gate) {
        if (gate >= a.G) continue;
        R dz[Units] = {};
        UNROLL for (int j = 0; j < Units; ++j)
          if (on) dz[j] = through_norm(held[k].q_z[gate][j], held[k].hat_z[gate][j], total[0], total[1], scale);
        store_input_gradient(a, row, gate, u, dz);
      }
    });
  }
  units.each([&](int k, Index u) {
    const auto leave = [&](i64 block, const R (&of)[4][Units]) {
      if (block < 0) return;
      UNROLL for (int gate = 0; gate < 4; ++gate)
        if (gate < a.G) store(a.sums + (block_x() * a.sum_count + block + gate) * a.H + u, of[gate]);
    };
    leave(a.sum_bias, sums[k].bias);
    leave(a.sum_hh, sums[k].hh);
    leave(a.sum_ih, sums[k].ih);
  });
}

}  // namespace longshort
