// What the hardware offers the kernels, and the only file with its instructions. Everything else is plain C++,
// so that the tests can compile the same kernels for the host against a twin of this file.
//
// Needs sm_80: mma.sync on bfloat16 and tf32, ld.relaxed.gpu. What is newer has a way around it.
#pragma once

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define INFINITY_ __int_as_float(0x7f800000)

// An entry point: `body` sees its arguments as `a`. Blocks have exactly `threads` threads, and `resident` of them must
// fit a multiprocessor. Not told how many, the compiler saves registers for more: it then loads one array, waits, and
// loads the next to the same registers.
#define KERNEL(name, threads, resident, Arguments, body) \
  extern "C" __global__ void __launch_bounds__(threads, resident) name(const Arguments a) { body; }

namespace longshort {

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
// What counts elements of an array: the host says int where every array of a call is short enough, for then an address
// takes two instructions and not eight.
#ifdef LONGSHORT_INDEX
typedef LONGSHORT_INDEX Index;
#else
typedef i64 Index;
#endif

struct bfloat16 { u16 bits; };
struct float16 { u16 bits; };
struct alignas(16) Four { u32 x, y, z, w; };  // 16 bytes, the unit of every exchange and operand

// ---- where a thread is
DEVICE int thread() { return threadIdx.x; }
DEVICE int threads() { return blockDim.x; }
DEVICE int lane() { return threadIdx.x & 31; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int blocks_y() { return gridDim.y; }
// The same number in every lane of a warp, of which the compiler now knows it.
DEVICE int uniform(int v) { return __shfl_sync(0xffffffffu, v, 0); }
DEVICE char* shared() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}
DEVICE void block_barrier() { __syncthreads(); }
// What lanes wrote before, all lanes of the warp see after it.
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE bool any_in_warp(bool value) { return __any_sync(0xffffffffu, value); }
// A bit for each lane of a warp.
DEVICE u32 votes_in_warp(bool value) { return __ballot_sync(0xffffffffu, value); }

// The same number, of which the compiler knows nothing: what depends on it is not kept from one step to the next, where
// registers are scarcer than instructions.
DEVICE int forgotten(int v) {
  asm volatile("" : "+r"(v));
  return v;
}
// The same number, which the assembler too has to hold: it makes others anew at every step from where they came from. All
// lanes of a warp call it together.
DEVICE int held(int v) { return __shfl_sync(0xffffffffu, v, threadIdx.x & 31); }
// The same number, waited for here: one that is loaded before a loop is waited for at its first use in it, at every turn, and
// with it all loads of that turn which share its scoreboard. All lanes of a warp call it together.
DEVICE float waited_for(float v) { return __shfl_sync(0xffffffffu, v, threadIdx.x & 31); }
DEVICE Four forgotten(Four v) {
  asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
  return v;
}

// What is written to memory before stays before what is written after, in the compiler's order.
DEVICE void in_order() { asm volatile("" ::: "memory"); }

// Waits until the kernel before this one in its stream has ended and what it wrote is seen; `early` in driver.py lets
// this one start before. Until then only what neither it nor the kernel before it writes may be read, and nothing
// written. Elsewhere a kernel starts when the one before it has ended.
DEVICE void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- numbers
DEVICE double wide(double v) { return v; }
DEVICE float wide(float v) { return v; }
DEVICE float wide(bfloat16 v) { return __uint_as_float(static_cast<u32>(v.bits) << 16); }
DEVICE float wide(float16 v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits));
  return r;
}
DEVICE void narrow(double v, double& to) { to = v; }
DEVICE void narrow(float v, float& to) { to = v; }
DEVICE void narrow(float v, bfloat16& to) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %1;" : "=r"(pair) : "f"(v));
  to.bits = static_cast<u16>(pair);
}
DEVICE void narrow(float v, float16& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(v)); }
DEVICE u32 bits_of(float v) { return __float_as_uint(v); }
DEVICE float float_of(u32 v) { return __uint_as_float(v); }

DEVICE double exponential(double v) { return exp(v); }
DEVICE float exponential(float v) { return expf(v); }
DEVICE double hyperbolic(double v) { return tanh(v); }
DEVICE float magnitude(float v) { return fabsf(v); }
DEVICE float with_sign_of(float sign, float v) { return copysignf(v, sign); }
// Both are made, and one taken: of `below ? near : far` the compiler makes a branch.
DEVICE float either(bool below, float near, float far) {
  float r;
  asm("{.reg .pred p; setp.ne.s32 p, %3, 0; selp.f32 %0, %1, %2, p;}"
      : "=f"(r) : "f"(near), "f"(far), "r"(static_cast<int>(below)));
  return r;
}
// Two instructions, relative error 2^-21: far below what rounding to 16 bits costs. (tanh.approx errs 2^-11, and a
// float32 cell shows it.)
DEVICE float exponential_short(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v * 1.44269504f));
  return r;
}
DEVICE float inverse_short(float v) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
// Of 1 or more, or NaN: a step of Newton's on the quick instruction, to one unit in the last place. Infinity times zero
// would be NaN, so infinity is not looked at twice.
DEVICE float inverse(float v) {
  const float quick = inverse_short(v), error = fmaf(-fminf(v, 3e38f), quick, 1.0f);
  return fmaf(quick, error, quick);
}
DEVICE double inverse_root(double v) { return 1.0 / sqrt(v); }
// One step of Newton's on the quick instruction, but from zero and infinity: a quarter of the time of root and division.
DEVICE float inverse_root(float v) {
  const float quick = rsqrtf(v), error = fmaf(-v * quick, quick, 1.0f);
  return error == error ? fmaf(0.5f * quick, error, quick) : quick;
}
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }


// What another lane of the warp holds: the one whose number differs in the bit `far`, or a certain one.
template <class R>
DEVICE R across_warp(R v, int far) { return __shfl_xor_sync(0xffffffffu, v, far); }
template <class R>
DEVICE R of_lane(R v, int from) { return __shfl_sync(0xffffffffu, v, from); }

// ---- memory
// Adjacent elements as they lie, 16 bytes at a time where they are that many; aligned to their size, or to 16 bytes.
template <class T, int Count>
struct alignas(sizeof(T) * Count < 16 ? sizeof(T) * Count : 16) Adjacent {
  T of[Count];
};
template <int Count, class T>
DEVICE void load(const T* from, T (&to)[Count]) {
  const Adjacent<T, Count> all = *reinterpret_cast<const Adjacent<T, Count>*>(from);
  UNROLL for (int k = 0; k < Count; ++k) to[k] = all.of[k];
}
template <int Count, class T>
DEVICE void store(T* to, const T (&from)[Count]) {
  Adjacent<T, Count> all;
  UNROLL for (int k = 0; k < Count; ++k) all.of[k] = from[k];
  *reinterpret_cast<Adjacent<T, Count>*>(to) = all;
}
// Adds to elements that no other thread adds to: the bits of loading, adding and storing, and nothing is waited for.
template <int Count>
DEVICE void accumulate(double* to, const double (&v)[Count]) {
  UNROLL for (int k = 0; k < Count; ++k) atomicAdd(to + k, v[k]);
}
template <int Count>
DEVICE void accumulate(float* to, const float (&v)[Count]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (Count == 4) {
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
                 ::"l"(to), "f"(v[0]), "f"(v[Count > 1]), "f"(v[Count > 2 ? 2 : 0]), "f"(v[Count - 1]) : "memory");
    return;
  }
  if (Count == 2) {
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(v[0]), "f"(v[Count - 1]) : "memory");
    return;
  }
#endif
  UNROLL for (int k = 0; k < Count; ++k) atomicAdd(to + k, v[k]);
}
// 16 bytes that another block may be writing: never from the first cache, each 2-byte or 4-byte part old or new.
DEVICE Four load_relaxed(const void* p) {
  Four v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
}
DEVICE void store_relaxed(float* p, float v) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory");
}
DEVICE void store_relaxed(bfloat16* p, bfloat16 v) {
  asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(p), "h"(v.bits) : "memory");
}
DEVICE void store_relaxed(float16* p, float16 v) {
  asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(p), "h"(v.bits) : "memory");
}

// A number that nobody writes while a kernel runs: read once where it is asked for again and again.
template <class T>
DEVICE T constant(const T* p) { return __ldg(p); }
DEVICE bfloat16 constant(const bfloat16* p) { return {__ldg(&p->bits)}; }
DEVICE float16 constant(const float16* p) { return {__ldg(&p->bits)}; }
// Brings what will be read a step later from far memory to the second cache. A load would hold back those behind
// it: they return in their order.
DEVICE void fetch_ahead(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// ---- time, for waits that end
DEVICE u64 nanoseconds() {
  u64 now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
// Clocks of this multiprocessor.
DEVICE u32 clocks() {
  u32 now;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(now));
  return now;
}
// Waits until so many clocks are over.
DEVICE void rest(u32 since, u32 most) {
  while (clocks() - since < most) {
  }
}
// Between two looks at what has not come yet: the host's twin lets another thread run here.
DEVICE void relax() {}
// Ends the kernel with an error; the context is lost, as after any fault.
DEVICE void give_up() { asm volatile("trap;"); }
DEVICE void publish(i64* p, i64 v) {
  *reinterpret_cast<volatile i64*>(p) = v;
  __threadfence_system();
}

// Whether any half of a few words has every bit set: `mark` each word, `gather_marks` two, ask once.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
DEVICE u32 mark(u32 word) { return word; }
DEVICE u32 gather_marks(u32 a, u32 b) {
  u32 r;
  asm("max.u16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE bool any_mark(u32 marks) { return marks >= 0xffff0000u || static_cast<u16>(marks) == 0xffffu; }
#else
DEVICE u32 mark(u32 word) { return (~word - 0x00010001u) & word & 0x80008000u; }
DEVICE u32 gather_marks(u32 a, u32 b) { return a | b; }
DEVICE bool any_mark(u32 marks) { return marks != 0; }
#endif

// ---- products: d (16 x 8) += a (16 x K) b (K x 8), K = 16 of two bytes or 8 of four
// Lane l holds, with g = l / 4 and q = l % 4:  d[0..3] at (g, 2q), (g, 2q+1), (g+8, 2q), (g+8, 2q+1).
// Two-byte types: a0, a1, a2, a3 = pairs at (g, 2q), (g+8, 2q), (g, 2q+8), (g+8, 2q+8); b0, b1 = pairs at
// rows 2q, 2q+8 of column g. float: a at (g, q), (g+8, q), (g, q+4), (g+8, q+4); b at rows q, q+4.
DEVICE void multiply(bfloat16, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEVICE void multiply(float16, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEVICE void multiply(float, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// The nearest number with 10 bits of mantissa; the product would cut the rest off. It would also make an infinity of a NaN
// that has bits there alone: arithmetic, if only with zero, leaves no such NaN.
DEVICE u32 rounded_to_tf32(u32 v) {
  u32 r;
  asm("{.reg .f32 q; add.f32 q, %1, 0f80000000; cvt.rna.tf32.f32 %0, q;}" : "=r"(r) : "f"(__uint_as_float(v)));
  return r;
}
// The same where the product cuts the rest off, in one instruction and not three: half of what it cuts is added. Not of a
// NaN whose first ten bits are all set.
DEVICE u32 lifted(u32 v) { return v + 0x1000u; }
// The same, opaque to the compiler: it would hoist the parts of resident weights out of the loop over time, and
// double their registers.
DEVICE u32 lifted_anew(u32 v) {
  u32 r;
  asm volatile("add.u32 %0, %1, 4096;" : "=r"(r) : "r"(v));
  return r;
}

}  // namespace longshort
