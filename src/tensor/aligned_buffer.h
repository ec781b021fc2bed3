// Owned bytes, aligned for vector loads; large ones on huge pages, faulted in when first touched.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "base/check.h"
#include "base/result.h"

namespace pagemill {

class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;                   // bytes: a cache line, a ZMM
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;  // bytes
  enum class Fill { kUninitialized, kZero };

  AlignedBuffer() = default;
  // Aborts where the system refuses the memory: for sizes that were planned. A buffer of at least
  // kHugePage bytes is aligned to kHugePage and is zero either way, its pages being faulted in by
  // their first use.
  explicit AlignedBuffer(std::size_t size, Fill fill = Fill::kUninitialized);
  // The same, but a refusal is kResourceExhausted: for sizes that a client or a file chose.
  static Result<AlignedBuffer> allocate(std::size_t size, Fill fill = Fill::kUninitialized);

  ~AlignedBuffer() { reset(); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }  // bytes
  bool empty() const { return size_ == 0; }
  void reset();

  // The bytes as elements of T; a remainder smaller than one T is left out.
  template <typename T>
  std::span<T> as() {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }

 private:
  bool try_allocate(std::size_t size, Fill fill);

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;  // bytes mapped at data_, 0 if from the heap
};

}  // namespace pagemill
