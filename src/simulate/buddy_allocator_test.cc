#include "simulate/buddy_allocator.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>

namespace pagemill {
namespace {

TEST(BuddyAllocator, RoundsUpToAPowerOfTwoAtTheLowestAddress) {
  BuddyAllocator slots(64);
  const auto a = slots.allocate(5), b = slots.allocate(8), c = slots.allocate(17);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->begin, 0);
  EXPECT_EQ(a->size, 8);
  EXPECT_EQ(b->begin, 8);
  EXPECT_EQ(b->size, 8);
  EXPECT_EQ(c->begin, 32);
  EXPECT_EQ(c->size, 32);
  EXPECT_EQ(slots.num_free(), 16);
  EXPECT_FALSE(slots.allocate(17));
  slots.check_invariants();
}

TEST(BuddyAllocator, CoalescesWhenBothBuddiesAreFree) {
  BuddyAllocator slots(16);
  const auto a = slots.allocate(4), b = slots.allocate(4), c = slots.allocate(8);
  slots.free(*a);
  EXPECT_FALSE(slots.allocate(8)) << "its buddy is taken";
  slots.free(*c);
  slots.free(*b);
  EXPECT_TRUE(slots.allocate(16));
}

TEST(BuddyAllocator, CutsACapacityThatIsNoPowerOfTwo) {
  BuddyAllocator slots(15700);  // 8192 + 4096 + 2048 + 1024 + 256 + 64 + 16 + 4
  EXPECT_EQ(slots.largest(), 8192);
  int num_ranges = 0;
  while (slots.allocate(2048)) ++num_ranges;
  EXPECT_EQ(num_ranges, 7);
  EXPECT_EQ(slots.num_free(), 1024 + 256 + 64 + 16 + 4);
  EXPECT_FALSE(slots.allocate(1025));
  EXPECT_TRUE(slots.allocate(1024));
  slots.check_invariants();
}

TEST(BuddyAllocatorDeathTest, FreesOnlyWhatIsAllocated) {
  BuddyAllocator slots(16);
  const auto a = slots.allocate(4);
  slots.free(*a);
  EXPECT_DEATH(slots.free(*a), "not allocated");
}

// Ranges never overlap and hold what was asked for; a refusal means that no free range would do;
// once all is freed, everything has coalesced.
RC_GTEST_PROP(BuddyAllocator, HoldsItsInvariantsUnderRandomOperations, ()) {
  const auto capacity = *rc::gen::inRange<std::int64_t>(1, 3000);
  BuddyAllocator slots(capacity);
  std::vector<BuddyAllocator::Range> ranges;
  const auto num_operations = *rc::gen::inRange(0, 200);
  std::int64_t allocated = 0;
  for (int i = 0; i < num_operations; ++i) {
    if (ranges.empty() || *rc::gen::inRange(0, 3) > 0) {
      const auto wanted = *rc::gen::inRange<std::int64_t>(1, capacity + 10);
      const auto range = slots.allocate(wanted);
      if (range) {
        RC_ASSERT(range->size >= wanted && range->size < 2 * wanted);
        RC_ASSERT(range->begin >= 0 && range->begin + range->size <= capacity);
        allocated += range->size;
        ranges.push_back(*range);
      } else if (ranges.empty()) {
        RC_ASSERT(std::bit_ceil(static_cast<std::uint64_t>(wanted)) >
                  static_cast<std::uint64_t>(slots.largest()));
      }
    } else {
      const auto victim = *rc::gen::inRange<std::size_t>(0, ranges.size());
      slots.free(ranges[victim]);
      allocated -= ranges[victim].size;
      ranges.erase(ranges.begin() + static_cast<std::ptrdiff_t>(victim));
    }
    slots.check_invariants();
    RC_ASSERT(slots.num_free() == capacity - allocated);
  }
  for (const auto& range : ranges) slots.free(range);
  slots.check_invariants();
  RC_ASSERT(slots.num_free() == capacity);
  RC_ASSERT(slots.allocate(slots.largest()).has_value());
}

}  // namespace
}  // namespace pagemill
