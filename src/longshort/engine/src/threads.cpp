#include "threads.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <thread>
#include <type_traits>
#include <vector>

namespace longshort {
namespace {

constexpr int SpinsBeforeYield = 500;
constexpr int SpinsBeforeSleep = 2000;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  explicit Team(int members) : members_(members) {
    for (int member = 1; member < members; ++member)
      std::thread([this, member] { work(member); }).detach();
  }

  int members() const { return members_; }

  void run(int members, const std::function<void(int)>& job) {
    job_ = &job;
    active_ = members;
    unfinished_.store(members_ - 1, std::memory_order_relaxed);
    job_number_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) job_number_.notify_all();
    job(0);
    for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins < SpinsBeforeYield) pause();
      else sched_yield();
    }
  }

 private:
  void work(int member) {
    FlushDenormals flush;
    std::uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (job_number_.load(std::memory_order_acquire) == seen) {
        if (++spins < SpinsBeforeSleep) {
          pause();
          continue;
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        job_number_.wait(seen, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      ++seen;
      if (member < active_) (*job_)(member);
      unfinished_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int members_;
  int active_ = 0;
  const std::function<void(int)>* job_ = nullptr;
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<std::uint32_t> job_number_{0};
  alignas(64) std::atomic<int> unfinished_{0};
};

// OpenMP's own team, by the entry points that compilers call. Both are null where no library has brought it.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags) = nullptr;
  int (*size)() = nullptr;
  int (*number)() = nullptr;  // of the calling thread: the same member on the same core finds its weights in cache

  // Whether the job was run: not inside another parallel region, nor where fewer threads are allowed.
  bool run(int members, const std::function<void(int)>& job) const {
    if (!parallel) return false;
    struct Shared {
      const OpenMP& openmp;
      const int members;
      const std::function<void(int)>& job;
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
  Team* team = nullptr;
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

void Barrier::wait() {
  const std::uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
    if (spins < SpinsBeforeYield) pause();
    else sched_yield();
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

void run_team(int members, const std::function<void(int)>& job) {
  FlushDenormals flush;
  if (members == 1) return job(0);
  Teams& shared = shared_teams();
  if (shared.openmp.run(members, job)) return;
  const std::lock_guard<std::mutex> turn(shared.turn);
  if (!shared.team || shared.team->members() < members) shared.team = new Team(members);
  shared.team->run(members, job);
}

}  // namespace longshort
