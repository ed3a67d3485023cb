// The noise of scan/masks.py: the same words from the same seed, made where they are needed.
#pragma once
#include "device.cuh"

namespace longshort {

enum Stream : u32 { VariationalH = 1, RecurrentDropout = 2, ZoneoutH = 3, ZoneoutC = 4 };

// One round of Philox4x32-10; the keys become those of the next.
DEVICE void noise_round(u32 (&c)[4], u32& key0, u32& key1) {
  const u32 high0 = high_product(c[0], 0xD2511F53u), low0 = c[0] * 0xD2511F53u;
  const u32 high1 = high_product(c[2], 0xCD9E8D57u), low1 = c[2] * 0xCD9E8D57u;
  c[0] = high1 ^ c[1] ^ key0;
  c[1] = low1;
  c[2] = high0 ^ c[3] ^ key1;
  c[3] = low0;
  key0 += 0x9E3779B9u;
  key1 += 0xBB67AE85u;
}

// The words of Philox4x32-10( counter (quad, t, n, stream), key of the seed ): those of units 4 quad to 4 quad + 3.
DEVICE void noise_words(u64 seed, u32 stream, u64 t, u32 n, u32 quad, u32 (&words)[4]) {
  u32 c[4] = {quad, static_cast<u32>(t), n, stream};
  u32 key0 = static_cast<u32>(seed), key1 = static_cast<u32>(seed >> 32);
  UNROLL for (int round = 0; round < 10; ++round) noise_round(c, key0, key1);
  UNROLL for (int j = 0; j < 4; ++j) words[j] = c[j];
}

// The same for one (quad, n, stream) and many t, which reaches one word of four in the first round, two in the second
// and three in the third: what these rounds make of the others is made once.
struct Noise {
  u32 key0, key1;  // of the third round
  u32 first, third, other;
};
DEVICE Noise noise_of(u64 seed, u32 stream, u32 n, u32 quad) {
  u32 c[4] = {quad, 0, n, stream}, key0 = static_cast<u32>(seed), key1 = static_cast<u32>(seed >> 32);
  Noise v;
  noise_round(c, key0, key1);
  v.first = c[0];
  noise_round(c, key0, key1);
  v.third = c[1] ^ key0;
  v.other = c[0];
  v.key0 = uniform(key0), v.key1 = uniform(key1);
  return v;
}
DEVICE void noise_words(const Noise& v, u32 quad, u64 t, u32 (&words)[4]) {
  const u32 first = v.first ^ static_cast<u32>(t);
  u32 key0 = v.key0, key1 = v.key1;
  const u32 second = high_product(first, 0xD2511F53u) ^ quad * 0xD2511F53u ^ (key1 - 0xBB67AE85u);
  const u32 beside = first * 0xD2511F53u;
  u32 c[4] = {high_product(second, 0xCD9E8D57u) ^ v.third, second * 0xCD9E8D57u,
              high_product(v.other, 0xD2511F53u) ^ beside ^ key1, v.other * 0xD2511F53u};
  key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  UNROLL for (int round = 3; round < 10; ++round) noise_round(c, key0, key1);
  UNROLL for (int j = 0; j < 4; ++j) words[j] = c[j];
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
