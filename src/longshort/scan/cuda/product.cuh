// Weights that stay, times an operand that changes every step: D (16 MT WM x 8 NT) = A (rows x K) B (K x 8 NT).
//
// A block's weights A are cut among its warps: WM along the rows, WK along K. Each warp keeps its part for the
// whole launch, the first InRegisters chunks of 64 bytes of K in registers, the other InShared in shared memory
// in the order in which lanes read them. K is permuted inside a chunk, alike in A and B, so that a lane's share
// of an operand is 16 bytes that lie together.
#pragma once
#include "device.cuh"

namespace longshort {

// Exact: float32 from three products of tf32 parts instead of one of rounded operands.
template <class E, int K, int MT, int NT, int WM, int WK, int InRegisters, int InShared, bool Exact>
struct Product {
  static constexpr int Threads = WM * WK * 32, Columns = 8 * NT;
  static constexpr int Chunk = 64 / sizeof(E), Vector = 16 / sizeof(E), Chunks = InRegisters + InShared;
  static constexpr int WeightBytes = InShared * MT * 1024 * WM * WK;
  // bytes of a staged column: an odd number of 64, so that eight columns meet no bank twice
  static constexpr int Pitch = WK * Chunks * 64 + (WK * Chunks % 2 == 0 ? 64 : 0);
  static constexpr int Chains = MT * NT <= 2 ? 2 : 1;  // sums that do not wait for each other
  static_assert(K % Chunk == 0 && WK * Chunks * Chunk >= K, "the chunks cover K");
  static_assert(!Exact || sizeof(E) == 4, "16-bit products are exact as they are");

  Four low[InRegisters > 0 ? InRegisters : 1][MT], high[InRegisters > 0 ? InRegisters : 1][MT];
  char* weights;
  int group, quarter, wm, wk;  // lane = 4 group + quarter

  static DEVICE_MEMBER Four rounded(Four v) {
    if (sizeof(E) == 4 && !Exact)
      return {rounded_to_tf32(v.x), rounded_to_tf32(v.y), rounded_to_tf32(v.z), rounded_to_tf32(v.w)};
    return v;
  }

  // memory: WeightBytes, aligned to 16. row_of(wm, tile, row 0..15) points to K weights, or is null for zeros.
  template <class RowOf>
  DEVICE_MEMBER void load(char* memory, RowOf row_of) {
    const int warp = thread() / 32;
    group = lane() / 4, quarter = lane() % 4, wm = warp % WM, wk = warp / WM;
    weights = memory + warp * (InShared * MT * 1024) + lane() * 16;
    UNROLL for (int chunk = 0; chunk < Chunks; ++chunk) {
      const int k = (wk * Chunks + chunk) * Chunk + quarter * Vector;
      UNROLL for (int m = 0; m < MT; ++m) {
        Four parts[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        UNROLL for (int half = 0; half < 2; ++half) {
          const E* row = row_of(wm, m, 8 * half + group);
          if (row && k < K) parts[half] = rounded(*reinterpret_cast<const Four*>(row + k));
        }
        if (chunk < InRegisters) {
          low[chunk < InRegisters ? chunk : 0][m] = parts[0];
          high[chunk < InRegisters ? chunk : 0][m] = parts[1];
        } else {
          char* at = weights + ((chunk - InRegisters) * MT + m) * 1024;
          *reinterpret_cast<Four*>(at) = parts[0];
          *reinterpret_cast<Four*>(at + 512) = parts[1];
        }
      }
    }
  }

  // What the first part left; nothing of an infinity, whose difference would be NaN.
  static DEVICE_MEMBER u32 rest(u32 v, u32 first) {
    return (first & 0x7f800000u) == 0x7f800000u ? 0u : bits_of(float_of(v) - float_of(first));
  }

  // Sixteen columns of K of one tile: a is rows g and g + 8, b one column of the operand.
  static DEVICE_MEMBER void add(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (!Exact) {
      multiply(E(), d, a0, a1, a2, a3, b0, b1);
      return;
    }
    const u32 f0 = first_part(a0), f1 = first_part(a1), f2 = first_part(a2), f3 = first_part(a3);
    const u32 g0 = first_part(b0), g1 = first_part(b1);
    multiply(E(), d, rest(a0, f0), rest(a1, f1), rest(a2, f2), rest(a3, f3), g0, g1);
    multiply(E(), d, f0, f1, f2, f3, rest(b0, g0), rest(b1, g1));
    multiply(E(), d, f0, f1, f2, f3, g0, g1);
  }

  // stage: Columns rows of Pitch bytes. d[tile][column tile][4] as `multiply` lays it out.
  DEVICE_MEMBER void run(const char* stage, float (&d)[MT][NT][4]) const {
    float sums[Chains][MT][NT][4];
    UNROLL for (int c = 0; c < Chains; ++c)
      UNROLL for (int m = 0; m < MT; ++m)
        UNROLL for (int j = 0; j < NT; ++j)
          UNROLL for (int r = 0; r < 4; ++r) sums[c][m][j][r] = 0.0f;
    const char* column = stage + group * Pitch + wk * Chunks * 64 + quarter * 16;
    UNROLL for (int chunk = 0; chunk < Chunks; ++chunk) {
      Four b[NT];
      UNROLL for (int j = 0; j < NT; ++j)
        b[j] = rounded(*reinterpret_cast<const Four*>(column + j * 8 * Pitch + chunk * 64));
      UNROLL for (int m = 0; m < MT; ++m) {
        Four lo, hi;
        if (chunk < InRegisters) {
          lo = low[chunk < InRegisters ? chunk : 0][m];
          hi = high[chunk < InRegisters ? chunk : 0][m];
        } else {
          const char* at = weights + ((chunk - InRegisters) * MT + m) * 1024;
          lo = *reinterpret_cast<const Four*>(at);
          hi = *reinterpret_cast<const Four*>(at + 512);
        }
        UNROLL for (int j = 0; j < NT; ++j) add(sums[0][m][j], lo.x, hi.x, lo.y, hi.y, b[j].x, b[j].y);
        UNROLL for (int j = 0; j < NT; ++j) add(sums[Chains - 1][m][j], lo.z, hi.z, lo.w, hi.w, b[j].z, b[j].w);
      }
    }
    UNROLL for (int m = 0; m < MT; ++m)
      UNROLL for (int j = 0; j < NT; ++j)
        UNROLL for (int r = 0; r < 4; ++r) {
          d[m][j][r] = sums[0][m][j][r];
          if (Chains > 1) d[m][j][r] += sums[Chains - 1][m][j][r];
        }
  }
};

}  // namespace longshort
