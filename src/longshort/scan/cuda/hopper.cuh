// What only Hopper has (sm_90a): products of four warps, and copies that arrive at a barrier in shared memory. With
// device.cuh the only file with instructions; the tests have a twin of it for the host.
#pragma once
#include "device.cuh"

namespace longshort {

// A team: four warps that multiply together, the first of which a multiple of four.
constexpr int TeamThreads = 128;

DEVICE u32 in_shared(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// ---- what a team waits for
// Meets the other threads of one of the block's sets of teams.
DEVICE void team_barrier(int set, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(set + 1), "r"(threads) : "memory");
}
DEVICE bool all_in_warp(bool value) { return __all_sync(0xffffffffu, value); }

// A barrier in shared memory that `count` arrivals and the bytes that were announced move on, phase after phase.
DEVICE void open_barrier(u64* at, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(in_shared(at)), "r"(count) : "memory");
}
DEVICE void arrive(u64* at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(in_shared(at)) : "memory");
}
// Arrives, and announces bytes.
DEVICE void arrive_before(u64* at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(in_shared(at)), "r"(bytes) : "memory");
}
// Whether the phase of a parity is over: sleeps a little where it is not.
DEVICE bool is_over(u64* at, int parity) {
  u32 over;
  asm volatile(
      "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(over) : "r"(in_shared(at)), "r"(parity) : "memory");
  return over != 0;
}
// Copies bytes, a multiple of 16, both ends aligned to as many; they arrive at the barrier.
DEVICE void copy_arriving(char* to, const void* from, int bytes, u64* at) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   in_shared(to)), "l"(from), "r"(bytes), "r"(in_shared(at)) : "memory");
}

// ---- order
// What this thread wrote and read before in shared memory, by ordinary instructions, comes before what copies and
// products of a team do there; and what it has seen of memory before what copies read.
DEVICE void order_in_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void order_in_memory() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
// Writes a number that is seen only after all that this thread, and those it has met, wrote before.
DEVICE void release(u32* p, u32 v) { asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
// Reads four such numbers: what this thread reads next was written before them.
DEVICE Four acquire(const u32* p) {
  Four v;
  asm volatile("ld.acquire.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
}

// ---- products of a team: d (64 x Columns) += a (64 x K) b' (Columns x K), K = 32 bytes
// Operands lie in shared memory, in tiles of 128 bytes of K: rows 128 bytes apart from an address that 1024 divides, 16
// bytes at place p of row r where p is written as p ^ (r % 8). `piece` of a tile's four is multiplied.
// d: as of a product of one warp (device.cuh), 16 rows for each warp of the team, tile j of 8 columns in d[j].
// Products run on their own: d, and what they read, is theirs from `begin_products` to the `wait_products` behind it.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until all but the last Open groups of products are done.
template <int Open>
DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Open) : "memory"); }
template <int Tiles>
DEVICE void held(float (&d)[Tiles][4]) {
  UNROLL for (int j = 0; j < Tiles; ++j)
    UNROLL for (int r = 0; r < 4; ++r) asm volatile("" : "+f"(d[j][r])::"memory");
}

// The place of an operand, as the instruction wants it: from an address that the compiler knows nothing of, for
// descriptors held in registers would take those of d.
DEVICE u64 descriptor(u32 place) {
  u64 found;
  asm("mov.b64 %0, {%1, %2};" : "=l"(found) : "r"(place | 1u << 16), "r"(1u << 30 | 64u));
  return found;
}

template <int Tiles>
struct TeamProduct;
#define LONGSHORT_4 "%0, %1, %2, %3"
#define LONGSHORT_8 LONGSHORT_4 ", %4, %5, %6, %7"
#define LONGSHORT_12 LONGSHORT_8 ", %8, %9, %10, %11"
#define LONGSHORT_16 LONGSHORT_12 ", %12, %13, %14, %15"
#define LONGSHORT_20 LONGSHORT_16 ", %16, %17, %18, %19"
#define LONGSHORT_24 LONGSHORT_20 ", %20, %21, %22, %23"
#define LONGSHORT_28 LONGSHORT_24 ", %24, %25, %26, %27"
#define LONGSHORT_32 LONGSHORT_28 ", %28, %29, %30, %31"
#define LONGSHORT_36 LONGSHORT_32 ", %32, %33, %34, %35"
#define LONGSHORT_40 LONGSHORT_36 ", %36, %37, %38, %39"
#define LONGSHORT_44 LONGSHORT_40 ", %40, %41, %42, %43"
#define LONGSHORT_48 LONGSHORT_44 ", %44, %45, %46, %47"
#define LONGSHORT_52 LONGSHORT_48 ", %48, %49, %50, %51"
#define LONGSHORT_56 LONGSHORT_52 ", %52, %53, %54, %55"
#define LONGSHORT_60 LONGSHORT_56 ", %56, %57, %58, %59"
#define LONGSHORT_64 LONGSHORT_60 ", %60, %61, %62, %63"
#define LONGSHORT_D1(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define LONGSHORT_D2(j) LONGSHORT_D1(j), LONGSHORT_D1(j + 1)
#define LONGSHORT_D4(j) LONGSHORT_D2(j), LONGSHORT_D2(j + 2)
#define LONGSHORT_D8(j) LONGSHORT_D4(j), LONGSHORT_D4(j + 4)
#define LONGSHORT_TEAM(Tiles, Columns, K, Type, Pair, List, A, B, D)                                                  \
  DEVICE_MEMBER static void run(Pair, float (&d)[Tiles][4], u64 a, u64 b) {                                           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" Columns "k" K ".f32." Type "." Type " {" List "}, " A ", " B     \
                 ", 1, 1, 1" LONGSHORT_ORDER_##Pair ";" : D : "l"(a), "l"(b));                                         \
  }
#define LONGSHORT_ORDER_bfloat16 ", 0, 0"
#define LONGSHORT_ORDER_float16 ", 0, 0"
#define LONGSHORT_ORDER_float ""
#define LONGSHORT_TEAMS(Tiles, Columns, List, A, B, ...)                                                              \
  template <>                                                                                                         \
  struct TeamProduct<Tiles> {                                                                                         \
    LONGSHORT_TEAM(Tiles, Columns, "16", "bf16", bfloat16, List, A, B, LONGSHORT_ALL(__VA_ARGS__))                     \
    LONGSHORT_TEAM(Tiles, Columns, "16", "f16", float16, List, A, B, LONGSHORT_ALL(__VA_ARGS__))                       \
    LONGSHORT_TEAM(Tiles, Columns, "8", "tf32", float, List, A, B, LONGSHORT_ALL(__VA_ARGS__))                         \
  };
#define LONGSHORT_ALL(...) __VA_ARGS__
LONGSHORT_TEAMS(1, "8", LONGSHORT_4, "%4", "%5", LONGSHORT_D1(0))
LONGSHORT_TEAMS(2, "16", LONGSHORT_8, "%8", "%9", LONGSHORT_D2(0))
LONGSHORT_TEAMS(3, "24", LONGSHORT_12, "%12", "%13", LONGSHORT_D2(0), LONGSHORT_D1(2))
LONGSHORT_TEAMS(4, "32", LONGSHORT_16, "%16", "%17", LONGSHORT_D4(0))
LONGSHORT_TEAMS(5, "40", LONGSHORT_20, "%20", "%21", LONGSHORT_D4(0), LONGSHORT_D1(4))
LONGSHORT_TEAMS(6, "48", LONGSHORT_24, "%24", "%25", LONGSHORT_D4(0), LONGSHORT_D2(4))
LONGSHORT_TEAMS(7, "56", LONGSHORT_28, "%28", "%29", LONGSHORT_D4(0), LONGSHORT_D2(4), LONGSHORT_D1(6))
LONGSHORT_TEAMS(8, "64", LONGSHORT_32, "%32", "%33", LONGSHORT_D8(0))
LONGSHORT_TEAMS(10, "80", LONGSHORT_40, "%40", "%41", LONGSHORT_D8(0), LONGSHORT_D2(8))
LONGSHORT_TEAMS(12, "96", LONGSHORT_48, "%48", "%49", LONGSHORT_D8(0), LONGSHORT_D4(8))
LONGSHORT_TEAMS(14, "112", LONGSHORT_56, "%56", "%57", LONGSHORT_D8(0), LONGSHORT_D4(8), LONGSHORT_D2(12))
LONGSHORT_TEAMS(16, "128", LONGSHORT_64, "%64", "%65", LONGSHORT_D8(0), LONGSHORT_D8(8))

template <class E, int Tiles>
DEVICE void multiply_tile(E, float (&d)[Tiles][4], const char* a, const char* b, int piece) {
  u32 places[2] = {in_shared(a), in_shared(b)};
  UNROLL for (int k = 0; k < 2; ++k) asm volatile("" : "+r"(places[k]));
  TeamProduct<Tiles>::run(E{}, d, descriptor((places[0] + 32 * piece) >> 4), descriptor((places[1] + 32 * piece) >> 4));
}

}  // namespace longshort
