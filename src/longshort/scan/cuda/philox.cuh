// The noise of scan/masks.py: the same words from the same seed, made where they are needed.
#pragma once
#include "device.cuh"

namespace longshort {

enum Stream : u32 { VariationalH = 1, RecurrentDropout = 2, ZoneoutH = 3, ZoneoutC = 4 };

// The words of Philox4x32-10( counter (quad, t, n, stream), key of the seed ): those of units 4 quad to 4 quad + 3.
DEVICE void noise_words(u64 seed, u32 stream, u64 t, u32 n, u32 quad, u32 (&words)[4]) {
  u32 c0 = quad, c1 = static_cast<u32>(t), c2 = n, c3 = stream;
  u32 key0 = static_cast<u32>(seed), key1 = static_cast<u32>(seed >> 32);
  UNROLL for (int round = 0; round < 10; ++round) {
    const u32 high0 = high_product(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
    const u32 high1 = high_product(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// Which of a few adjacent units are kept, from k on, a multiple of Units: their words are of one counter.
template <int Units>
DEVICE void kept(u64 seed, Stream stream, u64 t, u32 n, u32 k, i64 least, bool (&keeps)[Units]) {
  u32 words[4];
  noise_words(seed, stream, t, n, k >> 2, words);
  UNROLL for (int j = 0; j < Units; ++j) {
    const u32 at = Units == 4 ? j : k + j;
    const u32 word = at & 1 ? (at & 2 ? words[3] : words[1]) : (at & 2 ? words[2] : words[0]);
    keeps[j] = word >= static_cast<u32>(least);
  }
}

}  // namespace longshort
