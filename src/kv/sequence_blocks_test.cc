#include "kv/sequence_blocks.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kv/prefix_hash.h"

namespace pagemill {
namespace {

std::vector<TokenId> tokens_up_to(std::int32_t num_tokens) {
  std::vector<TokenId> tokens(num_tokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

std::vector<Digest> hashes_of(const std::vector<TokenId>& tokens, std::int32_t block_size) {
  std::vector<Digest> hashes;
  extend_hashes(hashes, Digest(), tokens, block_size);
  return hashes;
}

std::vector<Digest> hashes_of(std::int32_t num_tokens, std::int32_t block_size) {
  return hashes_of(tokens_up_to(num_tokens), block_size);
}

// The hit that a request of these tokens has, and its adoption by `blocks`.
struct Adoption {
  Adoption(SequenceBlocks& blocks,
           BlockPool& pool,
           const BlockLayout& layout,
           const std::vector<TokenId>& tokens,
           const Digest& root = Digest()) {
    std::vector<Digest> hashes;
    extend_hashes(hashes, root, tokens, layout.block_size);
    const PrefixHit hit = SequenceBlocks::find_hit(pool, layout, root, hashes, tokens);
    num_tokens = hit.num_tokens(layout);
    num_taken = SequenceBlocks::num_unreferenced(pool, layout, hit);
    blocks.adopt(hit, copies, pins);
  }
  std::int32_t num_tokens = 0, num_taken = 0;
  std::vector<BlockWrite> copies;
  std::vector<BlockId> pins;
};

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
    blocks.publish(Digest(), hashes, tokens_up_to(12));
    EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 3);
    EXPECT_EQ(SequenceBlocks::num_unreferenced(pool, layout, {hashes, 0, {}}), 0);
  }
  EXPECT_EQ(pool.stats().cached, 3);
  EXPECT_EQ(SequenceBlocks::num_unreferenced(pool, layout, {hashes, 0, {}}), 3);
  SequenceBlocks other(pool, layout);
  other.grow(0, 16, copies);  // three free blocks and one cached
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 2);
  SequenceBlocks hit(pool, layout);
  const Adoption adoption(hit, pool, layout, tokens_up_to(12));
  EXPECT_EQ(adoption.num_tokens, 8);
  EXPECT_TRUE(adoption.copies.empty());
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
  blocks.publish(Digest(), hashes, tokens_up_to(24));
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
  EXPECT_EQ(Adoption(hit, pool, layout, tokens_up_to(24)).num_tokens, 24);
  EXPECT_EQ(hit.table(1)[3], kNullBlock);
  EXPECT_EQ(hit.table(1)[4], blocks.table(1)[4]);
  EXPECT_EQ(hit.table(0)[0], blocks.table(0)[0]);
}

TEST(SequenceBlocks, PartOfABlockIsCopiedFromTheOneWithMostInCommon) {
  BlockPool pool(10, 4);
  const BlockLayout layout{4, {0}};
  std::vector<BlockWrite> none;
  const auto run = [&](const std::vector<TokenId>& tokens, const Digest& root = Digest()) {
    SequenceBlocks blocks(pool, layout);
    blocks.grow(0, static_cast<std::int32_t>(tokens.size()), none);
    std::vector<Digest> hashes;
    extend_hashes(hashes, root, tokens, 4);
    blocks.publish(root, hashes, tokens);
    return blocks.table(0).back();
  };
  run({0, 1, 2, 3, 4, 0, 0, 0});
  const BlockId nearest = run({0, 1, 2, 3, 4, 5, 6, 0});
  run({0, 1, 2, 3, 4, 5, 7, 7});
  Digest other;
  other.bytes[0] = 1;
  run({0, 1, 2, 3, 4, 5, 6, 7}, other);

  SequenceBlocks blocks(pool, layout);
  {
    const Adoption adoption(blocks, pool, layout, {0, 1, 2, 3, 4, 5, 6, 7, 8});
    EXPECT_EQ(adoption.num_tokens, 7);
    EXPECT_EQ(adoption.num_taken, 2);  // the head and the source
    ASSERT_EQ(adoption.copies.size(), 1u);
    EXPECT_EQ(adoption.copies[0].source, nearest);
    EXPECT_EQ(adoption.copies[0].target, blocks.table(0)[1]);
    EXPECT_EQ(pool.num_filled(blocks.table(0)[1]), 3);
    EXPECT_EQ(adoption.pins, std::vector<BlockId>{nearest});
    EXPECT_EQ(pool.state(nearest), BlockState::kPinned);
    pool.unpin(nearest);
    EXPECT_EQ(pool.state(nearest), BlockState::kCached);
  }
  // Written at once, without another copy; and what it computes is findable in turn.
  blocks.grow(7, 2, none);
  EXPECT_TRUE(none.empty());
  const std::vector<TokenId> tokens = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  const auto hashes = hashes_of(tokens, 4);
  blocks.publish(Digest(), hashes, tokens);
  EXPECT_EQ(pool.find(0, hashes[1]), blocks.table(0)[1]);
  // No token in common, or another tenant's.
  SequenceBlocks apart(pool, layout);
  EXPECT_EQ(Adoption(apart, pool, layout, {9, 1, 2, 3, 4}).num_tokens, 0);
  other.bytes[0] = 2;
  EXPECT_EQ(Adoption(apart, pool, layout, {0, 1, 2, 3, 4}, other).num_tokens, 0);
}

TEST(SequenceBlocks, TheSourceOfACopyIsNotEvictedForIt) {
  BlockPool pool(4, 4);
  const BlockLayout layout{4, {0}};
  std::vector<BlockWrite> none;
  {
    SequenceBlocks blocks(pool, layout);
    blocks.grow(0, 12, none);
    blocks.publish(Digest(), hashes_of(12, 4), tokens_up_to(12));
  }
  ASSERT_EQ(pool.stats().cached, 3);
  SequenceBlocks blocks(pool, layout);
  const Adoption adoption(blocks, pool, layout, {0, 1, 2, 3, 4, 5, 0});
  EXPECT_EQ(adoption.num_tokens, 6);
  ASSERT_EQ(adoption.copies.size(), 1u);
  EXPECT_EQ(pool.find(0, hashes_of(8, 4)[1]), adoption.copies[0].source);
  EXPECT_NE(adoption.copies[0].source, adoption.copies[0].target);
  EXPECT_EQ(pool.num_available(), 0);
  pool.unpin(adoption.pins[0]);
}

TEST(SequenceBlocks, PartOfABlockMustBeInEveryGroup) {
  BlockPool pool(20, 4);
  const BlockLayout layout{4, {0, 3}};
  std::vector<BlockWrite> none;
  const auto tokens = tokens_up_to(8);
  const auto hashes = hashes_of(tokens, 4);
  SequenceBlocks blocks(pool, layout);
  blocks.grow(0, 8, none);
  blocks.publish(Digest(), hashes, tokens);
  {
    SequenceBlocks hit(pool, layout);
    const Adoption adoption(hit, pool, layout, {0, 1, 2, 3, 4, 5, 9});
    EXPECT_EQ(adoption.num_tokens, 6);
    ASSERT_EQ(adoption.copies.size(), 2u);
    EXPECT_EQ(adoption.copies[1].source, blocks.table(1)[1]);
    EXPECT_EQ(hit.table(1)[0], kNullBlock);  // token 6 sees 4, 5, 6
    for (const BlockId block : adoption.pins) pool.unpin(block);
  }
  blocks.drop_out_of_window(12, nullptr);
  const BlockLayout one_group{4, {0}};
  SequenceBlocks taker(pool, one_group);
  taker.grow(0, pool.num_available() * 4, none);
  taker.release(nullptr);
  SequenceBlocks hit(pool, layout);
  EXPECT_EQ(Adoption(hit, pool, layout, {0, 1, 2, 3, 4, 5, 9}).num_tokens, 0);
}

TEST(SequenceBlocks, WhatBeganBeforeAResetIsNeverFound) {
  BlockPool pool(20, 4);
  const BlockLayout layout{4, {0}};
  std::vector<BlockWrite> none;
  const auto tokens = tokens_up_to(16);
  const auto hashes = hashes_of(tokens, 4);
  SequenceBlocks old(pool, layout), child(pool, layout);
  old.grow(0, 10, none);
  old.publish(Digest(), std::span(hashes).first(2), tokens);
  pool.reset_cache();
  child.share(old);
  child.grow(10, 6, none);
  child.publish(Digest(), hashes, tokens);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 0);
  EXPECT_EQ(pool.find(0, hashes[3]), kNullBlock);
  // What begins afterwards is.
  child.release(nullptr);
  child.grow(0, 16, none);
  child.publish(Digest(), hashes, tokens);
  EXPECT_EQ(SequenceBlocks::find_prefix(pool, layout, hashes), 4);
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
