// TierIndex: which blocks the second tier holds, as far as the control plane knows. Keys only.
//
// It is a belief: a file may be gone or broken when it is read. Then the reader says so, erase() is
// called, and the block is computed instead. Capacity is counted in bytes; what is used least
// recently makes room.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "base/sha256.h"

namespace pagemill {

class TierIndex {
 public:
  struct Key {
    std::int32_t group = 0;
    Digest digest;
    bool operator==(const Key&) const = default;
  };

  // block_bytes: [num_groups], of one block of the group.
  TierIndex(std::int64_t capacity_bytes, std::vector<std::int64_t> block_bytes);

  bool contains(std::int32_t group, const Digest& digest) const {
    return entries_.count({group, digest}) > 0;
  }
  // Adds the block as the most recently used and appends to `forgotten` what has to go for it.
  // False if the tier has it already or can't hold even one.
  bool insert(std::int32_t group, const Digest& digest, std::vector<Key>& forgotten);
  // The block is used: it stays longer.
  void touch(std::int32_t group, const Digest& digest);
  void erase(std::int32_t group, const Digest& digest);
  // Appends all keys to `forgotten` and is empty afterwards.
  void clear(std::vector<Key>& forgotten);

  std::int64_t bytes() const { return bytes_; }
  std::int64_t capacity_bytes() const { return capacity_bytes_; }
  std::int64_t num_blocks() const { return static_cast<std::int64_t>(entries_.size()); }
  // Panics unless list, index and bytes agree. Linear: tests.
  void check_invariants() const;

 private:
  struct Hash {
    std::size_t operator()(const Key& key) const {
      return key.digest.prefix64() + static_cast<std::uint64_t>(key.group) * 0x9e3779b97f4a7c15;
    }
  };
  using Order = std::list<Key>;  // least recently used first

  void remove(Order::iterator entry);

  std::int64_t capacity_bytes_, bytes_ = 0;
  std::vector<std::int64_t> block_bytes_;
  Order order_;
  std::unordered_map<Key, Order::iterator, Hash> entries_;
};

}  // namespace pagemill
