#include "memory.hpp"

#include <pthread.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace longshort {
namespace {

constexpr std::size_t HugePage = std::size_t{2} << 20;

struct Store {
  std::mutex lock;
  std::multimap<std::size_t, void*> kept;             // size -> memory, smallest first
  std::unordered_map<void*, std::size_t> size_of;     // every block, kept or lent
  std::size_t kept_bytes = 0;
};

Store& store() {
  static Store& instance = *[] {  // never destroyed: arrays may outlive the module
    auto* made = new Store;
    pthread_atfork([] { store().lock.lock(); }, [] { store().lock.unlock(); }, [] { store().lock.unlock(); });
    return made;
  }();
  return instance;
}

// Four sizes to each power of two: a request is served by a block at most a quarter larger.
std::size_t rounded(std::size_t bytes) {
  std::size_t step = 64;
  while (step * 8 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

void* acquire(std::size_t bytes) {
  const std::size_t size = rounded(bytes == 0 ? 1 : bytes);
  Store& shared = store();
  {
    const std::lock_guard<std::mutex> guard(shared.lock);
    const auto found = shared.kept.find(size);
    if (found != shared.kept.end()) {
      void* memory = found->second;
      shared.kept.erase(found);
      shared.kept_bytes -= size;
      return memory;
    }
  }
  const std::size_t alignment = size >= HugePage ? HugePage : 64;
  void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (size >= HugePage) madvise(memory, size, MADV_HUGEPAGE);
#endif
  const std::lock_guard<std::mutex> guard(shared.lock);
  shared.size_of[memory] = size;
  return memory;
}

void release(void* memory) noexcept {
  if (!memory) return;
  Store& shared = store();
  const std::lock_guard<std::mutex> guard(shared.lock);
  const std::size_t size = shared.size_of.at(memory);
  if (shared.kept_bytes + size <= RetainedBytes) {
    shared.kept.emplace(size, memory);
    shared.kept_bytes += size;
    return;
  }
  shared.size_of.erase(memory);
  std::free(memory);
}

void trim() noexcept {
  Store& shared = store();
  const std::lock_guard<std::mutex> guard(shared.lock);
  for (const auto& [size, memory] : shared.kept) {
    shared.size_of.erase(memory);
    std::free(memory);
  }
  shared.kept.clear();
  shared.kept_bytes = 0;
}

}  // namespace longshort
