// Large arrays that come back: a training step needs the same hundreds of megabytes again and again, and
// fetching them from the system each time costs more than the arithmetic (a page fault each 4 KiB).
#pragma once

#include <cstddef>

namespace longshort {

// Aligned to 64 bytes, on huge pages where the system offers them. Contents are undefined.
// Throws std::bad_alloc. Returned memory is kept for reuse, up to RetainedBytes in all.
void* acquire(std::size_t bytes);
void release(void* memory) noexcept;

// Give what is kept for reuse back to the system.
void trim() noexcept;

constexpr std::size_t RetainedBytes = std::size_t{1} << 30;

// One acquisition, cut into aligned pieces in order.
class Arena {
 public:
  explicit Arena(std::size_t bytes) : begin_(static_cast<char*>(acquire(bytes))), next_(begin_), end_(begin_ + bytes) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(begin_); }

  static constexpr std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  char* take(std::size_t bytes) {
    char* piece = next_;
    next_ += padded(bytes);
    return piece;
  }

 private:
  char *begin_, *next_, *end_;
};

// Memory that a caller keeps from one call to the next. Contents do not survive `bytes`.
class Room {
 public:
  char* bytes(std::size_t count) {
    if (count > size_) {
      release(begin_);
      begin_ = nullptr;
      size_ = 0;
      begin_ = static_cast<char*>(acquire(count));
      size_ = count;
    }
    return begin_;
  }
  Room() = default;
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { release(begin_); }

 private:
  char* begin_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace longshort
