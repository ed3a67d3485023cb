// Blocks tell each other h, or ā, through memory, and the data is its own flag.
//
// The host sets every bit of the buffer before the launch. A number with every bit set is a NaN that no
// arithmetic and no conversion makes (and `canonical` keeps a given one out), so a reader that finds none in
// its 16 bytes has them all. No barrier and no counter: a value travels from its writer to its readers once.
#pragma once
#include "call.cuh"

namespace longshort {

// Whether a number of type E in some 16 bytes is still to come: what `marked` made of all of them.
template <class E>
DEVICE u32 marked(u32 marks, const Four& v) {
  if (sizeof(E) == 4) {
    const u32 low = v.x > v.y ? v.x : v.y, high = v.z > v.w ? v.z : v.w, most = low > high ? low : high;
    return marks > most ? marks : most;
  }
  const u32 low = gather_marks(mark(v.x), mark(v.y)), high = gather_marks(mark(v.z), mark(v.w));
  return gather_marks(marks, gather_marks(low, high));
}
template <class E>
DEVICE bool missing(u32 marks) {
  return sizeof(E) == 4 ? marks == ~0u : any_mark(marks);
}

// How long a wait for another block has lasted.
struct Patience {
  u64 deadline = 0;
  int looks = 0;
  // Counts a look in vain, at step s. True if the wait is over, and the kernel with it.
  template <class A>
  DEVICE_MEMBER bool is_over(const A& a, Index s) {
    if (++looks % 256) return false;
    const u64 now = nanoseconds();
    if (!deadline) deadline = now + static_cast<u64>(a.patience);
    if (now <= deadline) return false;
    if (a.stuck) {
      publish(a.stuck + 1, s);
      publish(a.stuck, block_x() + 1);
    }
    give_up();
    return true;
  }
};

// Loads v[0 .. Count-1] from `from(i)`, all at once, until nothing in them is missing: each look takes a way to
// memory. False if the wait for step s was over, and the kernel with it.
template <class E, int Count, class A, class From>
DEVICE bool settle(const A& a, Index s, Four (&v)[Count], From from) {
  Patience patience;
  for (;;) {
    u32 marks = 0;
    UNROLL for (int i = 0; i < Count; ++i) marks = marked<E>(marks, v[i]);
    if (!missing<E>(marks)) return true;
    UNROLL for (int i = 0; i < Count; ++i)
      if (missing<E>(marked<E>(0, v[i]))) v[i] = load_relaxed(from(i));
    if (patience.is_over(a, s)) return false;
    relax();
  }
}

// Copies `rows` rows of K numbers, up to Rows, to shared memory, each 16 bytes once all of it is there.
//   from: row 0; rows lie K elements apart.   to: row 0; rows lie ToPitch bytes apart.
//   s:    the step, for the report of a wait that lasts longer than a.patience.
//   meanwhile: what is done while the first of it is on its way.
// A warp takes a row, so that addresses are constants but for its start. Lanes behind the last number read it again.
template <int K, int ToPitch, int Threads, int Rows, class A, class Meanwhile>
DEVICE void gather(const A& a, const typename A::Element* from, char* to, int rows, Index s, Meanwhile meanwhile) {
  using E = typename A::Element;
  constexpr int Vector = 16 / sizeof(E), PerRow = K / Vector, Warps = Threads / 32;
  constexpr int Each = (PerRow + 31) / 32, Turns = (Rows + Warps - 1) / Warps;
  static_assert(Each <= 8, "a lane waits for at most eight times 16 bytes");
  const int last = PerRow - 32 * (Each - 1) - 1, tail = lane() < last ? lane() : last;
  UNROLL for (int turn = 0; turn < Turns; ++turn) {
    const int row = thread() / 32 + turn * Warps;
    if (row >= rows) {
      if (turn == 0) meanwhile();
      return;
    }
    const E *start = from + row * K + lane() * Vector, *end = from + row * K + (tail + 32 * (Each - 1)) * Vector;
    const auto at = [&](int i) { return i + 1 < Each ? start + i * 32 * Vector : end; };
    Four v[Each];
    UNROLL for (int i = 0; i < Each; ++i) v[i] = load_relaxed(at(i));
    if (turn == 0) meanwhile();
    if (!settle<E>(a, s, v, at)) return;
    char* column = to + row * ToPitch;
    UNROLL for (int i = 0; i + 1 < Each; ++i) *reinterpret_cast<Four*>(column + (lane() + 32 * i) * 16) = v[i];
    *reinterpret_cast<Four*>(column + (tail + 32 * (Each - 1)) * 16) = v[Each - 1];
  }
}

}  // namespace longshort
