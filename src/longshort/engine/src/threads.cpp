#include "threads.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
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
  explicit Team(int members) : members_(members), shares_(new Share[static_cast<std::size_t>(members)]) {
    for (int member = 1; member < members; ++member)
      std::thread([this, member] { work(member); }).detach();
  }

  int members() const { return members_; }

  void run(int members, const std::function<void(int)>& job) {
    job_ = &job;
    active_ = members;
    unfinished_.store(members - 1, std::memory_order_relaxed);
    open();
    if (sleepers_.load(std::memory_order_seq_cst) > 0) state_.notify_all();
    job(0);
    for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins < SpinsBeforeYield) pause();
      else sched_yield();
    }
    close();
    job_ = nullptr;
  }

  void share(int members, std::ptrdiff_t pieces, Sharing how, const std::function<void(int, std::ptrdiff_t)>& job) {
    piece_job_ = &job;
    active_ = members;
    how_ = how;
    for (int member = 0; member < members; ++member) {
      Share& own = shares_[static_cast<std::size_t>(member)];
      own.next.store(pieces * member / members, std::memory_order_relaxed);
      own.first = pieces * member / members;
      own.last = pieces * (member + 1) / members;
    }
    open();
    if (sleepers_.load(std::memory_order_seq_cst) > 0 && (how.wakes || std::chrono::steady_clock::now() - shared_at_ < Moment))
      state_.notify_all();
    take_pieces(0);
    close();
    shared_at_ = std::chrono::steady_clock::now();
  }

 private:
  struct alignas(64) Share {
    std::atomic<std::ptrdiff_t> next{0};
    std::ptrdiff_t first = 0, last = 0;
  };

  // The fields of a job stand from open() until close() returns: a worker reads them only while it is
  // counted in inside_, and only after it has seen the job open from there.
  void open() { state_.store((state_.load(std::memory_order_relaxed) | 1) + 2, std::memory_order_seq_cst); }

  void close() {
    state_.store(state_.load(std::memory_order_relaxed) & ~std::uint32_t{1}, std::memory_order_seq_cst);
    for (int spins = 0; inside_.load(std::memory_order_seq_cst) > 0; ++spins) {
      if (spins < SpinsBeforeYield) pause();
      else sched_yield();
    }
  }

  void take_pieces(int member) {
    for (int turn = 0; turn < active_; ++turn) {
      Share& from = shares_[static_cast<std::size_t>((member + turn) % active_)];
      if (how_.settled && turn > 0 && from.next.load(std::memory_order_relaxed) != from.first) continue;
      while (from.next.load(std::memory_order_relaxed) < from.last) {
        const std::ptrdiff_t piece = from.next.fetch_add(1, std::memory_order_relaxed);
        if (piece < from.last) (*piece_job_)(member, how_.backwards ? from.first + from.last - 1 - piece : piece);
      }
    }
  }

  void work(int member) {
    FlushDenormals flush;
    std::uint32_t seen = 0;
    for (;;) {
      std::uint32_t now = state_.load(std::memory_order_acquire);
      for (int spins = 0; now == seen || !(now & 1); now = state_.load(std::memory_order_acquire)) {
        if (++spins < SpinsBeforeSleep) {
          pause();
          continue;
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        state_.wait(now, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
        spins = 0;
      }
      inside_.fetch_add(1, std::memory_order_seq_cst);
      seen = state_.load(std::memory_order_seq_cst);
      if ((seen & 1) && member < active_) {
        if (job_) {
          (*job_)(member);
          unfinished_.fetch_sub(1, std::memory_order_release);
        } else {
          take_pieces(member);
        }
      }
      inside_.fetch_sub(1, std::memory_order_release);
    }
  }

  static constexpr std::chrono::microseconds Moment{50};

  const int members_;
  int active_ = 0;
  Sharing how_;
  const std::function<void(int)>* job_ = nullptr;
  const std::function<void(int, std::ptrdiff_t)>* piece_job_ = nullptr;
  std::unique_ptr<Share[]> shares_;
  std::chrono::steady_clock::time_point shared_at_{};
  alignas(64) std::atomic<std::uint32_t> state_{0};  // two for each job, and one while it is open
  alignas(64) std::atomic<int> inside_{0};
  std::atomic<int> unfinished_{0}, sleepers_{0};
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

void run_team(int members, const std::function<void(int)>& job) {
  FlushDenormals flush;
  if (members == 1) return job(0);
  Teams& shared = shared_teams();
  if (shared.openmp.run(members, job)) return;
  const std::lock_guard<std::mutex> turn(shared.turn);
  if (!shared.team || shared.team->members() < members) shared.team = new Team(members);
  shared.team->run(members, job);
}

void share(int members, std::ptrdiff_t pieces, Sharing how, const std::function<void(int, std::ptrdiff_t)>& job) {
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
  if (!shared.team || shared.team->members() < members) shared.team = new Team(members);
  shared.team->share(members, pieces, how, job);
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
