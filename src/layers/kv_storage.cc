#include "layers/kv_storage.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace pagemill {
namespace {

KvLayout layout_of(const KvSpec& spec, DType dtype, std::int32_t block_size) {
  return {.dtype = dtype,
          .num_kv_heads = spec.num_kv_heads,
          .head_size = spec.head_size,
          .block_size = block_size};
}

constexpr std::size_t kPage = 4096;

std::size_t round_up_to_page(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

Result<KvStorage> KvStorage::create(std::span<const KvSpec> specs,
                                    DType dtype,
                                    std::int32_t block_size,
                                    std::int32_t num_blocks) {
  PM_CHECK(dtype == DType::kBF16 || dtype == DType::kF32, "KV cache dtype");
  KvStorage storage;
  std::int32_t num_layers = 0;
  for (const KvSpec& spec : specs) {
    storage.groups_.push_back({layout_of(spec, dtype, block_size), spec.layers});
    for (std::int32_t layer : spec.layers) num_layers = std::max(num_layers, layer + 1);
    storage.bytes_ += 2 * spec.layers.size() *
                      round_up_to_page(storage.groups_.back().layout.block_bytes() * num_blocks);
  }
  // NORESERVE: the pool may be larger than what is free now; the budget is checked by MemoryBudget.
  void* base = mmap(nullptr,
                    storage.bytes_,
                    PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1,
                    0);
  if (base == MAP_FAILED) {
    return Error{
        ErrorCode::kResourceExhausted,
        fmt::format("cannot reserve {} bytes of address space for the KV cache ({} blocks): {}",
                    storage.bytes_,
                    num_blocks,
                    std::strerror(errno)),
        "kv_cache_memory"};
  }
  storage.base_ = static_cast<std::byte*>(base);
  storage.layers_.resize(num_layers);
  std::byte* next = storage.base_;
  for (const Group& group : storage.groups_) {
    const std::size_t bytes = round_up_to_page(group.layout.block_bytes() * num_blocks);
    for (std::int32_t layer : group.layers) {
      storage.layers_[layer] = {next, next + bytes};
      next += 2 * bytes;
    }
  }
  return storage;
}

KvStorage::~KvStorage() { unmap(); }

void KvStorage::unmap() {
  if (base_ != nullptr) munmap(base_, bytes_);
  base_ = nullptr;
}

KvStorage::KvStorage(KvStorage&& other) noexcept { *this = std::move(other); }

KvStorage& KvStorage::operator=(KvStorage&& other) noexcept {
  if (this != &other) {
    unmap();
    groups_ = std::move(other.groups_);
    layers_ = std::move(other.layers_);
    base_ = std::exchange(other.base_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void KvStorage::copy_block(std::int32_t group, BlockId source, BlockId target) {
  const std::size_t bytes = groups_[group].layout.block_bytes();
  for (std::int32_t layer : groups_[group].layers) {
    for (std::byte* base : {keys(layer), values(layer)}) {
      std::memcpy(base + bytes * target, base + bytes * source, bytes);
    }
  }
}

void KvStorage::poison_block(std::int32_t group, BlockId block) {
  const std::size_t bytes = groups_[group].layout.block_bytes();
  for (std::int32_t layer : groups_[group].layers) {
    for (std::byte* base : {keys(layer), values(layer)}) {
      std::memset(base + bytes * block, 0xff, bytes);  // a quiet NaN in bf16 and in f32
    }
  }
}

std::size_t KvStorage::block_bytes(std::int32_t group) const {
  return 2 * groups_[group].layers.size() * groups_[group].layout.block_bytes();
}

void KvStorage::read_block(std::int32_t group, BlockId block, std::span<std::byte> bytes) const {
  PM_CHECK(bytes.size() == block_bytes(group), "{} bytes", bytes.size());
  const std::size_t size = groups_[group].layout.block_bytes();
  std::byte* out = bytes.data();
  for (std::int32_t layer : groups_[group].layers) {
    for (const std::byte* base : {layers_[layer].keys, layers_[layer].values}) {
      std::memcpy(out, base + size * block, size);
      out += size;
    }
  }
}

void KvStorage::write_block(std::int32_t group, BlockId block, std::span<const std::byte> bytes) {
  PM_CHECK(bytes.size() == block_bytes(group), "{} bytes", bytes.size());
  const std::size_t size = groups_[group].layout.block_bytes();
  const std::byte* in = bytes.data();
  for (std::int32_t layer : groups_[group].layers) {
    for (std::byte* base : {keys(layer), values(layer)}) {
      std::memcpy(base + size * block, in, size);
      in += size;
    }
  }
}

std::size_t KvStorage::bytes_per_block(std::span<const KvSpec> specs,
                                       DType dtype,
                                       std::int32_t block_size) {
  std::size_t bytes = 0;
  for (const KvSpec& spec : specs) {
    bytes += 2 * spec.layers.size() * layout_of(spec, dtype, block_size).block_bytes();
  }
  return bytes;
}

}  // namespace pagemill
