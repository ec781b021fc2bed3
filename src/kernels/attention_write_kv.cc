#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/attention.h"
#include "kernels/attention_isa.h"

namespace pagemill {
namespace {

constexpr std::size_t kTokensPerTask = 64;

// Where a token's element or pair d of a KV head lies, in units of 4 bytes (a bf16 pair or an f32):
// K [head_size / pack][16 tokens], V [16 / pack][head_size].
struct Slot {
  std::size_t head;  // of the KV head's tile
  int lane;          // the token's place in the tile
};

Slot find_slot(const KvLayout& layout, std::int64_t slot, int kv_head, int tile_units) {
  const std::int64_t block = slot / layout.block_size;
  const std::int64_t offset = slot % layout.block_size;
  const std::int64_t tiles = layout.block_size / kTileTokens;
  const std::int64_t tile = (block * layout.num_kv_heads + kv_head) * tiles + offset / kTileTokens;
  return {static_cast<std::size_t>(tile * tile_units), static_cast<int>(offset % kTileTokens)};
}

void put_bf16(std::byte* k_cache,
              std::byte* v_cache,
              const Slot& slot,
              int head_size,
              const std::uint16_t* k,
              const std::uint16_t* v) {
  std::byte* k_tile = k_cache + (slot.head + static_cast<std::size_t>(slot.lane)) * 4;
  for (int d = 0; d < head_size; d += 2) {
    std::memcpy(k_tile + static_cast<std::size_t>(d / 2) * kTileTokens * 4, k + d, 4);
  }
  std::byte* v_row =
      v_cache + (slot.head + static_cast<std::size_t>(slot.lane / 2 * head_size)) * 4;
  if (slot.lane % 2 == 0) {
    for (int d = 0; d < head_size; ++d) {
      const std::uint32_t pair = v[d];  // the odd partner becomes 0
      std::memcpy(v_row + static_cast<std::size_t>(d) * 4, &pair, 4);
    }
  } else {
    for (int d = 0; d < head_size; ++d) {
      std::memcpy(v_row + static_cast<std::size_t>(d) * 4 + 2, v + d, 2);
    }
  }
}

void put_f32(std::byte* k_cache,
             std::byte* v_cache,
             const Slot& slot,
             int head_size,
             const float* k,
             const float* v) {
  std::byte* k_tile = k_cache + (slot.head + static_cast<std::size_t>(slot.lane)) * 4;
  for (int d = 0; d < head_size; ++d) {
    std::memcpy(k_tile + static_cast<std::size_t>(d) * kTileTokens * 4, k + d, 4);
  }
  std::memcpy(v_cache + (slot.head + static_cast<std::size_t>(slot.lane * head_size)) * 4,
              v,
              static_cast<std::size_t>(head_size) * 4);
}

// Task boundaries never part a token from the one before it where the two share a pair: the even
// one's write would race with the odd one's.
std::size_t boundary(std::span<const std::int64_t> slots, std::size_t at) {
  if (at >= slots.size()) return slots.size();
  const bool parts_pair = at > 0 && slots[at] % 2 != 0 && slots[at - 1] == slots[at] - 1;
  return parts_pair ? at - 1 : at;
}

}  // namespace

void write_kv(Isa isa,
              ThreadPool& pool,
              const KvLayout& layout,
              std::byte* k_cache,
              std::byte* v_cache,
              const float* k,
              std::int64_t k_stride,
              const float* v,
              std::int64_t v_stride,
              std::span<const std::int64_t> slot_mapping) {
  const int head_size = layout.head_size;
  PM_CHECK(
      head_size > 0 && head_size <= kMaxHeadSize && head_size % 2 == 0, "head_size {}", head_size);
  PM_CHECK(layout.block_size % kTileTokens == 0, "block_size {}", layout.block_size);
  const bool is_bf16 = layout.dtype == DType::kBF16;
  PM_CHECK(is_bf16 || layout.dtype == DType::kF32, "dtype of the KV cache");
  const auto to_bf16 = attention_kernels(isa).to_bf16;
  const int tile_units = kTileTokens * head_size / (is_bf16 ? 2 : 1);

  const std::size_t ranges = (slot_mapping.size() + kTokensPerTask - 1) / kTokensPerTask;
  pool.parallel_for(static_cast<int>(ranges) * layout.num_kv_heads, [&](int task) {
    const int kv_head = task % layout.num_kv_heads;
    const auto range = static_cast<std::size_t>(task / layout.num_kv_heads);
    const std::size_t end = boundary(slot_mapping, (range + 1) * kTokensPerTask);
    for (std::size_t i = boundary(slot_mapping, range * kTokensPerTask); i < end; ++i) {
      if (slot_mapping[i] < 0) continue;
      const auto token = static_cast<std::int64_t>(i);
      const float* k_row = k + token * k_stride + std::int64_t{kv_head} * head_size;
      const float* v_row = v + token * v_stride + std::int64_t{kv_head} * head_size;
      const Slot slot = find_slot(layout, slot_mapping[i], kv_head, tile_units);
      if (!is_bf16) {
        put_f32(k_cache, v_cache, slot, head_size, k_row, v_row);
        continue;
      }
      std::uint16_t k_rounded[kMaxHeadSize];
      std::uint16_t v_rounded[kMaxHeadSize];
      to_bf16(k_row, head_size, k_rounded);
      to_bf16(v_row, head_size, v_rounded);
      put_bf16(k_cache, v_cache, slot, head_size, k_rounded, v_rounded);
    }
  });
}

}  // namespace pagemill
