#include "kv/sequence_blocks.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kv/prefix_hash.h"

namespace pagemill {
namespace {

std::vector<Digest> hashes_of(std::int32_t num_tokens, std::int32_t block_size) {
  std::vector<TokenId> tokens(num_tokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<Digest> hashes;
  extend_hashes(hashes, Digest(), tokens, block_size);
  return hashes;
}

std::int32_t needed(const BlockPool& pool,
                    const BlockLayout& layout,
                    std::vector<BlockGrowth> growths) {
  return blocks_needed(pool, layout, growths);
}

TEST(SequenceBlocks, AllocatesOnDemandAndGivesBack) {
  BlockPool pool(10, 4);
  const BlockLayout layout{4, {0}};
  std::vector<BlockWrite> copies;
  {
    SequenceBlocks blocks(pool, layout);
    EXPECT_EQ(needed(pool, layout, {{&blocks, 0, 5}}), 2);
    blocks.grow(0, 5, copies);
    EXPECT_EQ(blocks.table(0).size(), 2u);
    EXPECT_EQ(pool.stats().empty_slots, 3);
    EXPECT_EQ(needed(pool, layout, {{&blocks, 5, 3}}), 0);
    blocks.grow(5, 3, copies);
    EXPECT_EQ(pool.stats().empty_slots, 0);
    EXPECT_EQ(needed(pool, layout, {{&blocks, 8, 1}}), 1);
    SequenceBlocks moved(std::move(blocks));
    EXPECT_EQ(pool.stats().referenced, 2);
  }
  EXPECT_EQ(pool.stats().referenced, 0);
  EXPECT_TRUE(copies.empty());
}

TEST(SequenceBlocks, TheLastWriterKeepsASharedBlock) {
  BlockPool pool(20, 4);
  const BlockLayout layout{4, {0}};
  SequenceBlocks a(pool, layout), b(pool, layout), c(pool, layout);
  std::vector<BlockWrite> copies;
  a.grow(0, 6, copies);
  b.share(a);
  c.share(a);
  const BlockId head = a.table(0)[0], shared = a.table(0)[1];
  EXPECT_EQ(pool.stats().referenced, 2);
  EXPECT_EQ(pool.stats().empty_slots, 2);  // counted once
  EXPECT_EQ(needed(pool, layout, {{&a, 6, 1}}), 1);
  EXPECT_EQ(needed(pool, layout, {{&a, 6, 1}, {&b, 6, 1}, {&c, 6, 1}}), 2);
  EXPECT_EQ(needed(pool, layout, {{&a, 6, 3}, {&b, 6, 1}, {&c, 6, 1}}), 3);

  a.grow(6, 1, copies);
  b.grow(6, 1, copies);
  c.grow(6, 1, copies);
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[0].source, shared);
  EXPECT_EQ(copies[0].target, a.table(0)[1]);
  EXPECT_EQ(copies[1].target, b.table(0)[1]);
  EXPECT_EQ(c.table(0)[1], shared);
  EXPECT_EQ(pool.ref_count(head), 3);
  EXPECT_EQ(pool.stats().empty_slots, 3);
}

TEST(SequenceBlocks, APrefixIsFoundAndTailsAreEvictedFirst) {
  BlockPool pool(7, 4);
  const BlockLayout layout{4, {0}};
  const auto hashes = hashes_of(12, 4);
  std::vector<BlockWrite> copies;
  {
    SequenceBlocks blocks(pool, layout);
    blocks.grow(0, 12, copies);
    EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 0);
    blocks.publish(hashes);
    EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 3);
    EXPECT_EQ(SequenceBlocks::num_unreferenced(pool, layout, hashes), 0);
  }
  EXPECT_EQ(pool.stats().cached, 3);
  EXPECT_EQ(SequenceBlocks::num_unreferenced(pool, layout, hashes), 3);
  SequenceBlocks other(pool, layout);
  other.grow(0, 16, copies);  // three free blocks and one cached
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 2);
  SequenceBlocks hit(pool, layout);
  hit.adopt_prefix(std::span(hashes).first(2));
  EXPECT_EQ(pool.stats().cached, 0);
  EXPECT_EQ(hit.table(0).size(), 2u);
}

TEST(SequenceBlocks, AHitMustHoldInEveryGroup) {
  BlockPool pool(100, 4);
  const BlockLayout layout{4, {0, 6}};  // the second group sees 6 tokens: up to 3 blocks
  const auto hashes = hashes_of(24, 4);
  std::vector<BlockWrite> copies;
  SequenceBlocks blocks(pool, layout);
  blocks.grow(0, 24, copies);
  blocks.publish(hashes);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 6);
  blocks.drop_out_of_window(24, nullptr);  // token 24 sees 19..24: blocks 4 and 5 stay
  EXPECT_EQ(blocks.table(1)[3], kNullBlock);
  EXPECT_NE(blocks.table(1)[4], kNullBlock);
  EXPECT_NE(blocks.table(0)[0], kNullBlock);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 6);

  // Overwrite what was dropped: a shorter prefix no longer has its window, the full one does.
  const std::int32_t num_free = pool.num_available();
  const BlockLayout one_group{4, {0}};
  SequenceBlocks taker(pool, one_group);
  taker.grow(0, num_free * 4, copies);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 6);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, std::span(hashes).first(5)), 0);
  SequenceBlocks hit(pool, layout);
  hit.adopt_prefix(hashes);
  EXPECT_EQ(hit.table(1)[3], kNullBlock);
  EXPECT_EQ(hit.table(1)[4], blocks.table(1)[4]);
  EXPECT_EQ(hit.table(0)[0], blocks.table(0)[0]);
}

TEST(SequenceBlocks, DroppedBlocksStayPinnedWhileAStepReadsThem) {
  BlockPool pool(10, 2);
  const BlockLayout layout{2, {3}};
  SequenceBlocks blocks(pool, layout);
  std::vector<BlockWrite> copies;
  std::vector<BlockId> pins;
  blocks.grow(0, 8, copies);
  blocks.drop_out_of_window(8, &pins);  // token 8 sees 6, 7, 8
  EXPECT_EQ(pins.size(), 3u);
  EXPECT_EQ(pool.stats().pinned, 3);
  EXPECT_EQ(pool.stats().referenced, 1);
  for (const BlockId block : pins) pool.unpin(block);
  EXPECT_EQ(pool.stats().free, 8);
}

TEST(BlockLayout, BoundsWhatAWindowedSequenceHolds) {
  for (std::int32_t block_size : {1, 4, 16}) {
    for (std::int32_t window : {1, 2, 5, 16, 33}) {
      for (std::int32_t chunk : {1, 3, 16, 50}) {
        const BlockLayout layout{block_size, {window}};
        BlockPool pool(300, block_size);
        SequenceBlocks blocks(pool, layout);
        std::vector<BlockWrite> copies;
        std::int32_t most = 0;
        for (std::int32_t p = 0; p < 200; p += chunk) {
          blocks.drop_out_of_window(p, nullptr);
          blocks.grow(p, std::min(chunk, 200 - p), copies);
          most = std::max(most, pool.stats().referenced);
        }
        EXPECT_LE(most, layout.max_blocks_held(0, 200, chunk));
        EXPECT_GE(most + 2, layout.max_blocks_held(0, 200, chunk));
      }
    }
  }
}

}  // namespace
}  // namespace pagemill
