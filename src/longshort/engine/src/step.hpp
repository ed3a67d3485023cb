// One step, or a stream of them, for few sequences: the plain cell on weights of 32, 16 or 8 bits.
//
// What limits a single step is reading the weights, so they may be stored short: bfloat16, or int8 with one
// scale for each gate of each unit. Inputs, state and sums stay in full precision.
#pragma once

#include "cell.hpp"
#include "team.hpp"
#include "weights.hpp"

namespace longshort::LONGSHORT_ISA {

template <class Real, class Stored>
struct StoredVector {
  typedef Stored type __attribute__((vector_size(Lanes<Real> * sizeof(Stored))));
};

template <class Real>
inline Vector<Real> widened(const Real* from) {
  return load(from);
}
template <class Real>
inline Vector<Real> widened(const std::int8_t* from) {
  typename StoredVector<Real, std::int8_t>::type value;
  std::memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, Vector<Real>);
}
template <class Real>
inline Vector<Real> widened(const std::uint16_t* from) {
  typedef std::uint32_t Wide __attribute__((vector_size(Lanes<Real> * 4)));
  typedef float Single __attribute__((vector_size(Lanes<Real> * 4)));
  typename StoredVector<Real, std::uint16_t>::type value;
  std::memcpy(&value, from, sizeof value);
  const Wide bits = __builtin_convertvector(value, Wide) << 16;
  Single result;
  std::memcpy(&result, &bits, sizeof bits);
  return __builtin_convertvector(result, Vector<Real>);
}

// gcc 12 turns these two conversions of the generic form above into a loop over lanes.
#if defined(__AVX512F__)
template <>
inline Vector<float> widened<float>(const std::int8_t* from) {
  return (Vector<float>)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
template <>
inline Vector<float> widened<float>(const std::uint16_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return (Vector<float>)_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
#elif defined(__AVX2__)
template <>
inline Vector<float> widened<float>(const std::int8_t* from) {
  return (Vector<float>)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
template <>
inline Vector<float> widened<float>(const std::uint16_t* from) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return (Vector<float>)_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
#endif

// sum[q] += row @ panel, in two sums each so that one step of k need not wait for the last.
template <class Real, class Stored>
inline void add_row(Vector<Real> (&sum)[Gates], const Real* row, const Stored* panel, Index depth) {
  constexpr int L = Lanes<Real>;
  Vector<Real> odd[Gates] = {};
  Index k = 0;
  for (; k + 1 < depth; k += 2, panel += 2 * PanelColumns<Real>) {
    const Vector<Real> first = broadcast<Real>(row[k]), second = broadcast<Real>(row[k + 1]);
#pragma GCC unroll 4
    for (int q = 0; q < Gates; ++q) sum[q] += first * widened<Real>(panel + q * L);
#pragma GCC unroll 4
    for (int q = 0; q < Gates; ++q) odd[q] += second * widened<Real>(panel + PanelColumns<Real> + q * L);
  }
  if (k < depth)
    for (int q = 0; q < Gates; ++q) sum[q] += broadcast<Real>(row[k]) * widened<Real>(panel + q * L);
  for (int q = 0; q < Gates; ++q) sum[q] += odd[q];
}

template <class Real, class Stored>
void step_blocks(const StepCall<Real>& call, const PackedWeights<Real>& w, const Stored* input, const Stored* recurrent,
                 const Real* scale, Range blocks, Index t) {
  constexpr int L = Lanes<Real>;
  for (Index block = blocks.first; block < blocks.last; ++block)
    for (Index n = 0; n < call.N; ++n) {
      const int valid = static_cast<int>(std::min<Index>(L, w.H - block * L));
      Vector<Real> sum[Gates] = {};
      add_row<Real, Stored>(sum, call.x.row(n, t), input + block * PanelColumns<Real> * w.C, w.C);
      add_row<Real, Stored>(sum, t == 0 ? call.h.row(n) : call.y.row(n, t - 1), recurrent + block * PanelColumns<Real> * w.H, w.H);
      alignas(RegisterBytes) Real a[PanelColumns<Real>], c[L];
      for (int q = 0; q < Gates; ++q) {
        const Index place = block * PanelColumns<Real> + q * L;
        if (scale) sum[q] *= load(scale + place);
        store(a + q * L, sum[q] + load(w.bias + place));
      }
      store(c, load_first((t == 0 ? call.c.row(n) : call.c_n.row(n)) + block * L, valid));
      const Vector<Real> h = plain_cell<Real, false>(a, c, nullptr);
      store_first(call.y.row(n, t) + block * L, h, valid);
      store_first(call.c_n.row(n) + block * L, load(c), valid);
    }
}

template <class Real>
void step_blocks(const StepCall<Real>& call, const PackedWeights<Real>& w, const NarrowWeights<Real>& narrow, Range blocks, Index t) {
  switch (narrow.stored) {
    case Stored::full: return step_blocks<Real, Real>(call, w, w.input, w.recurrent, nullptr, blocks, t);
    case Stored::bfloat16:
      return step_blocks<Real, std::uint16_t>(call, w, static_cast<const std::uint16_t*>(narrow.input),
                                              static_cast<const std::uint16_t*>(narrow.recurrent), nullptr, blocks, t);
    case Stored::int8:
      return step_blocks<Real, std::int8_t>(call, w, static_cast<const std::int8_t*>(narrow.input),
                                            static_cast<const std::int8_t*>(narrow.recurrent), narrow.scale, blocks, t);
  }
}

constexpr Index ProductsWorthThread = 192 * 1024;  // multiply-adds of one step that pay for waking the team

template <class Real>
void run_step(const StepCall<Real>& call, const PackedWeights<Real>& w, const NarrowWeights<Real>& narrow) {
  const Index blocks = block_count<Real>(w.H), products = Gates * w.H * (w.C + w.H) * call.N;
  const Index worth = products / (call.T > 1 ? ProductsWorthBarrier : ProductsWorthThread);
  const int threads = static_cast<int>(std::clamp<Index>(std::min<Index>(worth, call.threads), 1, blocks));
  if (threads == 1) {
    const FlushDenormals flush;
    for (Index t = 0; t < call.T; ++t) step_blocks<Real>(call, w, narrow, {0, blocks}, t);
    return;
  }
  Barrier barrier(threads);
  run_team(threads, [&](int member) {
    for (Index t = 0; t < call.T; ++t) {
      step_blocks<Real>(call, w, narrow, part(blocks, threads, member), t);
      if (t + 1 < call.T) barrier.wait();
    }
  });
}

inline std::uint16_t rounded_to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

// Short copies of the packed weights. narrow.stored says which; input and recurrent have the room.
template <class Real>
void narrow(const PackedWeights<Real>& w, NarrowWeights<Real>& to) {
  const Index blocks = block_count<Real>(w.H);
  const auto for_each = [&](auto&& visit) {
    for (Index block = 0; block < blocks; ++block)
      for (int column = 0; column < PanelColumns<Real>; ++column) {
        const Index place = block * PanelColumns<Real> + column;
        for (Index k = 0; k < w.C; ++k) visit(true, place, (block * w.C + k) * PanelColumns<Real> + column);
        for (Index k = 0; k < w.H; ++k) visit(false, place, (block * w.H + k) * PanelColumns<Real> + column);
      }
  };
  if (to.stored == Stored::bfloat16) {
    for_each([&](bool input, Index, Index at) {
      static_cast<std::uint16_t*>(input ? to.input : to.recurrent)[at] = rounded_to_bfloat16(static_cast<float>((input ? w.input : w.recurrent)[at]));
    });
    return;
  }
  std::memset(to.scale, 0, static_cast<std::size_t>(blocks * PanelColumns<Real>) * sizeof(Real));
  for_each([&](bool input, Index place, Index at) {
    to.scale[place] = std::max(to.scale[place], std::abs((input ? w.input : w.recurrent)[at]) / Real(127));
  });
  for_each([&](bool input, Index place, Index at) {
    const Real value = (input ? w.input : w.recurrent)[at];
    static_cast<std::int8_t*>(input ? to.input : to.recurrent)[at] =
        static_cast<std::int8_t>(to.scale[place] > 0 ? std::nearbyint(value / to.scale[place]) : Real(0));
  });
}

}  // namespace longshort::LONGSHORT_ISA
