// The counter-based noise of scan/masks.py: Philox4x32-10 (Salmon et al. 2011), the same words here.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "packing.hpp"

namespace longshort::LONGSHORT_ISA {

enum Stream : std::uint32_t { VariationalH = 1, RecurrentDropout = 2, ZoneoutH = 3, ZoneoutC = 4 };

// A unit is kept where its word reaches this. 0 <= rate < 1.
inline std::uint32_t threshold(double rate) { return static_cast<std::uint32_t>(rate * 4294967296.0); }

// Runs of `Run` words of a and b in turns: the first half of that (half 0) or the second.
template <int Run>
inline Words interleave(Words a, Words b, int half) {
  Words order;
  for (int k = 0; k < WordLanes; ++k) {
    const int run = k / Run + half * WordLanes / Run;
    order[k] = static_cast<std::uint32_t>(run / 2 * Run + k % Run + (run % 2 ? WordLanes : 0));
  }
#if defined(__clang__)
  Words result;
  for (int k = 0; k < WordLanes; ++k) result[k] = order[k] < WordLanes ? a[order[k]] : b[order[k] - WordLanes];
  return result;
#else
  return __builtin_shuffle(a, b, order);
#endif
}

struct HighLow {
  Words high, low;
};

// The products of the lower halves of the lanes of a with b.
inline WideWords multiply_halves(WideWords a, std::uint32_t b) {
#if defined(__AVX512F__)
  return (WideWords)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi32(static_cast<int>(b)));
#elif defined(__AVX2__)
  return (WideWords)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32(static_cast<int>(b)));
#else
  return (a & 0xffffffffull) * static_cast<std::uint64_t>(b);
#endif
}

inline HighLow multiply_words(Words a, std::uint32_t b) {
  WideWords even, odd;
  std::memcpy(&even, &a, sizeof a);
  odd = multiply_halves(even >> 32, b);
  even = multiply_halves(even, b);
  const WideWords high = (even >> 32) | (odd & 0xffffffff00000000ull);
  const WideWords low = (even & 0xffffffffull) | (odd << 32);
  HighLow result;
  std::memcpy(&result.high, &high, sizeof high);
  std::memcpy(&result.low, &low, sizeof low);
  return result;
}

// Four words for each lane, from its counter: word w of lane l at to[4 l + w].
inline void draw_words(std::uint32_t* to, Words c0, Words c1, Words c2, Words c3, std::uint64_t seed) {
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
  const Words pairs[4] = {interleave<1>(c0, c1, 0), interleave<1>(c0, c1, 1), interleave<1>(c2, c3, 0), interleave<1>(c2, c3, 1)};
  for (int half = 0; half < 2; ++half)
    for (int quarter = 0; quarter < 2; ++quarter) {
      const Words four = interleave<2>(pairs[half], pairs[half + 2], quarter);
      std::memcpy(to + (2 * half + quarter) * WordLanes, &four, sizeof four);
    }
}

// to[k] = `kept` where word k reaches the threshold of the rate, else `dropped`.
template <class Real>
inline void decide(Real* to, const std::uint32_t* words, Index count, double rate, Real kept, Real dropped) {
  const std::uint32_t least = threshold(rate);
  for (Index k = 0; k < count; ++k) to[k] = words[k] >= least ? kept : dropped;
}

// factors[k] = `kept` where unit k of sequence n survives step t, else `dropped`.
template <class Real>
inline void draw(Real* factors, Index count, std::uint64_t seed, Stream stream, std::int64_t t, Index n, double rate,
                 Real kept, Real dropped) {
  constexpr Index group = 4 * WordLanes;
  std::uint32_t words[group];
  for (Index first = 0; first < count; first += group) {
    Words c0;
    for (int lane = 0; lane < WordLanes; ++lane) c0[lane] = static_cast<std::uint32_t>(first / 4 + lane);
    draw_words(words, c0, Words{} + static_cast<std::uint32_t>(t), Words{} + static_cast<std::uint32_t>(n),
               Words{} + static_cast<std::uint32_t>(stream), seed);
    decide(factors + first, words, std::min(group, count - first), rate, kept, dropped);
  }
}

// Bit k is set where word k, of N, reaches `least`.
template <int N>
inline std::uint32_t reached(const std::uint32_t* words, std::uint32_t least) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_cmpge_epu32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32(static_cast<int>(least)));
  else return _mm256_cmpge_epu32_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)), _mm256_set1_epi32(static_cast<int>(least)));
#elif defined(__AVX2__)
  if constexpr (N == 8) {
    const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
    const __m256i reaches = _mm256_cmpeq_epi32(_mm256_max_epu32(word, _mm256_set1_epi32(static_cast<int>(least))), word);
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(reaches)));
  } else {
    const __m128i word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
    const __m128i reaches = _mm_cmpeq_epi32(_mm_max_epu32(word, _mm_set1_epi32(static_cast<int>(least))), word);
    return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(reaches)));
  }
#else
  std::uint32_t bits = 0;
  for (int k = 0; k < N; ++k) bits |= static_cast<std::uint32_t>(words[k] >= least) << k;
  return bits;
#endif
}

// The noise of each step for many sequences, a bit for each unit: set where it survives. All of them are drawn in one run of lanes, so that a narrow layer
// fills the vectors too.
template <class Real>
class StepNoise {
 public:
  void add(Stream stream, Index count, double rate) {
    kinds_.push_back({4 * static_cast<Index>(units_.size()), ceil_div(count, Lanes<Real>), threshold(rate)});
    for (Index quad = 0; quad < ceil_div(count, 4); ++quad) {
      units_.push_back(static_cast<std::uint32_t>(quad));
      streams_.push_back(stream);
    }
  }

  bool silent() const { return kinds_.empty(); }
  Index stride() const { return 4 * static_cast<Index>(units_.size()); }

  // Values of Real that place() needs.
  Index room(Index rows) const { return rows * stride() + 8 * WordLanes; }

  void place(Real* room) { words_ = reinterpret_cast<std::uint32_t*>(room); }

  // sequence(row): the number of the sequence that stands in a row, for row < rows.
  // bits(row): where to write, kind after kind in the order of add(), one word for each block of Lanes units.
  template <class Sequence, class Bits>
  void draw(std::uint64_t seed, std::int64_t t, Index rows, Sequence&& sequence, Bits&& bits) {
    const Index quads = static_cast<Index>(units_.size()), lanes = rows * quads;
    const Words time = Words{} + static_cast<std::uint32_t>(t);
    Index row = 0, quad = 0;
    const bool narrow = quads < WordLanes;
    if (narrow) number_lanes(rows, sequence);
    for (Index first = 0; first < lanes; first += WordLanes) {
      Words unit{}, number{}, stream{};
      if (narrow) {
        std::memcpy(&unit, lane_units_.data() + first, sizeof unit);
        std::memcpy(&stream, lane_streams_.data() + first, sizeof stream);
        std::memcpy(&number, lane_numbers_.data() + first, sizeof number);
      } else if (quad + WordLanes <= quads) {
        std::memcpy(&unit, units_.data() + quad, sizeof unit);
        std::memcpy(&stream, streams_.data() + quad, sizeof stream);
        number += static_cast<std::uint32_t>(sequence(row));
        quad += WordLanes;
        if (quad == quads) quad = 0, ++row;
      } else {
        for (int lane = 0; lane < WordLanes && row < rows; ++lane) {
          unit[lane] = units_[static_cast<std::size_t>(quad)];
          stream[lane] = streams_[static_cast<std::size_t>(quad)];
          number[lane] = static_cast<std::uint32_t>(sequence(row));
          if (++quad == quads) quad = 0, ++row;
        }
      }
      draw_words(words_ + 4 * first, unit, time, number, stream, seed);
    }
    for (Index r = 0; r < rows; ++r) {
      std::uint32_t* to = bits(r);
      for (const Kind& kind : kinds_)
        for (Index block = 0; block < kind.blocks; ++block)
          *to++ = reached<Lanes<Real>>(words_ + r * stride() + kind.first + block * Lanes<Real>, kind.least);
    }
  }

 private:
  // Where a row is narrower than a vector, its lanes' counters are set out once for as long as the rows stay.
  template <class Sequence>
  void number_lanes(Index rows, Sequence&& sequence) {
    bool same = static_cast<Index>(numbered_.size()) == rows;
    for (Index row = 0; same && row < rows; ++row) same = numbered_[static_cast<std::size_t>(row)] == sequence(row);
    if (same) return;
    numbered_.clear();
    lane_units_.clear();
    lane_streams_.clear();
    lane_numbers_.clear();
    for (Index row = 0; row < rows; ++row) {
      numbered_.push_back(sequence(row));
      lane_units_.insert(lane_units_.end(), units_.begin(), units_.end());
      lane_streams_.insert(lane_streams_.end(), streams_.begin(), streams_.end());
      lane_numbers_.insert(lane_numbers_.end(), units_.size(), static_cast<std::uint32_t>(sequence(row)));
    }
    for (auto* lanes : {&lane_units_, &lane_streams_, &lane_numbers_}) lanes->resize(lanes->size() + WordLanes);
  }

  struct Kind {
    Index first, blocks;  // its first word among a row's, and blocks of units
    std::uint32_t least;
  };
  std::vector<Kind> kinds_;
  std::vector<Index> numbered_;                                         // the rows' sequences in the three below
  std::vector<std::uint32_t> lane_units_, lane_streams_, lane_numbers_;
  std::vector<std::uint32_t> units_, streams_;  // of each lane of a row: the counter of its four units, its kind
  std::uint32_t* words_ = nullptr;
};

}  // namespace longshort::LONGSHORT_ISA
