#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>

namespace pagemill {
namespace {

Digest digest_of(std::uint64_t value) {
  Digest digest;
  std::memcpy(digest.bytes.data(), &value, sizeof value);
  return digest;
}

// Content 7 is token 7 at the end of a block that follows parent 7 / 4.
struct Content {
  Content(std::uint64_t value, std::int32_t block_size)
      : tokens(block_size, static_cast<TokenId>(value % 4 / 2)) {
    tokens.back() = static_cast<TokenId>(value);
    content = {digest_of(value), digest_of(1000 + value / 4), tokens};
  }
  std::vector<TokenId> tokens;
  BlockContent content;
};

bool publish(BlockPool& pool, BlockId block, std::int32_t group, std::uint64_t value) {
  return pool.publish(block, group, Content(value, pool.block_size()).content);
}

TEST(BlockPool, FreeBlocksGoBeforeCachedOnesAndTailsBeforeHeads) {
  BlockPool pool(6, 4);
  std::vector<BlockId> blocks;
  blocks.reserve(5);
  for (int i = 0; i < 5; ++i) blocks.push_back(pool.allocate());
  EXPECT_EQ(pool.num_available(), 0);
  for (int i = 0; i < 3; ++i) {
    pool.fill(blocks[i], 4);
    EXPECT_TRUE(publish(pool, blocks[i], 0, i));
  }
  // A sequence of three cached blocks is released tail first, then two worthless blocks.
  for (int i = 2; i >= 0; --i) pool.unref(blocks[i]);
  pool.unref(blocks[3]);
  pool.unref(blocks[4]);
  EXPECT_EQ(pool.stats().cached, 3);
  EXPECT_EQ(pool.stats().free, 2);
  pool.check_invariants();

  const BlockId first = pool.allocate(), second = pool.allocate();
  EXPECT_EQ(std::min(first, second), std::min(blocks[3], blocks[4]));
  EXPECT_EQ(std::max(first, second), std::max(blocks[3], blocks[4]));
  EXPECT_EQ(pool.stats().evictions, 0u);
  EXPECT_EQ(pool.allocate(), blocks[2]);
  EXPECT_EQ(pool.find(0, digest_of(2)), kNullBlock);
  EXPECT_EQ(pool.find(0, digest_of(0)), blocks[0]);
  EXPECT_EQ(pool.stats().evictions, 1u);
  // A hit makes the head the most recently used.
  pool.ref(blocks[0]);
  pool.unref(blocks[0]);
  EXPECT_EQ(pool.allocate(), blocks[1]);
  EXPECT_EQ(pool.allocate(), blocks[0]);
  pool.check_invariants();
}

TEST(BlockPool, OneBlockPerContentAndGroup) {
  BlockPool pool(5, 1);
  const BlockId a = pool.allocate(), b = pool.allocate(), c = pool.allocate();
  for (const BlockId block : {a, b, c}) pool.fill(block, 1);
  EXPECT_TRUE(publish(pool, a, 0, 1));
  EXPECT_FALSE(publish(pool, a, 0, 2));
  EXPECT_FALSE(publish(pool, b, 0, 1));
  EXPECT_TRUE(publish(pool, c, 1, 1));
  EXPECT_EQ(pool.find(0, digest_of(1)), a);
  EXPECT_EQ(pool.find(1, digest_of(1)), c);
  EXPECT_EQ(pool.find(0, digest_of(2)), kNullBlock);
  pool.unref(b);
  EXPECT_EQ(pool.state(b), BlockState::kFree);
  pool.unref(a);
  EXPECT_EQ(pool.state(a), BlockState::kCached);
}

TEST(BlockPool, AResetMakesNothingFindableAndCachedBlocksFree) {
  BlockPool pool(6, 2);
  std::vector<BlockId> blocks;
  for (int i = 0; i < 4; ++i) {
    blocks.push_back(pool.allocate());
    pool.fill(blocks[i], 2);
    ASSERT_TRUE(publish(pool, blocks[i], 0, i));
  }
  pool.pin(blocks[1]);
  for (int i = 0; i < 3; ++i) pool.unref(blocks[i]);  // cached, pinned, cached; the last in use
  EXPECT_EQ(pool.stats().cached, 2);
  pool.reset_cache();
  pool.check_invariants();
  EXPECT_EQ(pool.stats().cached, 0);
  EXPECT_EQ(pool.stats().free, 3);
  for (int i = 0; i < 4; ++i) {
    const Content content(i, 2);
    EXPECT_EQ(pool.find(0, digest_of(i)), kNullBlock);
    EXPECT_EQ(pool.find_partial(content.content.parent, content.tokens).num_tokens, 0);
  }
  pool.unpin(blocks[1]);
  pool.unref(blocks[3]);
  EXPECT_EQ(pool.stats().free, 5);
  EXPECT_EQ(pool.stats().evictions, 0u);
}

TEST(BlockPool, APinnedBlockIsNotGivenAway) {
  BlockPool pool(2, 2);
  const BlockId block = pool.allocate();
  pool.pin(block);
  pool.unref(block);
  EXPECT_EQ(pool.state(block), BlockState::kPinned);
  EXPECT_EQ(pool.num_available(), 0);
  EXPECT_EQ(pool.stats().empty_slots, 0);
  pool.unpin(block);
  EXPECT_EQ(pool.state(block), BlockState::kFree);
  EXPECT_EQ(pool.allocate(), block);
  EXPECT_EQ(pool.stats().empty_slots, 2);
}

TEST(BlockPoolDeathTest, MisuseIsABug) {
  BlockPool pool(3, 2);
  const BlockId block = pool.allocate();
  EXPECT_DEATH(pool.unref(kNullBlock), "not referenced");
  EXPECT_DEATH(pool.ref(2), "holds nothing");
  EXPECT_DEATH(pool.unpin(block), "not pinned");
  EXPECT_DEATH(publish(pool, block, 0, 1), "not a full block");
  pool.allocate();
  EXPECT_DEATH(pool.allocate(), "no block is left");
}

// A plain model of the pool: what it must say after any operation.
struct ModelBlock {
  std::int32_t refs = 0, pins = 0, filled = 0;
  bool published = false;
  std::int32_t group = 0;
  std::uint64_t content = 0;
};

class RandomPool {
 public:
  explicit RandomPool(std::uint64_t seed)
      : random_(seed),
        num_blocks_(2 + random_() % 30),
        block_size_(1 + random_() % 16),
        pool_(num_blocks_, block_size_),
        model_(num_blocks_) {}

  void operate() {
    const BlockId block = 1 + random_() % (num_blocks_ - 1);
    ModelBlock& m = model_[block];
    if (random_() % 200 == 0) {
      pool_.reset_cache();
      ++epoch_;
      for (ModelBlock& any : model_) any.published = false;
      return compare();
    }
    switch (random_() % 8) {
      case 0:
      case 1:
        allocate();
        break;
      case 2:
        if (m.refs > 0 || m.published) pool_.ref(block), ++m.refs;
        break;
      case 3:
        if (m.refs > 0) pool_.unref(block), --m.refs;
        break;
      case 4:
        if (m.refs > 0 || m.pins > 0) pool_.pin(block), ++m.pins;
        break;
      case 5:
        if (m.pins > 0) pool_.unpin(block), --m.pins;
        break;
      case 6:
        fill(block);
        break;
      default:
        publish(block);
    }
    compare();
  }

 private:
  void allocate() {
    if (pool_.num_available() == 0) return;
    const BlockId block = pool_.allocate();
    ASSERT_TRUE(model_[block].refs == 0 && model_[block].pins == 0);
    if (model_[block].published) {
      ++evictions_;
      for (const ModelBlock& other : model_) {
        const bool is_free = &other != &model_[0] && other.refs + other.pins == 0;
        ASSERT_TRUE(!is_free || other.published) << "a cached block went before a free one";
      }
    }
    model_[block] = {.refs = 1};
  }

  void fill(BlockId block) {
    ModelBlock& m = model_[block];
    if (m.refs == 0) return;
    const std::int32_t filled = random_() % 3 == 0 ? block_size_ : random_() % (block_size_ + 1);
    pool_.fill(block, filled);
    m.filled = std::max(m.filled, filled);
  }

  void publish(BlockId block) {
    ModelBlock& m = model_[block];
    if (m.refs == 0 || m.filled < block_size_) return;
    const std::int32_t group = random_() % 2;
    const std::uint64_t content = random_() % 10;
    bool expected = !m.published;
    for (const ModelBlock& other : model_) {
      if (other.published && other.group == group && other.content == content) expected = false;
    }
    ASSERT_EQ(pagemill::publish(pool_, block, group, content), expected);
    if (expected) m.published = true, m.group = group, m.content = content;
  }

  void compare() {
    BlockPoolStats counted;
    counted.total = num_blocks_;
    std::map<std::pair<std::int32_t, std::uint64_t>, BlockId> index;
    for (BlockId block = 1; block < num_blocks_; ++block) {
      const ModelBlock& m = model_[block];
      ASSERT_EQ(pool_.ref_count(block), m.refs);
      ASSERT_EQ(pool_.pin_count(block), m.pins);
      ASSERT_EQ(pool_.published(block), m.published);
      if (m.published) index[{m.group, m.content}] = block;
      if (m.refs > 0) {
        ++counted.referenced;
        counted.empty_slots += block_size_ - m.filled;
        counted.saved += m.refs - 1;
      } else {
        ++(m.pins > 0 ? counted.pinned : m.published ? counted.cached : counted.free);
      }
    }
    const BlockPoolStats& stats = pool_.stats();
    ASSERT_EQ(stats.free, counted.free);
    ASSERT_EQ(stats.cached, counted.cached);
    ASSERT_EQ(stats.referenced, counted.referenced);
    ASSERT_EQ(stats.pinned, counted.pinned);
    ASSERT_EQ(stats.empty_slots, counted.empty_slots);
    ASSERT_EQ(stats.saved, counted.saved);
    ASSERT_EQ(stats.evictions, evictions_);
    ASSERT_EQ(pool_.epoch(), epoch_);
    ASSERT_EQ(stats.free + stats.cached + stats.referenced + stats.pinned + 1, stats.total);
    for (std::int32_t group = 0; group < 2; ++group) {
      for (std::uint64_t content = 0; content < 10; ++content) {
        const auto found = index.find({group, content});
        ASSERT_EQ(pool_.find(group, digest_of(content)),
                  found == index.end() ? kNullBlock : found->second);
        if (group > 0) continue;
        // A whole block is found as its own beginning; half of one if no other is nearer.
        const Content whole(content, block_size_);
        const auto match = pool_.find_partial(whole.content.parent, whole.tokens);
        ASSERT_EQ(match.num_tokens == block_size_, found != index.end());
        if (found != index.end()) {
          ASSERT_EQ(match.block, found->second);
        } else if (match.num_tokens > 0) {
          ASSERT_TRUE(model_[match.block].published && model_[match.block].group == 0);
          ASSERT_EQ(model_[match.block].content / 4, content / 4);
        }
      }
    }
    pool_.check_invariants();
  }

  std::mt19937_64 random_;
  std::int32_t num_blocks_, block_size_;
  BlockPool pool_;
  std::vector<ModelBlock> model_;
  std::uint64_t evictions_ = 0, epoch_ = 0;
};

TEST(BlockPool, RandomOperationsAgreeWithAPlainModel) {
  const char* scale = std::getenv("PM_SIM_SCALE");
  const int num_pools =
      100 * (scale != nullptr ? static_cast<int>(std::strtol(scale, nullptr, 10)) : 1);
  for (int seed = 0; seed < num_pools; ++seed) {
    SCOPED_TRACE(seed);
    RandomPool pool(seed);
    for (int i = 0; i < 1000; ++i) {
      pool.operate();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace pagemill
