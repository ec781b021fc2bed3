// KvStorage: the bytes behind block ids. The control plane knows ids only.
//
// Each layer's K and V is one range of address space for all blocks, laid out as
// kernels/attention.h says. The system gives it memory when a block is first written, so a large
// pool costs nothing at start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "kernels/attention.h"
#include "kv/kv_spec.h"

namespace pagemill {

class KvStorage {
 public:
  // Reserves address space for `num_blocks` blocks of `block_size` tokens in every layer of every
  // group. kResourceExhausted if the system refuses it.
  static Result<KvStorage> create(std::span<const KvSpec> specs,
                                  DType dtype,
                                  std::int32_t block_size,
                                  std::int32_t num_blocks);
  ~KvStorage();
  KvStorage(KvStorage&&) noexcept;
  KvStorage& operator=(KvStorage&&) noexcept;

  const KvLayout& layout(std::int32_t group) const { return groups_[group].layout; }
  std::int32_t num_groups() const { return static_cast<std::int32_t>(groups_.size()); }
  // K and V of a layer of the model, whichever group it is in.
  std::byte* keys(std::int32_t layer) { return layers_[layer].keys; }
  std::byte* values(std::int32_t layer) { return layers_[layer].values; }

  // Copies block `source` to `target` in every layer of the group.
  void copy_block(std::int32_t group, BlockId source, BlockId target);
  // Fills a block with NaN in every layer of the group: tests show that an unwritten slot reaches
  // no output.
  void poison_block(std::int32_t group, BlockId block);

  // Bytes of one block in all layers of the group, K and V.
  std::size_t block_bytes(std::int32_t group) const;
  // A block as one string of block_bytes(group) bytes: layer by layer, K before V.
  void read_block(std::int32_t group, BlockId block, std::span<std::byte> bytes) const;
  void write_block(std::int32_t group, BlockId block, std::span<const std::byte> bytes);

  // Bytes of one block in all layers of all groups, K and V.
  static std::size_t bytes_per_block(std::span<const KvSpec> specs,
                                     DType dtype,
                                     std::int32_t block_size);

 private:
  struct Group {
    KvLayout layout;
    std::vector<std::int32_t> layers;
  };
  struct Layer {
    std::byte* keys = nullptr;
    std::byte* values = nullptr;
  };

  KvStorage() = default;
  void unmap();

  std::vector<Group> groups_;
  std::vector<Layer> layers_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace pagemill
