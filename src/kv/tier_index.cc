#include "kv/tier_index.h"

#include "base/check.h"

namespace pagemill {

TierIndex::TierIndex(std::int64_t capacity_bytes, std::vector<std::int64_t> block_bytes)
    : capacity_bytes_(capacity_bytes), block_bytes_(std::move(block_bytes)) {
  for (const std::int64_t bytes : block_bytes_) PM_CHECK(bytes > 0, "{} bytes", bytes);
}

bool TierIndex::insert(std::int32_t group, const Digest& digest, std::vector<Key>& forgotten) {
  const std::int64_t size = block_bytes_.at(group);
  if (size > capacity_bytes_ || contains(group, digest)) return false;
  while (bytes_ + size > capacity_bytes_) {
    forgotten.push_back(order_.front());
    remove(order_.begin());
  }
  order_.push_back({group, digest});
  entries_.emplace(order_.back(), std::prev(order_.end()));
  bytes_ += size;
  return true;
}

void TierIndex::touch(std::int32_t group, const Digest& digest) {
  const auto found = entries_.find({group, digest});
  if (found != entries_.end()) order_.splice(order_.end(), order_, found->second);
}

void TierIndex::erase(std::int32_t group, const Digest& digest) {
  const auto found = entries_.find({group, digest});
  if (found != entries_.end()) remove(found->second);
}

void TierIndex::clear(std::vector<Key>& forgotten) {
  forgotten.insert(forgotten.end(), order_.begin(), order_.end());
  order_.clear();
  entries_.clear();
  bytes_ = 0;
}

void TierIndex::remove(Order::iterator entry) {
  bytes_ -= block_bytes_[entry->group];
  entries_.erase(*entry);
  order_.erase(entry);
}

void TierIndex::check_invariants() const {
  std::int64_t bytes = 0;
  for (auto entry = order_.begin(); entry != order_.end(); ++entry) {
    bytes += block_bytes_.at(entry->group);
    PM_CHECK(entries_.at(*entry) == entry);
  }
  PM_CHECK(entries_.size() == order_.size() && bytes == bytes_ && bytes <= capacity_bytes_);
}

}  // namespace pagemill
