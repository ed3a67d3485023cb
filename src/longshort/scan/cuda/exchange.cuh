// Blocks tell each other h, or ā, through memory, and the data is its own flag.
//
// The host sets every bit of the buffer before the launch. A number with every bit set is a NaN that no
// arithmetic and no conversion makes (and `canonical` keeps a given one out), so a reader that finds none in
// its 16 bytes has them all. No barrier and no counter: a value travels from its writer to its readers once.
#pragma once
#include "call.cuh"

namespace longshort {

// Whether any number of type E in these 16 bytes is still to come.
template <class E>
DEVICE bool missing(const Four& v) {
  if (sizeof(E) == 4) return v.x == ~0u || v.y == ~0u || v.z == ~0u || v.w == ~0u;
  const auto full = [](u32 pair) { return (~pair - 0x00010001u) & pair & 0x80008000u; };  // a half with every bit
  return (full(v.x) | full(v.y) | full(v.z) | full(v.w)) != 0;
}

// Copies `rows` rows of K numbers, up to Rows, to shared memory, each 16 bytes once all of it is there.
//   from: row 0; rows lie K elements apart.   to: row 0; rows lie ToPitch bytes apart.
//   s:    the step, for the report of a wait that lasts longer than a.patience.
// A thread asks for up to eight times 16 bytes before it looks at the first: each look takes a way to memory. (More
// than that in fours: eight registers more spill.)
template <int K, int ToPitch, int Threads, int Rows, class A>
DEVICE void gather(const A& a, const typename A::Element* from, char* to, int rows, i64 s) {
  using E = typename A::Element;
  constexpr int Vector = 16 / sizeof(E), PerRow = K / Vector, Each = (Rows * PerRow + Threads - 1) / Threads;
  constexpr int Together = Each <= 8 ? Each : 4, pitch = K;
  const int count = rows * PerRow;
  for (int first = thread(); first < count; first += Threads * Together) {
    Four v[Together];
    bool waits[Together];
    UNROLL for (int i = 0; i < Together; ++i) {
      const int slot = first + i * Threads;
      waits[i] = slot < count;
      if (waits[i]) v[i] = load_relaxed(from + (slot / PerRow) * pitch + (slot % PerRow) * Vector);
    }
    u64 deadline = 0;
    for (int spins = 1;; ++spins) {
      bool any = false;
      UNROLL for (int i = 0; i < Together; ++i) {
        const int slot = first + i * Threads;
        if (waits[i] && missing<E>(v[i])) {
          v[i] = load_relaxed(from + (slot / PerRow) * pitch + (slot % PerRow) * Vector);
          any = true;
        }
      }
      if (!any) break;
      if (spins % 256 == 0) {
        const u64 now = nanoseconds();
        if (!deadline) deadline = now + static_cast<u64>(a.patience);
        if (now > deadline) {
          if (a.stuck) {
            publish(a.stuck + 1, s);
            publish(a.stuck, block_x() + 1);
          }
          give_up();
          return;
        }
      }
      relax();
    }
    UNROLL for (int i = 0; i < Together; ++i) {
      const int slot = first + i * Threads;
      if (waits[i]) *reinterpret_cast<Four*>(to + (slot / PerRow) * ToPitch + (slot % PerRow) * 16) = v[i];
    }
  }
}

}  // namespace longshort
