// The twin of scan/cuda/device.cuh for the host: the same kernels, every thread a fiber.
//
// A fiber runs until it meets the others of its warp (a product, a vote, a sum), of its block (a barrier), or
// waits for another block's data; then the next one runs, in an order drawn from a seed. What the order can
// change is a race. All blocks of a cooperative launch are resident, of another as many as the caller says.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define DEVICE static inline
#define DEVICE_MEMBER inline
#define UNROLL
#define ROLLED

namespace longshort {

typedef std::uint8_t u8;
typedef std::uint16_t u16;
typedef std::uint32_t u32;
typedef unsigned long long u64;
typedef long long i64;
#ifdef LONGSHORT_INDEX
typedef LONGSHORT_INDEX Index;
#else
typedef i64 Index;
#endif

struct bfloat16 { u16 bits; };
struct float16 { u16 bits; };
struct alignas(16) Four { u32 x, y, z, w; };

namespace host {

// A fiber's stack pointer, and the switch from one stack to another: what a call must preserve, and no more.
#if defined(__x86_64__)
using Context = void*;
extern "C" void longshort_switch(Context* from, Context to);
asm(".text\nlongshort_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
inline void change(Context& from, Context& to) { longshort_switch(&from, to); }
inline void prepare(Context& context, std::vector<char>& stack, void (*body)()) {
  void** top = reinterpret_cast<void**>((reinterpret_cast<std::uintptr_t>(stack.data() + stack.size()) & ~15ull) - 16);
  top[1] = nullptr, top[0] = reinterpret_cast<void*>(body);
  for (int k = 1; k <= 6; ++k) top[-k] = nullptr;
  context = top - 6;
}
#else
}  // namespace host
}  // namespace longshort
#include <ucontext.h>
namespace longshort {
namespace host {
using Context = ucontext_t;
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
inline void prepare(Context& context, std::vector<char>& stack, void (*body)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack.data(), context.uc_stack.ss_size = stack.size(), context.uc_link = nullptr;
  makecontext(&context, body, 0);
}
#endif

// What the address sanitizer must be told: which stack the code is on, and what of a block's memory is no kernel's.
// Whoever goes from one stack to another calls `leave` before and `arrive` behind; a stack is known by its lowest byte.
struct Stack {
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* frames = nullptr;  // the sanitizer's own, kept while the stack rests
};
#ifdef __SANITIZE_ADDRESS__
inline void leave(Stack& from, const Stack& to) { __sanitizer_start_switch_fiber(&from.frames, to.bottom, to.size); }
inline void arrive(Stack& at, Stack& from) { __sanitizer_finish_switch_fiber(at.frames, &from.bottom, &from.size); }
inline void forbid(const char* from, const char* to) { __asan_poison_memory_region(from, to - from); }
inline void permit(const char* from, const char* to) { __asan_unpoison_memory_region(from, to - from); }
#else
inline void leave(Stack&, const Stack&) {}
inline void arrive(Stack&, Stack&) {}
inline void forbid(const char*, const char*) {}
inline void permit(const char*, const char*) {}
#endif

// Several threads meet here; the last one to come moves the meeting on.
struct Meeting {
  int members = 0, arrived = 0;
  u64 round = 0;
};
struct Warp {
  Meeting meeting;
  float in[2][32][12];  // operands of a product; two, so that one meeting a product is enough
  double values[32];
  bool votes[32];
};
struct Block {
  int x = 0, y = 0, slow = -1;  // the warp that goes on only when no other can
  Meeting barrier, teams[2];
  std::vector<char> memory;
  char* shared = nullptr;
  std::vector<Warp> warps;
};
struct Place {
  Block* block;
  int thread;
};
struct Fiber {
  Context context;
  std::vector<char> stack;
  Stack known;
  Block* block = nullptr;
  int thread = 0;
  bool idle = true;
};

inline Context scheduler;
inline Stack scheduler_stack;
inline Fiber* running = nullptr;
inline int block_threads = 0, grid_y = 1;
inline void (*entry)(const void*) = nullptr;
inline const void* argument = nullptr;
inline bool failed = false;
inline u64 clock = 0, launches = 0, progress = 0;
inline std::vector<Place> unstarted;
inline void (*previous)() = nullptr;  // what is still to be done before the launch, once
inline std::size_t held = 0;          // threads that wait for it

inline void yield() {
  Fiber& self = *running;
  leave(self.known, scheduler_stack);
  change(self.context, scheduler);
  arrive(self.known, scheduler_stack);
}
inline void meet(Meeting& meeting, int members) {
  const u64 round = meeting.round;
  if (++meeting.arrived == members) {
    meeting.arrived = 0;
    ++meeting.round, ++progress;
    return;
  }
  while (meeting.round == round && !failed) yield();
}
inline Warp& warp() { return running->block->warps[running->thread / 32]; }
// A fiber runs one thread after another, so that threads which never wait need no fiber of their own.
inline void body() {
  arrive(running->known, scheduler_stack);
  for (;;) {
    while (!unstarted.empty() && !failed) {
      running->block = unstarted.back().block, running->thread = unstarted.back().thread;
      unstarted.pop_back();
      entry(argument);
    }
    running->idle = true, ++progress;
    yield();
  }
}

constexpr std::size_t StackBytes = 128 * 1024, Guard = 64;
inline std::vector<std::unique_ptr<Fiber>> pool;
inline std::vector<Fiber*> rested;  // those of the pool that run no thread

inline Fiber* a_fiber() {
  if (rested.empty()) {
    pool.push_back(std::make_unique<Fiber>());
    Fiber& fresh = *pool.back();
    fresh.stack.resize(StackBytes);
    fresh.known.bottom = fresh.stack.data(), fresh.known.size = StackBytes;
    prepare(fresh.context, fresh.stack, body);
    rested.push_back(&fresh);
  }
  Fiber* fiber = rested.back();
  rested.pop_back();
  fiber->idle = false;
  return fiber;
}

struct Order {  // in which threads run
  u64 state;
  bool drawn;
  explicit Order(u64 seed) : state(seed), drawn(seed != 0) {}
  std::size_t draw(std::size_t below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<std::size_t>(state >> 33) % below;
  }
  template <class T>
  void shuffle(std::vector<T>& all) {
    if (drawn)
      for (std::size_t k = all.size(); k > 1; --k) std::swap(all[k - 1], all[draw(k)]);
  }
};

inline void finish_previous() {
  if (previous) previous();
  previous = nullptr;
}

// Runs blocks that are resident together, to their end or until one fails.
inline void run_together(std::vector<Block>& blocks, int bytes, Order& order) {
  unstarted.clear();
  for (Block& block : blocks) {
    block.memory.assign(bytes + 1024 + Guard, static_cast<char>(0xff));  // NaN in every type
    block.shared = block.memory.data() + (1024 - reinterpret_cast<std::uintptr_t>(block.memory.data()) % 1024) % 1024;
    std::memset(block.shared + bytes, 0x5a, Guard);
    forbid(block.memory.data(), block.shared);
    forbid(block.shared + bytes, block.memory.data() + block.memory.size());
    block.warps.resize((block_threads + 31) / 32);
    if (order.drawn) block.slow = static_cast<int>(order.draw(block.warps.size()));
    for (int k = 0; k < block_threads; ++k) unstarted.push_back({&block, k});
  }
  order.shuffle(unstarted);
  std::vector<Fiber*> waiting;
  u64 passes = 0;
  bool holds = false;  // whether slow warps wait; not for ever, for others may meet while they look for what is to come
  int left_to_hold = 300;
  int idle = 0;  // passes in which some threads wait for each other, as others wait for what came before
  while ((!waiting.empty() || !unstarted.empty()) && !failed) {
    if (!unstarted.empty()) waiting.push_back(a_fiber());
    const std::size_t first = unstarted.empty() ? 0 : waiting.size() - 1;  // start all threads before any goes on
    if (!first) order.shuffle(waiting);
    std::size_t left = first;
    const u64 before_pass = progress;
    for (std::size_t k = first; k < waiting.size() && !failed; ++k) {
      if (holds && waiting[k]->thread / 32 == waiting[k]->block->slow) {
        waiting[left++] = waiting[k];
        continue;
      }
      running = waiting[k];
      leave(scheduler_stack, running->known);
      change(scheduler, running->context);
      arrive(scheduler_stack, waiting[k]->known);
      (waiting[k]->idle ? rested.emplace_back() : waiting[left++]) = waiting[k];
    }
    waiting.resize(left);
    holds = unstarted.empty() && progress != before_pass && left_to_hold-- > 0;
    if (unstarted.empty() && (held == waiting.size() || ++idle > 1000)) finish_previous();
    clock += 1000;
    if (++passes > 20000000) failed = true;
  }
  for (Block& block : blocks) {
    permit(block.memory.data(), block.memory.data() + block.memory.size());
    for (std::size_t k = 0; k < Guard; ++k)
      if (block.shared[bytes + k] != 0x5a) {
        std::fprintf(stderr, "block %d wrote past its %d bytes of shared memory\n", block.x, bytes);
        failed = true;
      }
  }
}

// Runs a grid, so many blocks together; returns false if the kernel gave up, or no thread can go on.
inline bool launch(void (*kernel)(const void*), const void* a, int threads, int blocks_x, int blocks_y, int together,
                   int bytes, u64 seed, void (*before)()) {
  previous = before, held = 0, ++launches;
  entry = kernel, argument = a, block_threads = threads, grid_y = blocks_y, failed = false;
  Order order(seed);
  const int all = blocks_x * blocks_y;
  for (int first = 0; first < all && !failed; first += together) {
    std::vector<Block> blocks(std::min(together, all - first));
    for (int b = 0; b < static_cast<int>(blocks.size()); ++b)
      blocks[b].x = (first + b) % blocks_x, blocks[b].y = (first + b) / blocks_x;
    run_together(blocks, bytes, order);
  }
  finish_previous();
  if (failed) pool.clear(), rested.clear();  // their stacks hold threads that will never end
  return !failed;
}

}  // namespace host

DEVICE int thread() { return host::running->thread; }
DEVICE int threads() { return host::block_threads; }
DEVICE int lane() { return host::running->thread & 31; }
DEVICE int block_x() { return host::running->block->x; }
DEVICE int block_y() { return host::running->block->y; }
DEVICE int blocks_y() { return host::grid_y; }
DEVICE int uniform(int v) { return v; }
DEVICE char* shared() { return host::running->block->shared; }
DEVICE void block_barrier() { host::meet(host::running->block->barrier, host::block_threads); }
// What came before is done as late as can be: when every thread waits for it, for one that does, or has ended.
DEVICE void wait_for_previous() {
  if (host::previous) ++host::held;
  while (host::previous && !host::failed) host::yield();
}
DEVICE u32 votes_in_warp(bool value) {
  host::Warp& warp = host::warp();
  warp.votes[lane()] = value;
  host::meet(warp.meeting, 32);
  u32 votes = 0;
  for (int other = 0; other < 32; ++other) votes |= static_cast<u32>(warp.votes[other]) << other;
  host::meet(warp.meeting, 32);
  return votes;
}
DEVICE void warp_barrier() { host::meet(host::warp().meeting, 32); }
DEVICE bool any_in_warp(bool value) { return votes_in_warp(value) != 0; }

DEVICE u32 bits_of(float v) { u32 r; std::memcpy(&r, &v, 4); return r; }
DEVICE float float_of(u32 v) { float r; std::memcpy(&r, &v, 4); return r; }
DEVICE double wide(double v) { return v; }
DEVICE float wide(float v) { return v; }
DEVICE float wide(bfloat16 v) { return float_of(static_cast<u32>(v.bits) << 16); }
DEVICE float wide(float16 v) {
  _Float16 r;
  std::memcpy(&r, &v.bits, 2);
  return static_cast<float>(r);
}
DEVICE void narrow(double v, double& to) { to = v; }
DEVICE void narrow(float v, float& to) { to = v; }
DEVICE void narrow(float v, bfloat16& to) {
  const u32 b = bits_of(v);
  to.bits = v != v ? 0x7fff : static_cast<u16>((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
DEVICE void narrow(float v, float16& to) {
  const _Float16 r = static_cast<_Float16>(v);
  std::memcpy(&to.bits, &r, 2);
  if (v != v) to.bits = 0x7fff;
}
DEVICE double exponential(double v) { return std::exp(v); }
DEVICE float exponential(float v) { return std::exp(v); }
DEVICE double hyperbolic(double v) { return std::tanh(v); }
DEVICE float magnitude(float v) { return std::fabs(v); }
DEVICE float with_sign_of(float sign, float v) { return std::copysign(v, sign); }
DEVICE float either(bool below, float near, float far) { return below ? near : far; }
// As coarse as the instructions may be, either way: up to `most` units in the last place, by a number's own bits. Powers
// of two are exact.
DEVICE float coarse(float v, u32 most) {
  const u32 b = bits_of(v), spread = 2 * most + 1, kind = b & 0x7f800000u;
  if (kind == 0 || kind == 0x7f800000u || (b & 0x7fffffu) == 0) return v;
  return float_of(b + (b * 2654435761u >> 16) % spread - most);
}
DEVICE float exponential_short(float v) { return coarse(std::exp(v), 2); }
DEVICE float inverse_short(float v) { return coarse(1.0f / v, 1); }
DEVICE float inverse(float v) { return 1.0f / v; }
DEVICE double inverse_root(double v) { return 1.0 / std::sqrt(v); }
DEVICE float inverse_root(float v) { return 1.0f / std::sqrt(v); }
DEVICE double fused(double a, double b, double c) { return std::fma(a, b, c); }
DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE u32 high_product(u32 a, u32 b) { return static_cast<u32>((static_cast<u64>(a) * b) >> 32); }
template <class R>
DEVICE R of_lane(R v, int from) {
  host::Warp& warp = host::warp();
  warp.values[lane()] = v;
  host::meet(warp.meeting, 32);
  v = static_cast<R>(warp.values[from]);
  host::meet(warp.meeting, 32);
  return v;
}
template <class R>
DEVICE R across_warp(R v, int far) { return of_lane(v, lane() ^ far); }

// A device faults where adjacent elements are not aligned.
namespace host {
template <class T, int Count>
inline void check_aligned(const T* p) {
  constexpr std::size_t Unit = sizeof(T) * Count < 16 ? sizeof(T) * Count : 16;
  if (reinterpret_cast<std::uintptr_t>(p) % Unit == 0) return;
  std::fprintf(stderr, "%d elements of %d bytes are not aligned\n", Count, static_cast<int>(sizeof(T)));
  failed = true;
}
}  // namespace host
template <int Count, class T>
DEVICE void load(const T* from, T (&to)[Count]) {
  host::check_aligned<T, Count>(from);
  std::memcpy(to, from, sizeof(to));
}
template <int Count, class T>
DEVICE void store(T* to, const T (&from)[Count]) {
  host::check_aligned<T, Count>(to);
  std::memcpy(to, from, sizeof(from));
}
template <int Count, class R>
DEVICE void accumulate(R* to, const R (&v)[Count]) {
  host::check_aligned<R, Count>(to);
  for (int k = 0; k < Count; ++k) to[k] += v[k];
}
DEVICE Four load_relaxed(const void* p) {
  Four v;
  std::memcpy(&v, p, 16);
  return v;
}
template <class T>
DEVICE void store_relaxed(T* p, T v) { *p = v; }
DEVICE u64 nanoseconds() { return host::clock; }
DEVICE int forgotten(int v) { return v; }
DEVICE Four forgotten(Four v) { return v; }
DEVICE void fetch_ahead(const void*) {}
template <class T>
DEVICE T constant(const T* p) { return *p; }
DEVICE u32 mark(u32 word) { return (word >> 16) == 0xffffu || (word & 0xffffu) == 0xffffu; }
DEVICE u32 gather_marks(u32 a, u32 b) { return a | b; }
DEVICE bool any_mark(u32 marks) { return marks != 0; }
DEVICE void in_order() {}
DEVICE int held(int v) { return v; }
DEVICE float waited_for(float v) { return of_lane(v, lane()); }  // finds a warp that is not whole
DEVICE u32 clocks() { return 0; }
DEVICE void rest(u32, u32) {}
DEVICE void relax() { host::yield(); }
DEVICE void give_up() {
  host::failed = true;
  host::yield();
}
DEVICE void publish(i64* p, i64 v) { *p = v; }

// The product of a warp, from the layout that the PTX manual states for mma.m16n8k16 and m16n8k8.
namespace host {
// What lane (4g + q) gives: A at (g, K 2q), (g, 2q+1), (g+8, ...), then 8 further along K; B likewise.
template <class E>
DEVICE void multiply_pairs(float (&d)[4], const u32 (&mine)[6]) {
  Warp& w = warp();
  float(&in)[32][12] = w.in[w.meeting.round & 1];
  for (int r = 0; r < 6; ++r) {
    in[lane()][2 * r] = wide(E{static_cast<u16>(mine[r])});
    in[lane()][2 * r + 1] = wide(E{static_cast<u16>(mine[r] >> 16)});
  }
  meet(w.meeting, 32);
  const int g = lane() / 4, q = lane() % 4;
  for (int r = 0; r < 4; ++r) {
    const int row = g + 8 * (r / 2), column = 2 * q + r % 2;
    for (int k = 0; k < 16; ++k) {
      const int a_register = row / 8 + 2 * (k / 8), b_register = 4 + k / 8;
      d[r] += in[(row % 8) * 4 + (k % 8) / 2][2 * a_register + k % 2] *
              in[column * 4 + (k % 8) / 2][2 * b_register + k % 2];
    }
  }
}
}  // namespace host
DEVICE void multiply(bfloat16, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  host::multiply_pairs<bfloat16>(d, {a0, a1, a2, a3, b0, b1});
}
DEVICE void multiply(float16, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  host::multiply_pairs<float16>(d, {a0, a1, a2, a3, b0, b1});
}
DEVICE void multiply(float, float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  host::Warp& w = host::warp();
  float(&in)[32][12] = w.in[w.meeting.round & 1];
  const u32 mine[6] = {a0, a1, a2, a3, b0, b1};
  for (int r = 0; r < 6; ++r) in[lane()][r] = float_of(mine[r] & 0xffffe000u);  // the product reads 10 bits of mantissa
  host::meet(w.meeting, 32);
  const int g = lane() / 4, q = lane() % 4;
  for (int r = 0; r < 4; ++r) {
    const int row = g + 8 * (r / 2), column = 2 * q + r % 2;
    for (int k = 0; k < 8; ++k)
      d[r] += in[(row % 8) * 4 + k % 4][row / 8 + 2 * (k / 4)] * in[column * 4 + k % 4][4 + k / 4];
  }
}
DEVICE u32 rounded_to_tf32(u32 v) {
  if ((v & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  return (v & 0x7f800000u) == 0x7f800000u ? v : (v + 0x1000u) & 0xffffe000u;
}
DEVICE u32 lifted(u32 v) { return v + 0x1000u; }
DEVICE u32 lifted_anew(u32 v) { return lifted(v); }

}  // namespace longshort

#define KERNEL(name, threads, resident, Arguments, body)                                                         \
  static void run_##name(const void* raw) {                                                                      \
    const Arguments& a = *static_cast<const Arguments*>(raw);                                                    \
    body;                                                                                                        \
  }                                                                                                              \
  extern "C" int name(const void* raw, int blocks_x, int blocks_y, int together, int bytes,                      \
                      unsigned long long seed, void (*before)()) {                                               \
    return longshort::host::launch(run_##name, raw, threads, blocks_x, blocks_y, together, bytes, seed, before); \
  }
