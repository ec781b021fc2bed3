// BuddyAllocator: contiguous ranges of slots whose sizes are powers of two (Knowlton 1965), as the
// contiguous baselines of Kwon et al. (SOSP 2023) place their reservations.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace pagemill {

class BuddyAllocator {
 public:
  // Any capacity >= 1: it is cut into the powers of two that add up to it, largest first. Ranges of
  // different cuts never coalesce.
  explicit BuddyAllocator(std::int64_t capacity);

  struct Range {
    std::int64_t begin = 0, size = 0;  // size: a power of two
  };
  // The smallest sufficient range, at the lowest address; nothing where no free range is large
  // enough. num_slots >= 1.
  std::optional<Range> allocate(std::int64_t num_slots);
  void free(const Range& range);  // as allocate() gave it

  std::int64_t capacity() const { return capacity_; }
  std::int64_t num_free() const { return num_free_; }
  std::int64_t largest() const { return std::int64_t{1} << (free_.size() - 1); }
  // Panics unless free and allocated ranges are disjoint, cover the capacity, and no two free ones
  // are buddies. Tests.
  void check_invariants() const;

 private:
  std::int64_t buddy_of(std::int64_t begin, int order) const;

  std::int64_t capacity_, num_free_;
  std::vector<std::set<std::int64_t>> free_;  // [order]: where free ranges begin
  std::map<std::int64_t, int> allocated_;     // begin -> order
  std::vector<std::int64_t> cut_begin_;       // [order]: where the capacity's cut begins, or -1
};

}  // namespace pagemill
