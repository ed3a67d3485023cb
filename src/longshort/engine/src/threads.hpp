// A small team of threads that runs one job at a time, and the barrier inside a job.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longshort {

// Denormals cost a hundred cycles each and decay towards zero in any stable recurrence.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  std::uint64_t saved_;
#else
  FlushDenormals() = default;
#endif
};

// Every member must arrive before any goes on. Each writes a place of its own, so that nobody waits to write; what a
// member wrote before it arrived is seen by whoever has awaited it. Waiting spins, and gives the core away when it
// gets long.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members), places_(new Place[static_cast<std::size_t>(members)]) {}
  void arrive(int member) {
    std::atomic<std::uint32_t>& own = places_[static_cast<std::size_t>(member)].arrivals;
    own.store(own.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  void await(int member);  // until every other has arrived as often as this one
  void wait(int member) {
    arrive(member);
    await(member);
  }

 private:
  struct alignas(64) Place {
    std::atomic<std::uint32_t> arrivals{0};
  };
  const int members_;
  const std::unique_ptr<Place[]> places_;
};

// A function for the length of a call, in two words: a worker finds it in the line that it awaits.
template <class... Arguments>
class Job {
 public:
  Job() = default;
  template <class Function>
  Job(const Function& function)
      : function_(&function), call_([](const void* of, Arguments... given) { (*static_cast<const Function*>(of))(given...); }) {}
  void operator()(Arguments... given) const { call_(function_, given...); }
  explicit operator bool() const { return call_ != nullptr; }

 private:
  const void* function_ = nullptr;
  void (*call_)(const void*, Arguments...) = nullptr;
};

// Runs job(member) for member = 0 ... members - 1, member 0 on the calling thread, and returns when all
// have finished. Denormal numbers are zero inside a job; the caller's floating-point state is restored.
// Jobs from several callers take turns. Workers spin for a tenth of a millisecond or so after a job and then
// sleep, and a child process that has forked starts workers of its own.
// The job must not throw.
void run_team(int members, Job<int> job);

// Runs job(member, piece) once for each piece = 0 ... pieces - 1 and returns when all are done. The caller
// takes part as member 0 and waits for nobody to come: a worker that sleeps, or that is kept busy for some
// microseconds, is done without. Each member starts with its own share of the pieces, the same at every call with these
// numbers, so that what a piece reads stays in its core's cache; who is done takes from the others.
struct Sharing {
  bool settled = false;    // what a piece reads lies in its member's cache: nobody takes from one that has begun
  bool backwards = false;  // each share from its last piece to its first
  bool wakes = false;      // a worker that sleeps is woken. Else only where the last call was moments ago. On OpenMP's
                           // threads, which cannot be left out, a call that does not wake runs on the calling thread alone
};
// The job must not throw.
void share(int members, std::ptrdiff_t pieces, Sharing how, Job<int, std::ptrdiff_t> job);

// Run jobs on OpenMP's threads from now on, where the process has them: those spin for milliseconds after each job
// of torch, and a second team would share its cores with them. False where there is no OpenMP.
bool join_openmp();

// Seconds that two threads take to meet at a barrier, the median of many trials.
double meeting();

}  // namespace longshort
