// A tensor under its mask: out = x where the noise keeps a unit, times 1 / (1 - rate), and x times 0 elsewhere.
//
// Thread (n, quad) owns four adjacent units, the four words of one counter, at every few steps. A mask that holds for
// the sequence is made once for all of them.
#include "philox.cuh"

namespace longshort {

// The argument, packed by the names below; eight bytes each. Units lie side by side, n and t have strides in elements.
template <class E, class R>
struct Dropped {
  using Element = E;
  using Wide = R;
  const i64* seed;     // in: one number, on the device
  const E* x;          // in: (N, T, K)
  E* out;              // out: (N, T, K)
  i64 x_n;
  i64 x_t;
  i64 out_n;
  i64 out_t;
  i64 N;
  i64 T;
  i64 K;
  i64 stream;          // of masks.py
  i64 each_step;       // whether step t has the counter t; else every step has 0
  i64 least;           // a word keeps its unit from here on: ⌊rate · 2³²⌋
  double scale;        // 1 / (1 - rate), rounded as the plain path rounds it
};

// Loads and stores take `Adjacent` of the four units at a time, as many as alignment allows.
template <int Adjacent, class A>
DEVICE void dropped(const A& a) {
  using E = typename A::Element;
  using R = typename A::Wide;
  const u32 quads = static_cast<u32>((a.K + 3) / 4);
  const u32 own = static_cast<u32>(block_x()) * threads() + thread(), n = own / quads, quad = own % quads;
  if (n >= a.N) return;
  const u64 seed = static_cast<u64>(*a.seed);
  const i64 k = static_cast<i64>(quad) * 4;
  R factor[4];
  for (i64 t = block_y(); t < a.T; t += blocks_y()) {
    if (a.each_step || t == block_y()) {
      u32 words[4];
      noise_words(seed, static_cast<u32>(a.stream), a.each_step ? t : 0, n, quad, words);
      UNROLL for (int j = 0; j < 4; ++j) factor[j] = words[j] >= static_cast<u32>(a.least) ? R(a.scale) : R(0);
    }
    const E* from = a.x + n * a.x_n + t * a.x_t + k;
    E* to = a.out + n * a.out_n + t * a.out_t + k;
    UNROLL for (int first = 0; first < 4; first += Adjacent) {
      if (k + first >= a.K) break;  // `Adjacent` divides K
      E values[Adjacent];
      load(from + first, values);
      UNROLL for (int j = 0; j < Adjacent; ++j) narrow(wide(values[j]) * factor[first + j], values[j]);
      store(to + first, values);
    }
  }
}

}  // namespace longshort
