#include "kv/prefix_index.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pagemill {
namespace {

// SplitMix64's finalizer: priorities that no key can predict keep the tree shallow.
std::uint64_t scramble(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

PrefixIndex::PrefixIndex(std::int32_t num_blocks, std::int32_t block_size)
    : block_size_(block_size),
      nodes_(num_blocks),
      tokens_(static_cast<std::size_t>(num_blocks) * block_size) {}

std::span<const TokenId> PrefixIndex::tokens_of(BlockId block) const {
  return std::span<const TokenId>(tokens_).subspan(static_cast<std::size_t>(block) * block_size_,
                                                   block_size_);
}

bool PrefixIndex::is_less(BlockId block,
                          const Digest& parent,
                          std::span<const TokenId> tokens) const {
  const Digest& own = nodes_[block].parent;
  const int order = std::memcmp(own.bytes.data(), parent.bytes.data(), own.bytes.size());
  if (order != 0) return order < 0;
  const auto mine = tokens_of(block);
  return std::lexicographical_compare(mine.begin(), mine.end(), tokens.begin(), tokens.end());
}

std::int32_t PrefixIndex::common_prefix(BlockId block,
                                        const Digest& parent,
                                        std::span<const TokenId> tokens) const {
  if (block == kNullBlock || nodes_[block].parent != parent) return 0;
  const auto mine = tokens_of(block);
  const auto end = std::mismatch(mine.begin(), mine.end(), tokens.begin(), tokens.end()).first;
  return static_cast<std::int32_t>(end - mine.begin());
}

void PrefixIndex::insert(BlockId block, const Digest& parent, std::span<const TokenId> tokens) {
  PM_CHECK(static_cast<std::int32_t>(tokens.size()) == block_size_, "{} tokens", tokens.size());
  Node& node = nodes_[block];
  node.parent = parent;
  node.priority = scramble(++num_inserted_);
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + std::ptrdiff_t{block} * block_size_);
  BlockId* link = &root_;
  while (*link != kNullBlock && nodes_[*link].priority >= node.priority) {
    link = is_less(*link, parent, tokens) ? &nodes_[*link].right : &nodes_[*link].left;
  }
  // What stood here is split at the key into the new node's subtrees.
  BlockId rest = *link;
  *link = block;
  BlockId *less = &node.left, *more = &node.right;
  while (rest != kNullBlock) {
    if (is_less(rest, parent, tokens)) {
      *less = rest;
      less = &nodes_[rest].right;
      rest = *less;
    } else {
      *more = rest;
      more = &nodes_[rest].left;
      rest = *more;
    }
  }
  *less = *more = kNullBlock;
}

void PrefixIndex::erase(BlockId block) {
  const Node& node = nodes_[block];
  BlockId* link = &root_;
  while (*link != block) {
    PM_CHECK(*link != kNullBlock, "block {} is not in the index", block);
    link =
        is_less(*link, node.parent, tokens_of(block)) ? &nodes_[*link].right : &nodes_[*link].left;
  }
  // Its subtrees are merged in its place.
  BlockId less = node.left, more = node.right;
  while (less != kNullBlock && more != kNullBlock) {
    if (nodes_[less].priority >= nodes_[more].priority) {
      *link = less;
      link = &nodes_[less].right;
      less = *link;
    } else {
      *link = more;
      link = &nodes_[more].left;
      more = *link;
    }
  }
  *link = less != kNullBlock ? less : more;
}

PrefixIndex::Match PrefixIndex::longest(const Digest& parent,
                                        std::span<const TokenId> tokens) const {
  BlockId before = kNullBlock, after = kNullBlock;
  for (BlockId block = root_; block != kNullBlock;) {
    const bool less = is_less(block, parent, tokens);
    (less ? before : after) = block;
    block = less ? nodes_[block].right : nodes_[block].left;
  }
  const std::int32_t with_before = common_prefix(before, parent, tokens);
  const std::int32_t with_after = common_prefix(after, parent, tokens);
  if (with_before == 0 && with_after == 0) return {};
  return with_before > with_after ? Match{before, with_before} : Match{after, with_after};
}

std::int32_t PrefixIndex::check_subtree(BlockId block, BlockId& previous) const {
  if (block == kNullBlock) return 0;
  const Node& node = nodes_[block];
  const std::int32_t num_left = check_subtree(node.left, previous);
  PM_CHECK(previous == kNullBlock || is_less(previous, node.parent, tokens_of(block)),
           "blocks {} and {} are out of order",
           previous,
           block);
  previous = block;
  for (const BlockId child : {node.left, node.right}) {
    PM_CHECK(child == kNullBlock || nodes_[child].priority <= node.priority);
  }
  return num_left + 1 + check_subtree(node.right, previous);
}

std::int32_t PrefixIndex::check_invariants() const {
  BlockId previous = kNullBlock;
  return check_subtree(root_, previous);
}

}  // namespace pagemill
