// BlockPool: who uses which KV block. Ids only; the bytes are the runner's.
//
// Every block but the null block is in one of four states:
//   free        count 0, contents worthless
//   cached      count 0, contents findable by hash until the block is allocated anew
//   referenced  count > 0: in so many block tables; findable as well once published
//   pinned      count 0, but a step in flight may still read or write it
// Free and cached blocks form one list whose order is the eviction order: free blocks first, then
// cached ones by least recent use. A caller that releases a sequence's blocks last to first makes
// tails go before heads, so what is left of a prefix stays usable.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "kv/prefix_index.h"

namespace pagemill {

enum class BlockState { kNull, kFree, kCached, kReferenced, kPinned };

struct BlockPoolStats {
  // free + cached + referenced + pinned + 1 (the null block) = total
  std::int32_t total = 0, free = 0, cached = 0, referenced = 0, pinned = 0;
  std::int64_t empty_slots = 0;  // in referenced blocks, each block once however often it is shared
  std::int64_t saved = 0;        // by sharing: references beyond a block's first, over all blocks
  std::uint64_t evictions = 0;   // cached blocks allocated anew, ever
};

// A cached block and the name of its contents.
struct CachedBlock {
  std::int32_t group = 0;
  BlockId block = 0;
  Digest digest;
};

// What a full block holds: `tokens` after the prefix named `parent`, together named `digest`.
struct BlockContent {
  Digest digest, parent;
  std::span<const TokenId> tokens;  // [block_size]
};

class BlockPool {
 public:
  // num_blocks >= 2, the null block included; block_size >= 1 slots.
  BlockPool(std::int32_t num_blocks, std::int32_t block_size);

  std::int32_t block_size() const { return block_size_; }
  // Blocks that allocate() can give, cached ones included.
  std::int32_t num_available() const { return stats_.free + stats_.cached; }
  const BlockPoolStats& stats() const { return stats_; }
  BlockState state(BlockId block) const;
  std::int32_t ref_count(BlockId block) const { return blocks_[block].refs; }
  std::int32_t pin_count(BlockId block) const { return blocks_[block].pins; }
  std::int32_t num_filled(BlockId block) const { return blocks_[block].filled; }
  bool published(BlockId block) const { return blocks_[block].published; }

  // The next block in eviction order, with count 1 and no filled slot. num_available() > 0.
  BlockId allocate();
  // From now on allocate() appends the cached blocks that it gives out, with what they held.
  void record_evictions(std::vector<CachedBlock>* evicted) { evicted_ = evicted; }
  // Every cached block, in eviction order. Linear in the pool.
  std::vector<CachedBlock> cached_blocks() const;
  // One table more or one less refers to the block (never the null block). ref() also revives a
  // cached block.
  void ref(BlockId block);
  void unref(BlockId block);
  // A step in flight uses the referenced or pinned block; pins nest.
  void pin(BlockId block);
  void unpin(BlockId block);
  // Slots [0, num_filled) of a referenced block are written or about to be; never shrinks.
  void fill(BlockId block, std::int32_t num_filled);

  // Makes the referenced, full block findable. False if the group has a block of that content
  // already (this one then stays unfindable) or the block is published.
  bool publish(BlockId block, std::int32_t group, const BlockContent& content);
  // kNullBlock if there is none.
  BlockId find(std::int32_t group, const Digest& digest) const;
  // Of group 0's findable blocks that follow `parent`, the one that begins with the most of
  // `tokens`.
  PrefixIndex::Match find_partial(const Digest& parent, std::span<const TokenId> tokens) const {
    return index_.longest(parent, tokens);
  }
  // The name of a findable block's content.
  const Digest& digest(BlockId block) const { return blocks_[block].digest; }

  // From now on no block is findable: cached ones are free. What was computed from their contents
  // must not be published either; it has an older epoch.
  void reset_cache();
  std::uint64_t epoch() const { return epoch_; }  // resets so far

  // Panics unless lists, index and counts agree. Linear: tests.
  void check_invariants() const;

 private:
  struct Block {
    std::int32_t refs = 0, pins = 0, filled = 0, group = 0;
    BlockId previous = 0, next = 0;  // the list; the null block is its head
    BlockId next_in_bucket = 0;
    bool published = false;
    Digest digest;
  };

  BlockId& bucket(std::int32_t group, const Digest& digest);
  BlockId bucket(std::int32_t group, const Digest& digest) const;
  std::size_t bucket_index(std::int32_t group, const Digest& digest) const;
  void unpublish(BlockId block);
  void unlink(BlockId block);          // leaves the list: a free or cached block
  void link_if_unused(BlockId block);  // joins it when nothing refers to the block any more
  std::int32_t num_empty(const Block& block) const { return block_size_ - block.filled; }

  std::int32_t block_size_;
  std::vector<Block> blocks_;
  std::vector<BlockId> buckets_;  // chains through next_in_bucket; a power of two of them
  PrefixIndex index_;             // group 0's published blocks
  std::uint64_t epoch_ = 0;
  BlockPoolStats stats_;
  std::vector<CachedBlock>* evicted_ = nullptr;
};

}  // namespace pagemill
