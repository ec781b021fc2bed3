#include "tensor/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

namespace pagemill {
namespace {

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// `size` bytes (a multiple of kHugePage) at a multiple of kHugePage, or null.
std::byte* map_huge(std::size_t size) {
  constexpr std::size_t kHuge = AlignedBuffer::kHugePage;
  const std::size_t reserved = size + kHuge;
  void* const raw =
      mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  std::byte* const begin = static_cast<std::byte*>(raw);
  const std::size_t lead = (kHuge - reinterpret_cast<std::uintptr_t>(begin) % kHuge) % kHuge;
  if (lead != 0) munmap(begin, lead);
  munmap(begin + lead + size, kHuge - lead);
  madvise(begin + lead, size, MADV_HUGEPAGE);  // a hint: refused where the kernel has none
  return begin + lead;
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t size, Fill fill) {
  PM_CHECK(try_allocate(size, fill), "no memory for {} bytes", size);
}

Result<AlignedBuffer> AlignedBuffer::allocate(std::size_t size, Fill fill) {
  AlignedBuffer buffer;
  if (!buffer.try_allocate(size, fill)) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("no memory for {} bytes", size), {}};
  }
  return buffer;
}

bool AlignedBuffer::try_allocate(std::size_t size, Fill fill) {
  if (size == 0) return true;
  if (size > std::numeric_limits<std::size_t>::max() / 4) return false;
  if (size >= kHugePage) {
    mapped_ = round_up(size, kHugePage);
    data_ = map_huge(mapped_);
    if (data_ == nullptr) mapped_ = 0;
  } else {
    const std::size_t rounded = round_up(size, kAlignment);
    data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (data_ != nullptr && fill == Fill::kZero) std::memset(data_, 0, rounded);
  }
  if (data_ == nullptr) return false;
  size_ = size;
  return true;
}

void AlignedBuffer::reset() {
  if (mapped_ != 0) {
    munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
  data_ = nullptr;
  size_ = 0;
  mapped_ = 0;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    mapped_ = std::exchange(other.mapped_, 0);
  }
  return *this;
}

}  // namespace pagemill
