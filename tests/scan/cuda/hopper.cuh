// The twin of scan/cuda/hopper.cuh for the host. A copy reads what it copies at once or as late as can be, and writes it
// as late as can be: when somebody has looked for it in vain. Products of a team read shared memory as the PTX manual lays operands out, 128 bytes a row, swizzled.
#pragma once
#include "device.cuh"

namespace longshort {

constexpr int TeamThreads = 128;

namespace host {
struct Copy {
  char* to;
  const void* from;
  int bytes;
  u64* at;
  std::vector<char> early;  // what was there when it was asked for, of every other copy
};
// A barrier: its count in bits 0 to 15, arrivals still to come in 16 to 31, bytes still to come in 32 to 62, its phase.
struct Phases {
  u64& word;
  u64 count() const { return word & 0xffff; }
  void move(i64 arrivals, i64 bytes) {
    // bytes may arrive before they are announced
    u64 phase = word >> 63, open = (word >> 16 & 0xffff) + arrivals, left = (word >> 32) + bytes & 0x7fffffff;
    if (open == 0 && left == 0) phase ^= 1, open = count();
    word = count() | open << 16 | left << 32 | phase << 63;
  }
};
inline std::vector<Copy> copies;
inline u64 copies_of = 0;  // the launch they belong to: one that gave up leaves some
inline u64 asked = 0;      // copies
inline u64 vain = 0;       // looks at barriers since one was over: when they are very many, none will be
}  // namespace host

DEVICE void team_barrier(int set, int threads) { host::meet(host::running->block->teams[set], threads); }
DEVICE bool all_in_warp(bool value) { return !any_in_warp(!value); }
DEVICE void open_barrier(u64* at, int count) {
  *at = static_cast<u64>(count) | static_cast<u64>(count) << 16;
  host::vain = 0;
  if (host::copies_of != host::launches) host::copies.clear(), host::copies_of = host::launches;
}
DEVICE void arrive(u64* at) { host::Phases{*at}.move(-1, 0); }
DEVICE void arrive_before(u64* at, int bytes) {
  host::Phases{*at}.move(0, bytes);
  arrive(at);
}
DEVICE bool is_over(u64* at, int parity) {
  if (*at >> 63 != static_cast<u64>(parity)) {
    host::vain = 0;
    return true;
  }
  if (++host::vain > 3000000) host::failed = true;
  std::vector<host::Copy> left;
  std::vector<host::Copy> all;
  all.swap(host::copies);
  for (const host::Copy& copy : all) {
    if (copy.at != at) {
      left.push_back(copy);
      continue;
    }
    std::memcpy(copy.to, copy.early.empty() ? copy.from : copy.early.data(), copy.bytes);
    host::Phases{*at}.move(0, -copy.bytes);
  }
  host::copies.swap(left);
  return false;
}
DEVICE void copy_arriving(char* to, const void* from, int bytes, u64* at) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | bytes) % 16 != 0) {
    std::fprintf(stderr, "a copy of %d bytes is not aligned\n", bytes);
    host::failed = true;
  }
  const char* first = static_cast<const char*>(from);
  const bool now = ++host::asked % 2;
  host::copies.push_back({to, from, bytes, at, std::vector<char>(first, first + (now ? bytes : 0))});
}
DEVICE void order_in_shared() {}
DEVICE void order_in_memory() {}
DEVICE void release(u32* p, u32 v) { *p = v; }
DEVICE Four acquire(const u32* p) { return load_relaxed(p); }
DEVICE void begin_products() { warp_barrier(); }
DEVICE void end_products() {}
template <int Open>
DEVICE void wait_products() { warp_barrier(); }
template <int Tiles>
DEVICE void held(float (&)[Tiles][4]) {}

namespace host {
// Number k of the piece, in row r of a tile.
template <class E>
DEVICE float operand_at(const char* tile, int piece, int r, int k) {
  const int byte = 32 * piece + k * static_cast<int>(sizeof(E));
  E value;
  std::memcpy(&value, tile + r * 128 + ((byte / 16 ^ r % 8) * 16) + byte % 16, sizeof(E));
  return wide(value);
}
}  // namespace host

template <class E, int Tiles>
DEVICE void multiply_tile(E, float (&d)[Tiles][4], const char* a, const char* b, int piece) {
  if ((reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b)) % 1024 != 0) {
    std::fprintf(stderr, "a tile is not aligned\n");
    host::failed = true;
  }
  const int g = lane() / 4, q = lane() % 4, warp = thread() % TeamThreads / 32;
  const auto cut = [](float v) { return sizeof(E) == 4 ? float_of(bits_of(v) & 0xffffe000u) : v; };
  for (int j = 0; j < Tiles; ++j)
    for (int r = 0; r < 4; ++r)
      for (int k = 0; k < 32 / static_cast<int>(sizeof(E)); ++k)
        d[j][r] += cut(host::operand_at<E>(a, piece, 16 * warp + g + 8 * (r / 2), k)) *
                   cut(host::operand_at<E>(b, piece, 8 * j + 2 * q + r % 2, k));
}

}  // namespace longshort
