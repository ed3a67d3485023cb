// The counter-based noise of scan/masks.py: Philox4x32-10 (Salmon et al. 2011), the same words here.
#pragma once

#include <cmath>

#include "packing.hpp"

namespace longshort::LONGSHORT_ISA {

enum Stream : std::uint32_t { VariationalH = 1, RecurrentDropout = 2, ZoneoutH = 3, ZoneoutC = 4 };

// A unit is kept where its word reaches this.
inline std::uint64_t threshold(double rate) { return static_cast<std::uint64_t>(rate * 4294967296.0); }

typedef std::uint32_t Words __attribute__((vector_size(RegisterBytes)));
typedef std::uint64_t WideWords __attribute__((vector_size(RegisterBytes)));
constexpr int WordLanes = RegisterBytes / 4;

struct HighLow {
  Words high, low;
};

inline HighLow multiply_words(Words a, std::uint32_t b) {
  WideWords even, odd;
  std::memcpy(&even, &a, sizeof a);
  odd = even >> 32;
  even = (even & 0xffffffffull) * static_cast<std::uint64_t>(b);
  odd = odd * static_cast<std::uint64_t>(b);
  const WideWords high = (even >> 32) | (odd & 0xffffffff00000000ull);
  const WideWords low = (even & 0xffffffffull) | (odd << 32);
  HighLow result;
  std::memcpy(&result.high, &high, sizeof high);
  std::memcpy(&result.low, &low, sizeof low);
  return result;
}

// factors[k] = `kept` where unit k of sequence n survives step t, else `dropped`.
// factors: room for `count` rounded up to 4 * WordLanes values.
template <class Real>
inline void draw(Real* factors, Index count, std::uint64_t seed, Stream stream, std::int64_t t, Index n, double rate,
                 Real kept, Real dropped) {
  const std::uint64_t least = threshold(rate);
  for (Index first = 0; first < count; first += 4 * WordLanes) {
    Words c0, c1 = Words{} + static_cast<std::uint32_t>(t), c2 = Words{} + static_cast<std::uint32_t>(n);
    Words c3 = Words{} + static_cast<std::uint32_t>(stream);
    for (int lane = 0; lane < WordLanes; ++lane) c0[lane] = static_cast<std::uint32_t>(first / 4 + lane);
    std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const HighLow p0 = multiply_words(c0, 0xD2511F53u), p1 = multiply_words(c2, 0xCD9E8D57u);
      c0 = p1.high ^ c1 ^ key0;
      c1 = p1.low;
      c2 = p0.high ^ c3 ^ key1;
      c3 = p0.low;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    std::uint32_t words[4][WordLanes];
    std::memcpy(words[0], &c0, sizeof c0);
    std::memcpy(words[1], &c1, sizeof c1);
    std::memcpy(words[2], &c2, sizeof c2);
    std::memcpy(words[3], &c3, sizeof c3);
    Real* to = factors + first;
    for (int lane = 0; lane < WordLanes; ++lane)
      for (int word = 0; word < 4; ++word) to[lane * 4 + word] = words[word][lane] >= least ? kept : dropped;
  }
}

}  // namespace longshort::LONGSHORT_ISA
