// Sums over a row by one block: the mean and variance of the layer norms. The order of every sum is fixed, so
// the same row gives the same bits.
#pragma once
#include "device.cuh"

namespace longshort {

constexpr int RowThreads = 256;
constexpr int RowShared = RowThreads / 32 * 8 * 8;  // bytes: eight sums for each warp, in double at most

// Every thread gets the totals. Shared memory of RowShared bytes; all threads of the block call it.
template <int Count, class R>
DEVICE void block_sums(R (&v)[Count]) {
  static_assert(Count <= 8, "eight sums at most");
  R* parts = reinterpret_cast<R*>(shared());
  const int warps = threads() / 32, warp = thread() / 32;
  UNROLL for (int k = 0; k < Count; ++k) {
    v[k] = sum_of_warp(v[k]);
    if (lane() == 0) parts[k * warps + warp] = v[k];
  }
  block_barrier();
  UNROLL for (int k = 0; k < Count; ++k) {
    v[k] = R(0);
    for (int w = 0; w < warps; ++w) v[k] += parts[k * warps + w];
  }
  block_barrier();
}

// Mean and 1 / sqrt(var + eps) of Count rows of K values; at(row, k) reads one.
template <int Count, class R, class At>
DEVICE void standardise(Index K, R eps, At at, R (&mean)[Count], R (&scale)[Count]) {
  UNROLL for (int row = 0; row < Count; ++row) mean[row] = R(0);
  for (Index k = thread(); k < K; k += threads())
    UNROLL for (int row = 0; row < Count; ++row) mean[row] += at(row, k);
  block_sums(mean);
  UNROLL for (int row = 0; row < Count; ++row) {
    mean[row] /= R(K);
    scale[row] = R(0);
  }
  for (Index k = thread(); k < K; k += threads())
    UNROLL for (int row = 0; row < Count; ++row) {
      const R centred = at(row, k) - mean[row];
      scale[row] += centred * centred;
    }
  block_sums(scale);
  UNROLL for (int row = 0; row < Count; ++row) scale[row] = inverse_root(scale[row] / R(K) + eps);
}

}  // namespace longshort
