#include "kv/block_pool.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace pagemill {

BlockPool::BlockPool(std::int32_t num_blocks, std::int32_t block_size)
    : block_size_(block_size),
      blocks_(num_blocks),
      buckets_(std::bit_ceil(static_cast<std::size_t>(num_blocks)), kNullBlock),
      index_(num_blocks, block_size) {
  PM_CHECK(num_blocks >= 2 && block_size >= 1, "{} blocks of {}", num_blocks, block_size);
  stats_.total = num_blocks;
  stats_.free = num_blocks - 1;
  for (BlockId block = 0; block < num_blocks; ++block) {
    blocks_[block].previous = block == 0 ? num_blocks - 1 : block - 1;
    blocks_[block].next = block == num_blocks - 1 ? 0 : block + 1;
  }
}

BlockState BlockPool::state(BlockId block) const {
  const Block& b = blocks_[block];
  if (block == kNullBlock) return BlockState::kNull;
  if (b.refs > 0) return BlockState::kReferenced;
  if (b.pins > 0) return BlockState::kPinned;
  return b.published ? BlockState::kCached : BlockState::kFree;
}

BlockId BlockPool::allocate() {
  const BlockId block = blocks_[kNullBlock].next;
  PM_CHECK(block != kNullBlock, "no block is left");
  unlink(block);
  if (blocks_[block].published) {
    if (evicted_ != nullptr) {
      evicted_->push_back({blocks_[block].group, block, blocks_[block].digest});
    }
    unpublish(block);
    ++stats_.evictions;
  }
  blocks_[block].refs = 1;
  blocks_[block].filled = 0;
  ++stats_.referenced;
  stats_.empty_slots += block_size_;
  return block;
}

std::vector<CachedBlock> BlockPool::cached_blocks() const {
  std::vector<CachedBlock> cached;
  cached.reserve(stats_.cached);
  for (BlockId block = blocks_[kNullBlock].next; block != kNullBlock; block = blocks_[block].next) {
    if (blocks_[block].published) {
      cached.push_back({blocks_[block].group, block, blocks_[block].digest});
    }
  }
  return cached;
}

void BlockPool::ref(BlockId block) {
  Block& b = blocks_[block];
  PM_CHECK(block != kNullBlock && (b.refs > 0 || b.published), "block {} holds nothing", block);
  if (b.refs++ > 0) {
    ++stats_.saved;
    return;
  }
  if (b.pins > 0) {
    --stats_.pinned;
  } else {
    unlink(block);
  }
  ++stats_.referenced;
  stats_.empty_slots += num_empty(b);
}

void BlockPool::unref(BlockId block) {
  Block& b = blocks_[block];
  PM_CHECK(block != kNullBlock && b.refs > 0, "block {} is not referenced", block);
  if (--b.refs > 0) {
    --stats_.saved;
    return;
  }
  --stats_.referenced;
  stats_.empty_slots -= num_empty(b);
  if (b.pins > 0) ++stats_.pinned;
  link_if_unused(block);
}

void BlockPool::pin(BlockId block) {
  Block& b = blocks_[block];
  PM_CHECK(block != kNullBlock && (b.refs > 0 || b.pins > 0), "block {} is not in use", block);
  ++b.pins;
}

void BlockPool::unpin(BlockId block) {
  Block& b = blocks_[block];
  PM_CHECK(b.pins > 0, "block {} is not pinned", block);
  if (--b.pins > 0 || b.refs > 0) return;
  --stats_.pinned;
  link_if_unused(block);
}

void BlockPool::fill(BlockId block, std::int32_t num_filled) {
  Block& b = blocks_[block];
  PM_CHECK(b.refs > 0 && num_filled <= block_size_, "block {}, {} slots", block, num_filled);
  if (num_filled <= b.filled) return;
  stats_.empty_slots -= num_filled - b.filled;
  b.filled = num_filled;
}

bool BlockPool::publish(BlockId block, std::int32_t group, const BlockContent& content) {
  Block& b = blocks_[block];
  PM_CHECK(b.refs > 0 && b.filled == block_size_, "block {} is not a full block in use", block);
  if (b.published || find(group, content.digest) != kNullBlock) return false;
  b.published = true;
  b.group = group;
  b.digest = content.digest;
  BlockId& head = bucket(group, content.digest);
  b.next_in_bucket = head;
  head = block;
  if (group == 0) index_.insert(block, content.parent, content.tokens);
  return true;
}

BlockId BlockPool::find(std::int32_t group, const Digest& digest) const {
  BlockId block = bucket(group, digest);
  while (block != kNullBlock &&
         (blocks_[block].group != group || blocks_[block].digest != digest)) {
    block = blocks_[block].next_in_bucket;
  }
  return block;
}

std::size_t BlockPool::bucket_index(std::int32_t group, const Digest& digest) const {
  return (digest.prefix64() + static_cast<std::uint64_t>(group) * 0x9e3779b97f4a7c15) &
         (buckets_.size() - 1);
}

BlockId& BlockPool::bucket(std::int32_t group, const Digest& digest) {
  return buckets_[bucket_index(group, digest)];
}

BlockId BlockPool::bucket(std::int32_t group, const Digest& digest) const {
  return buckets_[bucket_index(group, digest)];
}

void BlockPool::unpublish(BlockId block) {
  Block& b = blocks_[block];
  BlockId* link = &bucket(b.group, b.digest);
  while (*link != block) link = &blocks_[*link].next_in_bucket;
  *link = b.next_in_bucket;
  b.published = false;
  if (b.group == 0) index_.erase(block);
}

void BlockPool::reset_cache() {
  for (Block& block : blocks_) block.published = false;
  std::fill(buckets_.begin(), buckets_.end(), kNullBlock);
  index_.clear();
  stats_.free += stats_.cached;
  stats_.cached = 0;
  ++epoch_;
}

void BlockPool::unlink(BlockId block) {
  Block& b = blocks_[block];
  blocks_[b.previous].next = b.next;
  blocks_[b.next].previous = b.previous;
  --(b.published ? stats_.cached : stats_.free);
}

void BlockPool::link_if_unused(BlockId block) {
  Block& b = blocks_[block];
  if (b.refs > 0 || b.pins > 0) return;
  // A cached block waits at the back; a worthless one is the next to be used.
  const BlockId previous = b.published ? blocks_[kNullBlock].previous : kNullBlock;
  b.previous = previous;
  b.next = blocks_[previous].next;
  blocks_[b.next].previous = block;
  blocks_[previous].next = block;
  ++(b.published ? stats_.cached : stats_.free);
}

void BlockPool::check_invariants() const {
  BlockPoolStats counted;
  counted.total = static_cast<std::int32_t>(blocks_.size());
  std::int32_t num_published = 0, num_of_group_0 = 0;
  for (BlockId block = 1; block < counted.total; ++block) {
    const Block& b = blocks_[block];
    PM_CHECK(b.refs >= 0 && b.pins >= 0 && b.filled >= 0 && b.filled <= block_size_);
    if (b.published) {
      ++num_published;
      num_of_group_0 += b.group == 0;
      PM_CHECK(find(b.group, b.digest) == block, "block {} can't be found", block);
      PM_CHECK(b.filled == block_size_, "block {} is findable but not full", block);
    }
    switch (state(block)) {
      case BlockState::kFree:
        ++counted.free;
        break;
      case BlockState::kCached:
        ++counted.cached;
        break;
      case BlockState::kPinned:
        ++counted.pinned;
        break;
      default:
        ++counted.referenced, counted.empty_slots += num_empty(b);
        counted.saved += b.refs - 1;
    }
  }
  PM_CHECK(counted.free == stats_.free && counted.cached == stats_.cached &&
           counted.referenced == stats_.referenced && counted.pinned == stats_.pinned);
  PM_CHECK(stats_.free + stats_.cached + stats_.referenced + stats_.pinned + 1 == stats_.total);
  PM_CHECK(counted.saved == stats_.saved, "{} saved, {} kept", counted.saved, stats_.saved);
  PM_CHECK(counted.empty_slots == stats_.empty_slots,
           "{} empty slots counted, {} kept",
           counted.empty_slots,
           stats_.empty_slots);
  std::int32_t num_linked = 0;
  bool seen_cached = false;
  for (BlockId block = blocks_[kNullBlock].next; block != kNullBlock; block = blocks_[block].next) {
    const BlockState s = state(block);
    PM_CHECK(blocks_[blocks_[block].next].previous == block);
    PM_CHECK(s == BlockState::kCached || (s == BlockState::kFree && !seen_cached));
    seen_cached = s == BlockState::kCached;
    PM_CHECK(++num_linked < counted.total, "the list has a cycle");
  }
  PM_CHECK(num_linked == num_available());
  std::int32_t num_indexed = 0;
  for (BlockId block : buckets_) {
    for (; block != kNullBlock; block = blocks_[block].next_in_bucket) ++num_indexed;
  }
  PM_CHECK(num_indexed == num_published, "{} indexed, {} published", num_indexed, num_published);
  PM_CHECK(index_.check_invariants() == num_of_group_0);
}

}  // namespace pagemill
