#include "threads.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <thread>
#include <type_traits>

namespace longshort {
namespace {

constexpr int SpinsBeforeYield = 500;
constexpr int SpinsBeforeClaim = 200;  // of one call, for all workers together
constexpr int SpinsBeforeSleep = 8000;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
int this_core() { return sched_getcpu(); }

// Move the calling thread off a core, once. Linux wakes a thread where it slept, though its waker may run there by now
// and another core be idle, and may leave it there for tens of milliseconds (seen on two cores of a virtual machine).
void leave(int core) {
  cpu_set_t allowed, others;
  if (core < 0 || core != sched_getcpu() || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  others = allowed;
  CPU_CLR(static_cast<std::size_t>(core), &others);
  if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
int this_core() { return -1; }
void leave(int) {}
#endif

// A job is numbered, and each member's part of it goes to whoever claims it for that number: its worker, or the caller,
// who then waits only for the parts that a worker has claimed. Nobody reads the fields of a job without a part of it, so
// they stand as long as they are read. A worker that comes finds all it needs in one line, and leaves its answer in its own.
class Team {
 public:
  // Start the workers that are missing. Each knows its own part, which stays where it is; nobody else reads the deque
  // but the caller, whose turn it is.
  void grow(int members) {
    for (int member = static_cast<int>(parts_.size()); member < members; ++member) {
      Part& own = parts_.emplace_back();
      if (member == 0) continue;  // the caller's
      try {
        std::thread([this, member, &own] { work(member, own); }).detach();
      } catch (...) {
        parts_.pop_back();
        throw;
      }
    }
  }

  void run(int members, Job<int> job) {
    job_ = job;
    const std::uint64_t number = open(members);
    if (anyone_sleeps(members)) wake();
    job(0);
    for (int member = 1; member < members; ++member) await(member, number);
  }

  void share(int members, std::ptrdiff_t pieces, Sharing how, Job<int, std::ptrdiff_t> job) {
    job_ = {};
    piece_job_ = job;
    pieces_ = pieces;
    how_ = how;
    next_.store(0, std::memory_order_relaxed);
    const std::uint64_t number = open(members);
    const bool asleep = anyone_sleeps(members);
    if (asleep && (how.wakes || std::chrono::steady_clock::now() - shared_at_ < Moment)) wake();
    take_part(0, members, 0);
    int patience = asleep ? 0 : SpinsBeforeClaim;
    for (int member = 1; member < members; ++member) {
      if (comes(member, number, patience)) continue;  // to look at its claim would take the line from it
      if (!claim(part(member), number)) await(member, number);
      else if (how.settled) take_part(member, members, 0);
    }
    if (asleep) shared_at_ = std::chrono::steady_clock::now();
  }

 private:
  struct Part {  // numbers of the last job
    alignas(64) std::atomic<std::uint64_t> claimed{0};
    alignas(64) std::atomic<std::uint64_t> done{0};
    alignas(64) std::atomic<bool> asleep{false};
  };

  // State: the job's number above, its members in the last bits. One load tells a worker whether it has a part.
  static constexpr std::uint64_t OneJob = std::uint64_t{1} << 16;
  static int members_of(std::uint64_t state) { return static_cast<int>(state % OneJob); }

  Part& part(int member) { return parts_[static_cast<std::size_t>(member)]; }
  const Part& part(int member) const { return parts_[static_cast<std::size_t>(member)]; }

  std::uint64_t open(int members) {
    number_ += OneJob;
    state_.store(number_ + static_cast<std::uint64_t>(members), std::memory_order_seq_cst);
    return number_;
  }

  void wake() {
    waker_core_.store(this_core(), std::memory_order_relaxed);
    state_.notify_all();
  }

  // Of those with a part in the job that was opened. A worker says that it sleeps before it looks at the state once more.
  bool anyone_sleeps(int members) const {
    for (int member = 1; member < members; ++member)
      if (part(member).asleep.load(std::memory_order_seq_cst)) return true;
    return false;
  }

  // A worker that comes late may ask for a job that is over: its number is behind.
  static bool claim(Part& part, std::uint64_t number) {
    std::uint64_t last = part.claimed.load(std::memory_order_relaxed);
    return last < number && part.claimed.compare_exchange_strong(last, number, std::memory_order_acq_rel);
  }

  // Whether a member is done before the spins are spent.
  bool comes(int member, std::uint64_t number, int& spins) const {
    const std::atomic<std::uint64_t>& done = part(member).done;
    for (; done.load(std::memory_order_acquire) != number; --spins) {
      if (spins == 0) return false;
      pause();
    }
    return true;
  }

  void await(int member, std::uint64_t number) const {
    for (int spins = SpinsBeforeYield; !comes(member, number, spins);) sched_yield();
  }

  // The part of one member, done by `as`: its own pieces where they are settled, else the next as long as there are any.
  void take_part(int member, int members, int as) {
    if (how_.settled) {
      const std::ptrdiff_t first = pieces_ * member / members, last = pieces_ * (member + 1) / members;
      for (std::ptrdiff_t k = first; k < last; ++k) piece_job_(as, how_.backwards ? first + last - 1 - k : k);
      return;
    }
    for (std::ptrdiff_t k = next_.fetch_add(1, std::memory_order_relaxed); k < pieces_; k = next_.fetch_add(1, std::memory_order_relaxed))
      piece_job_(as, how_.backwards ? pieces_ - 1 - k : k);
  }

  void work(int member, Part& own) {
    FlushDenormals flush;
    std::uint64_t seen = 0;
    for (;;) {
      std::uint64_t now = state_.load(std::memory_order_acquire);
      for (int spins = 0; now == seen; now = state_.load(std::memory_order_acquire)) {
        if (++spins < SpinsBeforeSleep) {
          pause();
          continue;
        }
        own.asleep.store(true, std::memory_order_seq_cst);
        state_.wait(now, std::memory_order_seq_cst);
        own.asleep.store(false, std::memory_order_relaxed);
        leave(waker_core_.load(std::memory_order_relaxed));
        spins = 0;
      }
      seen = now;
      const int members = members_of(now);
      const std::uint64_t number = now - static_cast<std::uint64_t>(members);
      if (member >= members || !claim(own, number)) continue;
      if (job_) job_(member);
      else take_part(member, members, member);
      own.done.store(number, std::memory_order_release);
    }
  }

  static constexpr std::chrono::microseconds Moment{50};

  std::uint64_t number_ = 0;
  std::chrono::steady_clock::time_point shared_at_{};
  std::atomic<int> waker_core_{-1};
  std::deque<Part> parts_;
  alignas(64) std::atomic<std::uint64_t> state_{0};
  Job<int> job_;
  Job<int, std::ptrdiff_t> piece_job_;
  std::ptrdiff_t pieces_ = 0;
  Sharing how_;
  alignas(64) std::atomic<std::ptrdiff_t> next_{0};
};

// OpenMP's own team, by the entry points that compilers call. Both are null where no library has brought it.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags) = nullptr;
  int (*size)() = nullptr;
  int (*number)() = nullptr;  // of the calling thread: the same member on the same core finds its weights in cache

  // Whether the job was run: not inside another parallel region, nor where fewer threads are allowed.
  bool run(int members, Job<int> job) const {
    if (!parallel) return false;
    struct Shared {
      const OpenMP& openmp;
      const int members;
      const Job<int> job;
      std::atomic<bool> whole{true};
    } shared{*this, members, job};
    parallel(
        [](void* data) {
          Shared& shared = *static_cast<Shared*>(data);
          if (shared.openmp.size() != shared.members) return shared.whole.store(false);
          FlushDenormals flush;
          shared.job(shared.openmp.number());
        },
        &shared, static_cast<unsigned>(members), 0);
    return shared.whole.load();
  }
};

// The workers of a process live as long as it does: joining threads while the interpreter unloads the
// module would deadlock, and a forked child has none of them, nor OpenMP's, so all are left behind, never destroyed.
struct Teams {
  std::mutex turn;
  Team team;  // one for all numbers of threads: it has as many workers as the largest asked for
  OpenMP openmp;
};

Teams* teams = nullptr;

void start_teams() { teams = new Teams; }

Teams& shared_teams() {
  static const bool once = [] {
    start_teams();
    pthread_atfork(nullptr, nullptr, start_teams);
    return true;
  }();
  (void)once;
  return *teams;
}

}  // namespace

void Barrier::await(int member) {
  const std::uint32_t own = places_[static_cast<std::size_t>(member)].arrivals.load(std::memory_order_relaxed);
  for (int other = 0; other < members_; ++other) {
    const std::atomic<std::uint32_t>& theirs = places_[static_cast<std::size_t>(other)].arrivals;
    for (int spins = 0; static_cast<std::int32_t>(theirs.load(std::memory_order_acquire) - own) < 0; ++spins) {
      if (spins < SpinsBeforeYield) pause();
      else sched_yield();
    }
  }
}

bool join_openmp() {
  OpenMP found;
  const auto find = [](auto& entry, const char* name) {
    entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(dlsym(RTLD_DEFAULT, name));
    return entry != nullptr;
  };
  if (!find(found.size, "omp_get_num_threads") || !find(found.number, "omp_get_thread_num") || !find(found.parallel, "GOMP_parallel"))
    return false;
  shared_teams().openmp = found;
  return true;
}

void run_team(int members, Job<int> job) {
  FlushDenormals flush;
  if (members == 1) return job(0);
  Teams& shared = shared_teams();
  if (shared.openmp.run(members, job)) return;
  const std::lock_guard<std::mutex> turn(shared.turn);
  shared.team.grow(members);
  shared.team.run(members, job);
}

void share(int members, std::ptrdiff_t pieces, Sharing how, Job<int, std::ptrdiff_t> job) {
  FlushDenormals flush;
  const auto do_part = [&](int member, int of) {
    const std::ptrdiff_t first = pieces * member / of, last = pieces * (member + 1) / of;
    for (std::ptrdiff_t k = first; k < last; ++k) job(member, how.backwards ? first + last - 1 - k : k);
  };
  if (members == 1) return do_part(0, 1);
  Teams& shared = shared_teams();
  if (shared.openmp.parallel) {
    if (!how.wakes || !shared.openmp.run(members, [&](int member) { do_part(member, members); })) do_part(0, 1);
    return;
  }
  const std::unique_lock<std::mutex> turn(shared.turn, std::try_to_lock);
  if (!turn) return do_part(0, 1);
  shared.team.grow(members);
  shared.team.share(members, pieces, how, job);
}

double meeting() {
  constexpr int trials = 41, rounds = 1000;
  double seconds[trials];
  Barrier barrier(2);
  run_team(2, [&](int member) {
    for (double& each : seconds) {
      const auto begin = std::chrono::steady_clock::now();
      for (int k = 0; k < rounds; ++k) barrier.wait(member);
      if (member == 0) each = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / rounds;
    }
  });
  std::nth_element(seconds, seconds + trials / 2, seconds + trials);
  return seconds[trials / 2];
}

}  // namespace longshort
