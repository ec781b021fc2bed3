#include "kv/tier_index.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

namespace pagemill {
namespace {

Digest digest_of(int value) {
  Digest digest;
  digest.bytes[0] = static_cast<std::uint8_t>(value);
  return digest;
}

TEST(TierIndex, TheLeastRecentlyUsedGoesFirst) {
  TierIndex index(300, {100});
  std::vector<TierIndex::Key> forgotten;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(index.insert(0, digest_of(i), forgotten));
  EXPECT_TRUE(forgotten.empty());
  index.touch(0, digest_of(0));
  EXPECT_TRUE(index.insert(0, digest_of(3), forgotten));
  ASSERT_EQ(forgotten.size(), 1u);
  EXPECT_EQ(forgotten[0].digest, digest_of(1));
  EXPECT_TRUE(index.contains(0, digest_of(0)));
  EXPECT_FALSE(index.contains(0, digest_of(1)));
  EXPECT_FALSE(index.insert(0, digest_of(3), forgotten)) << "it has it";
}

TEST(TierIndex, ABlockLargerThanAllIsRefused) {
  TierIndex index(99, {100});
  std::vector<TierIndex::Key> forgotten;
  EXPECT_FALSE(index.insert(0, digest_of(1), forgotten));
  EXPECT_EQ(index.num_blocks(), 0);
}

TEST(TierIndex, RandomOperationsAgreeWithAPlainList) {
  EXPECT_TRUE(rc::check("as a vector in order of use", [] {
    const auto capacity = *rc::gen::inRange<std::int64_t>(0, 1000);
    const std::vector<std::int64_t> sizes = {100, 30};
    TierIndex index(capacity, sizes);
    std::vector<TierIndex::Key> plain, expected_gone, gone;
    std::int64_t bytes = 0;
    const auto drop = [&](std::size_t i) {
      bytes -= sizes[plain[i].group];
      plain.erase(plain.begin() + static_cast<std::ptrdiff_t>(i));
    };
    for (int step = 0; step < 200; ++step) {
      const auto group = *rc::gen::inRange(0, 2);
      const Digest digest = digest_of(*rc::gen::inRange(0, 20));
      const TierIndex::Key key{group, digest};
      const auto place =
          static_cast<std::size_t>(std::find(plain.begin(), plain.end(), key) - plain.begin());
      const bool has = place < plain.size();
      RC_ASSERT(index.contains(group, digest) == has);
      switch (*rc::gen::inRange(0, 5)) {
        case 0:
          index.erase(group, digest);
          if (has) drop(place);
          break;
        case 1:
          index.touch(group, digest);
          if (has)
            std::rotate(plain.begin() + static_cast<std::ptrdiff_t>(place),
                        plain.begin() + static_cast<std::ptrdiff_t>(place) + 1,
                        plain.end());
          break;
        default: {
          const bool fits = !has && sizes[group] <= capacity;
          RC_ASSERT(index.insert(group, digest, gone) == fits);
          while (fits && bytes + sizes[group] > capacity) {
            expected_gone.push_back(plain.front());
            drop(0);
          }
          if (fits) plain.push_back(key), bytes += sizes[group];
        }
      }
      index.check_invariants();
      RC_ASSERT(index.bytes() == bytes && gone == expected_gone);
    }
    gone.clear();
    index.clear(gone);
    RC_ASSERT(gone == plain && index.bytes() == 0);
  }));
}

}  // namespace
}  // namespace pagemill
