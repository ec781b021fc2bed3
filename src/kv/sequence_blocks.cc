#include "kv/sequence_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace pagemill {

std::int32_t BlockLayout::first_live_block(std::int32_t group, std::int32_t position) const {
  if (windows[group] == 0) return 0;
  return std::max(0, position - windows[group] + 1) / block_size;
}

std::int32_t BlockLayout::max_blocks_held(std::int32_t group,
                                          std::int32_t num_tokens,
                                          std::int32_t max_chunk) const {
  if (windows[group] == 0) return num_blocks(num_tokens);
  // A run of window - 1 + chunk tokens that starts anywhere within a block.
  const std::int64_t run = std::int64_t{windows[group]} - 1 + std::min(max_chunk, num_tokens);
  const std::int64_t held = (run + 2 * (block_size - 1)) / block_size;
  return static_cast<std::int32_t>(std::min<std::int64_t>(held, num_blocks(num_tokens)));
}

SequenceBlocks::SequenceBlocks(BlockPool& pool, const BlockLayout& layout)
    : pool_(&pool),
      layout_(&layout),
      tables_(layout.num_groups()),
      num_dropped_(layout.num_groups(), 0),
      epoch_(pool.epoch()) {}

SequenceBlocks::SequenceBlocks(SequenceBlocks&& other) noexcept
    : pool_(other.pool_),
      layout_(other.layout_),
      tables_(std::move(other.tables_)),
      num_dropped_(std::move(other.num_dropped_)),
      num_published_(other.num_published_),
      epoch_(other.epoch_) {
  other.tables_.clear();
}

void SequenceBlocks::share(const SequenceBlocks& other) {
  for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
    PM_CHECK(tables_[group].empty());
    for (const BlockId block : other.tables_[group]) {
      if (block != kNullBlock) pool_->ref(block);
    }
  }
  tables_ = other.tables_;
  num_dropped_ = other.num_dropped_;
  num_published_ = other.num_published_;
  epoch_ = other.epoch_;
}

std::int32_t SequenceBlocks::find_prefix(const BlockPool& pool,
                                         const BlockLayout& layout,
                                         std::span<const Digest> hashes) {
  auto length = static_cast<std::int32_t>(hashes.size());
  for (std::int32_t group = 0; group < layout.num_groups(); ++group) {
    if (layout.windows[group] > 0) continue;
    std::int32_t found = 0;
    while (found < length && pool.find(group, hashes[found]) != kNullBlock) ++found;
    length = found;
  }
  // A shorter prefix moves every window: go on until all windowed groups agree.
  for (bool changed = true; changed && length > 0;) {
    changed = false;
    for (std::int32_t group = 0; group < layout.num_groups(); ++group) {
      if (layout.windows[group] == 0) continue;
      const auto first_live = [&] {
        return layout.first_live_block(group, length * layout.block_size);
      };
      for (std::int32_t i = length - 1; i >= first_live() && i >= 0; --i) {
        if (pool.find(group, hashes[i]) != kNullBlock) continue;
        length = i;
        changed = true;
      }
    }
  }
  return length;
}

std::int32_t SequenceBlocks::num_unreferenced(const BlockPool& pool,
                                              const BlockLayout& layout,
                                              const PrefixHit& hit) {
  const auto is_cached = [&](std::int32_t group, const Digest& digest) {
    return pool.state(pool.find(group, digest)) == BlockState::kCached;
  };
  std::int32_t count = 0;
  for (std::int32_t group = 0; group < layout.num_groups(); ++group) {
    for (std::int32_t i = layout.first_live_block(group, hit.num_tokens(layout));
         i < hit.num_blocks();
         ++i) {
      count += is_cached(group, hit.blocks[i]);
    }
    if (hit.num_copied > 0) count += is_cached(group, hit.source);
  }
  return count;
}

PrefixHit SequenceBlocks::find_hit(const BlockPool& pool,
                                   const BlockLayout& layout,
                                   const Digest& root,
                                   std::span<const Digest> hashes,
                                   std::span<const TokenId> tokens) {
  PrefixHit hit{hashes.first(find_prefix(pool, layout, hashes)), 0, {}};
  const Digest& parent = hit.blocks.empty() ? root : hit.blocks.back();
  const PrefixIndex::Match match =
      pool.find_partial(parent, tokens.subspan(hit.num_tokens(layout)));
  if (match.num_tokens == 0) return hit;
  const Digest& source = pool.digest(match.block);
  for (std::int32_t group = 1; group < layout.num_groups(); ++group) {
    if (pool.find(group, source) == kNullBlock) return hit;
  }
  hit.num_copied = match.num_tokens;
  hit.source = source;
  return hit;
}

void SequenceBlocks::adopt(const PrefixHit& hit,
                           std::vector<BlockWrite>& copies,
                           std::vector<BlockId>& pins) {
  const std::int32_t length = hit.num_blocks();
  const std::size_t first_copy = copies.size();
  for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
    PM_CHECK(tables_[group].empty());
    const std::int32_t first = layout_->first_live_block(group, hit.num_tokens(*layout_));
    tables_[group].assign(length, kNullBlock);
    num_dropped_[group] = std::min(first, length);
    for (std::int32_t i = first; i < length; ++i) {
      tables_[group][i] = pool_->find(group, hit.blocks[i]);
      pool_->ref(tables_[group][i]);
    }
    if (hit.num_copied == 0) continue;
    const BlockId source = pool_->find(group, hit.source);
    pool_->ref(source);
    give_back(source, &pins);
    copies.push_back({group, source, kNullBlock});
  }
  // Only now that nothing of the hit can be evicted.
  for (std::size_t i = first_copy; i < copies.size(); ++i) {
    copies[i].target = pool_->allocate();
    pool_->fill(copies[i].target, hit.num_copied);
    tables_[copies[i].group].push_back(copies[i].target);
  }
  num_published_ = length;
  epoch_ = pool_->epoch();
}

void SequenceBlocks::drop_out_of_window(std::int32_t position, std::vector<BlockId>* pins) {
  for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
    auto& table = tables_[group];
    const std::int32_t end = std::min(layout_->first_live_block(group, position),
                                      static_cast<std::int32_t>(table.size()));
    for (std::int32_t i = num_dropped_[group]; i < end; ++i) {
      give_back(table[i], pins);
      table[i] = kNullBlock;
    }
    num_dropped_[group] = std::max(num_dropped_[group], end);
  }
}

void SequenceBlocks::grow(std::int32_t num_computed,
                          std::int32_t num_new,
                          std::vector<BlockWrite>& copies) {
  const std::int32_t block_size = layout_->block_size, end = num_computed + num_new;
  for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
    auto& table = tables_[group];
    for (std::int32_t i = num_computed / block_size; i < layout_->num_blocks(end); ++i) {
      if (i == static_cast<std::int32_t>(table.size())) {
        table.push_back(pool_->allocate());
      } else if (pool_->ref_count(table[i]) > 1) {
        const BlockId source = table[i];
        table[i] = pool_->allocate();
        pool_->unref(source);
        copies.push_back({group, source, table[i]});
      }
      PM_CHECK(!pool_->published(table[i]), "block {} is cached and can't be written", table[i]);
      pool_->fill(table[i], std::min(block_size, end - i * block_size));
    }
  }
}

void SequenceBlocks::publish(const Digest& root,
                             std::span<const Digest> hashes,
                             std::span<const TokenId> tokens) {
  if (epoch_ != pool_->epoch()) return;
  const auto end = static_cast<std::int32_t>(hashes.size());
  for (std::int32_t i = num_published_; i < end; ++i) {
    const BlockContent content{
        hashes[i],
        i == 0 ? root : hashes[i - 1],
        tokens.subspan(static_cast<std::size_t>(i) * layout_->block_size, layout_->block_size)};
    for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
      const BlockId block = tables_[group][i];
      if (block != kNullBlock) pool_->publish(block, group, content);
    }
  }
  num_published_ = std::max(num_published_, end);
}

void SequenceBlocks::truncate(std::int32_t num_blocks) {
  for (std::int32_t group = 0; group < layout_->num_groups(); ++group) {
    auto& table = tables_[group];
    while (static_cast<std::int32_t>(table.size()) > num_blocks) {
      if (table.back() != kNullBlock) give_back(table.back(), nullptr);
      table.pop_back();
    }
    num_dropped_[group] = std::min(num_dropped_[group], num_blocks);
  }
  num_published_ = std::min(num_published_, num_blocks);
}

void SequenceBlocks::release(std::vector<BlockId>* pins) {
  for (auto& table : tables_) {
    for (auto block = table.rbegin(); block != table.rend(); ++block) {
      if (*block != kNullBlock) give_back(*block, pins);
    }
    table.clear();
  }
  std::fill(num_dropped_.begin(), num_dropped_.end(), 0);
  num_published_ = 0;
  epoch_ = pool_->epoch();
}

void SequenceBlocks::give_back(BlockId block, std::vector<BlockId>* pins) {
  if (pins != nullptr) {
    pool_->pin(block);
    pins->push_back(block);
  }
  pool_->unref(block);
}

std::int32_t blocks_needed(const BlockPool& pool,
                           const BlockLayout& layout,
                           std::span<const BlockGrowth> growths) {
  const auto last_block = [&](const BlockGrowth& growth, std::int32_t group) {
    const auto table = growth.blocks->table(group);
    const std::int32_t i = growth.num_computed / layout.block_size;
    return i < static_cast<std::int32_t>(table.size()) ? table[i] : kNullBlock;
  };
  std::int32_t needed = 0;
  for (std::size_t k = 0; k < growths.size(); ++k) {
    const BlockGrowth& growth = growths[k];
    const std::int32_t num_blocks = layout.num_blocks(growth.num_computed + growth.num_new);
    for (std::int32_t group = 0; group < layout.num_groups(); ++group) {
      needed += num_blocks - static_cast<std::int32_t>(growth.blocks->table(group).size());
      const BlockId written = last_block(growth, group);
      if (written == kNullBlock || pool.ref_count(written) == 1) continue;
      std::int32_t num_holders = pool.ref_count(written);
      for (std::size_t j = 0; j < k; ++j) num_holders -= last_block(growths[j], group) == written;
      needed += num_holders > 1;
    }
  }
  return needed;
}

}  // namespace pagemill
