// PrefixIndex: which full block, of those that follow a given prefix, begins with the most tokens
// of a given run.
//
// A treap over (parent digest, tokens): the block that shares the longest beginning with a run is a
// neighbour of the place where the run would stand. O(log blocks), however many blocks follow one
// prefix (every first block of a prompt follows the same root). Memory is set aside at the start.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"

namespace pagemill {

class PrefixIndex {
 public:
  // Blocks 1..num_blocks-1 may be in it.
  PrefixIndex(std::int32_t num_blocks, std::int32_t block_size);

  // The block is not in it, nor any other of this content. tokens: [block_size].
  void insert(BlockId block, const Digest& parent, std::span<const TokenId> tokens);
  // The block is in it.
  void erase(BlockId block);
  void clear() { root_ = kNullBlock; }

  struct Match {
    BlockId block = kNullBlock;
    std::int32_t num_tokens = 0;  // 0: no block begins with the run's first token
  };
  // Of the blocks that follow `parent`, the one with the longest common prefix with `tokens`.
  Match longest(const Digest& parent, std::span<const TokenId> tokens) const;

  // Panics unless keys and priorities are in order; the number of blocks. Linear: tests.
  std::int32_t check_invariants() const;

 private:
  struct Node {
    Digest parent;
    std::uint64_t priority = 0;  // a node's is not below its children's
    BlockId left = kNullBlock, right = kNullBlock;
  };

  std::span<const TokenId> tokens_of(BlockId block) const;
  std::int32_t common_prefix(BlockId block,
                             const Digest& parent,
                             std::span<const TokenId> tokens) const;
  // Whether the block's key is less than (parent, tokens); a prefix is less than what it begins.
  bool is_less(BlockId block, const Digest& parent, std::span<const TokenId> tokens) const;
  std::int32_t check_subtree(BlockId block, BlockId& previous) const;

  std::int32_t block_size_;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;  // [num_blocks][block_size]
  BlockId root_ = kNullBlock;
  std::uint64_t num_inserted_ = 0;
};

}  // namespace pagemill
