// A small team of threads that runs one job at a time, and the barrier inside a job.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

namespace longshort {

// Every member must arrive before any goes on. Spins, and gives its core away when the wait gets long.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait();

 private:
  const int members_;
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> round_{0};
};

// Runs job(member) for member = 0 ... members - 1, member 0 on the calling thread, and returns when all
// have finished. Denormal numbers are zero inside a job; the caller's floating-point state is restored.
// Jobs from several callers take turns. Workers spin for some tens of microseconds after a job and then
// sleep, and a child process that has forked starts workers of its own.
// The job must not throw.
void run_team(int members, const std::function<void(int)>& job);

}  // namespace longshort
