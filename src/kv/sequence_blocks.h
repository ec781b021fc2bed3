// SequenceBlocks: the block tables of one sequence, one per KV group, and what it owns of the pool.
//
// Entry i of a table holds tokens [i*block_size, (i+1)*block_size). Blocks are allocated on demand,
// may be shared with forks and with the prefix cache, and are copied before a write while shared. A
// windowed group gives back the blocks that no later token sees; their entries become kNullBlock.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "kv/block_pool.h"
#include "kv/kv_spec.h"

namespace pagemill {

struct BlockLayout {
  std::int32_t block_size = 16;
  std::vector<std::int32_t> windows;  // [num_groups]: tokens seen, or 0 if all are

  std::int32_t num_groups() const { return static_cast<std::int32_t>(windows.size()); }
  std::int32_t num_blocks(std::int32_t num_tokens) const {
    return (num_tokens + block_size - 1) / block_size;
  }
  // The first block that token `position` or a later one sees in the group.
  std::int32_t first_live_block(std::int32_t group, std::int32_t position) const;
  // The most blocks of the group that one sequence of num_tokens holds at once, while it computes
  // at most max_chunk tokens a step.
  std::int32_t max_blocks_held(std::int32_t group,
                               std::int32_t num_tokens,
                               std::int32_t max_chunk) const;
};

// A block to be copied before it is written to.
struct BlockWrite {
  std::int32_t group = 0;
  BlockId source = 0, target = 0;
};

// What the cache holds of a sequence's first tokens: whole blocks, and the first tokens of a
// block that follows them, which must be copied, since the sequence goes on differently.
struct PrefixHit {
  std::span<const Digest> blocks;
  std::int32_t num_copied = 0;  // tokens, 0..block_size
  Digest source;                // the block to copy, if num_copied > 0

  std::int32_t num_blocks() const { return static_cast<std::int32_t>(blocks.size()); }
  std::int32_t num_tokens(const BlockLayout& layout) const {
    return num_blocks() * layout.block_size + num_copied;
  }
};

class SequenceBlocks {
 public:
  // Both must outlive this.
  SequenceBlocks(BlockPool& pool, const BlockLayout& layout);
  SequenceBlocks(SequenceBlocks&& other) noexcept;
  SequenceBlocks& operator=(SequenceBlocks&&) = delete;
  ~SequenceBlocks() { release(nullptr); }

  std::span<const BlockId> table(std::int32_t group) const { return tables_[group]; }
  // Refers to the same blocks as `other` does. The tables are empty.
  void share(const SequenceBlocks& other);

  // The longest prefix, in blocks, that the cache holds in every group (in a windowed group: what a
  // token after the prefix sees of it).
  static std::int32_t find_prefix(const BlockPool& pool,
                                  const BlockLayout& layout,
                                  std::span<const Digest> hashes);
  // That prefix of `tokens`, and by copy what else of them one more block of every group begins
  // with: of several such blocks the one that group 0 has most in common with. hashes: of the full
  // blocks of `tokens`, `root` being the first one's parent.
  static PrefixHit find_hit(const BlockPool& pool,
                            const BlockLayout& layout,
                            const Digest& root,
                            std::span<const Digest> hashes,
                            std::span<const TokenId> tokens);
  // How many of the hit's blocks nobody refers to: adopting it takes so many from the pool's
  // num_available(), beside those that it copies to.
  static std::int32_t num_unreferenced(const BlockPool& pool,
                                       const BlockLayout& layout,
                                       const PrefixHit& hit);
  // Refers to the blocks of a hit that find_hit() found, and appends a copy for each group if there
  // is something to copy; each source is pinned and listed until the copy is done. The tables are
  // empty; blocks must be available.
  void adopt(const PrefixHit& hit, std::vector<BlockWrite>& copies, std::vector<BlockId>& pins);

  // Gives back what no token from `position` on sees. With `pins`, steps in flight may still read
  // the blocks: each is pinned and listed.
  void drop_out_of_window(std::int32_t position, std::vector<BlockId>* pins);
  // Makes the slots of tokens [num_computed, num_computed + num_new) writable: allocates, and
  // appends a copy for each shared block. blocks_needed() of them must be available.
  void grow(std::int32_t num_computed, std::int32_t num_new, std::vector<BlockWrite>& copies);
  // Gives back all but the first num_blocks of each table; no step in flight uses the others.
  void truncate(std::int32_t num_blocks);
  // Makes the full blocks of tokens [0, hashes.size() * block_size), all computed, findable, unless
  // the cache was reset since the first was. `root` and `tokens` as for find_hit().
  void publish(const Digest& root, std::span<const Digest> hashes, std::span<const TokenId> tokens);
  // Gives everything back, tails first; `pins` as above.
  void release(std::vector<BlockId>* pins);

 private:
  void give_back(BlockId block, std::vector<BlockId>* pins);

  BlockPool* pool_;
  const BlockLayout* layout_;
  std::vector<std::vector<BlockId>> tables_;  // [num_groups]
  std::vector<std::int32_t> num_dropped_;     // [num_groups] leading null entries
  std::int32_t num_published_ = 0;            // blocks offered to the cache so far
  std::uint64_t epoch_;                       // the pool's when the tables were begun
};

struct BlockGrowth {
  const SequenceBlocks* blocks = nullptr;
  std::int32_t num_computed = 0, num_new = 0;
};

// Exactly how many blocks the growths allocate if done in this order, copies of shared blocks
// included (the last of several writers of a block that nobody else holds keeps it).
std::int32_t blocks_needed(const BlockPool& pool,
                           const BlockLayout& layout,
                           std::span<const BlockGrowth> growths);

}  // namespace pagemill
