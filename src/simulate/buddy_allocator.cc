#include "simulate/buddy_allocator.h"

#include <bit>

#include "base/check.h"

namespace pagemill {

BuddyAllocator::BuddyAllocator(std::int64_t capacity) : capacity_(capacity), num_free_(capacity) {
  PM_CHECK(capacity >= 1, "{} slots", capacity);
  const int num_orders = std::bit_width(static_cast<std::uint64_t>(capacity));
  free_.resize(num_orders);
  cut_begin_.assign(num_orders, -1);
  // Larger cuts first: each begins at a multiple of its size, so a buddy's address is one XOR away.
  std::int64_t begin = 0;
  for (int order = num_orders - 1; order >= 0; --order) {
    if ((capacity >> order & 1) == 0) continue;
    free_[order].insert(begin);
    cut_begin_[order] = begin;
    begin += std::int64_t{1} << order;
  }
}

std::optional<BuddyAllocator::Range> BuddyAllocator::allocate(std::int64_t num_slots) {
  PM_CHECK(num_slots >= 1, "{} slots", num_slots);
  const int order = std::bit_width(static_cast<std::uint64_t>(num_slots - 1));
  int found = order;
  while (found < static_cast<int>(free_.size()) && free_[found].empty()) ++found;
  if (found >= static_cast<int>(free_.size())) return std::nullopt;
  const std::int64_t begin = *free_[found].begin();
  free_[found].erase(free_[found].begin());
  while (found > order) {
    --found;
    free_[found].insert(begin + (std::int64_t{1} << found));
  }
  const std::int64_t size = std::int64_t{1} << order;
  allocated_.emplace(begin, order);
  num_free_ -= size;
  return Range{begin, size};
}

void BuddyAllocator::free(const Range& range) {
  const auto found = allocated_.find(range.begin);
  PM_CHECK(found != allocated_.end() && std::int64_t{1} << found->second == range.size,
           "range [{}, +{}) is not allocated",
           range.begin,
           range.size);
  int order = found->second;
  allocated_.erase(found);
  num_free_ += range.size;
  std::int64_t begin = range.begin;
  for (;;) {
    const std::int64_t buddy = buddy_of(begin, order);
    if (buddy < 0 || free_[order].erase(buddy) == 0) break;
    begin = std::min(begin, buddy);
    ++order;
  }
  free_[order].insert(begin);
}

// -1: the range is a whole cut of the capacity.
std::int64_t BuddyAllocator::buddy_of(std::int64_t begin, int order) const {
  return cut_begin_[order] == begin ? -1 : begin ^ (std::int64_t{1} << order);
}

void BuddyAllocator::check_invariants() const {
  std::map<std::int64_t, std::int64_t> sizes;
  std::int64_t num_free = 0;
  for (int order = 0; order < static_cast<int>(free_.size()); ++order) {
    for (const std::int64_t begin : free_[order]) {
      PM_CHECK(sizes.emplace(begin, std::int64_t{1} << order).second, "slot {} twice", begin);
      PM_CHECK(buddy_of(begin, order) < 0 || free_[order].count(buddy_of(begin, order)) == 0,
               "free buddies at {} and {}",
               begin,
               buddy_of(begin, order));
      num_free += std::int64_t{1} << order;
    }
  }
  for (const auto& [begin, order] : allocated_) {
    PM_CHECK(sizes.emplace(begin, std::int64_t{1} << order).second, "slot {} twice", begin);
  }
  std::int64_t next = 0;
  for (const auto& [begin, size] : sizes) {
    PM_CHECK(begin == next, "range at {} where one should begin at {}", begin, next);
    next += size;
  }
  PM_CHECK(next == capacity_ && num_free == num_free_, "{} of {} slots", next, capacity_);
}

}  // namespace pagemill
