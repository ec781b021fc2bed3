#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace pagemill {
namespace {

struct Entry {
  Digest parent;
  std::vector<TokenId> tokens;
  auto operator<=>(const Entry& other) const {
    return std::pair(parent.bytes, tokens) <=> std::pair(other.parent.bytes, other.tokens);
  }
};

Digest digest_of(std::uint8_t value) {
  Digest digest;
  digest.bytes[31] = value;  // two parents differ in their last byte alone
  return digest;
}

std::int32_t common(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  std::int32_t n = 0;
  while (n < std::ssize(a) && n < std::ssize(b) && a[n] == b[n]) ++n;
  return n;
}

TEST(PrefixIndex, AgreesWithASearchThroughAll) {
  std::mt19937 random(5);
  std::uint64_t num_matches = 0, num_none = 0;
  for (int round = 0; round < 60; ++round) {
    const auto num_blocks = static_cast<std::int32_t>(2 + random() % 60);
    const auto block_size = static_cast<std::int32_t>(1 + random() % 6);
    PrefixIndex index(num_blocks, block_size);
    std::map<BlockId, Entry> entries;
    const auto draw = [&](std::size_t length) {
      Entry entry{digest_of(random() % 2), {}};
      while (entry.tokens.size() < length) entry.tokens.push_back(random() % 3);
      return entry;
    };
    for (int i = 0; i < 300; ++i) {
      const auto block = static_cast<BlockId>(1 + random() % (num_blocks - 1));
      if (entries.erase(block) > 0) {
        index.erase(block);
      } else {
        const Entry entry = draw(block_size);
        const bool is_known = std::any_of(entries.begin(), entries.end(), [&](const auto& e) {
          return e.second <= entry && e.second >= entry;
        });
        if (!is_known) {
          index.insert(block, entry.parent, entry.tokens);
          entries.emplace(block, entry);
        }
      }
      if (random() % 50 == 0) index.clear(), entries.clear();
      ASSERT_EQ(index.check_invariants(), std::ssize(entries));
      const Entry query = draw(random() % (2 * block_size + 1));
      std::int32_t longest = 0;
      for (const auto& [id, entry] : entries) {
        if (entry.parent == query.parent)
          longest = std::max(longest, common(entry.tokens, query.tokens));
      }
      const PrefixIndex::Match match = index.longest(query.parent, query.tokens);
      ASSERT_EQ(match.num_tokens, longest);
      if (longest == 0) {
        ASSERT_EQ(match.block, kNullBlock);
        ++num_none;
        continue;
      }
      ++num_matches;
      ASSERT_EQ(entries.at(match.block).parent, query.parent);
      ASSERT_EQ(common(entries.at(match.block).tokens, query.tokens), longest);
    }
  }
  EXPECT_GT(num_matches, 1000u);
  EXPECT_GT(num_none, 1000u);
}

// Keys in ascending order would make a list of a plain tree; a recursion that deep would show here.
TEST(PrefixIndex, StaysShallowForSortedKeys) {
  constexpr std::int32_t kNumBlocks = 200000;
  PrefixIndex index(kNumBlocks, 1);
  for (BlockId block = 1; block < kNumBlocks; ++block) {
    const TokenId token = block;
    index.insert(block, Digest(), {&token, 1});
  }
  EXPECT_EQ(index.check_invariants(), kNumBlocks - 1);
  const TokenId token = 77777;
  EXPECT_EQ(index.longest(Digest(), {&token, 1}).block, 77777);
}

}  // namespace
}  // namespace pagemill
