// KvSpec: what a model needs of the KV cache. One per group of layers that share a block table.
#pragma once

#include <cstdint>
#include <vector>

namespace pagemill {

enum class KvKind { kFull, kWindowed, kLatent, kRecurrentState };

struct KvSpec {
  KvKind kind = KvKind::kFull;
  std::vector<std::int32_t> layers;  // the model's layer indices in this group
  std::int32_t num_kv_heads = 0;
  std::int32_t head_size = 0;
  std::int32_t window = 0;           // kWindowed: tokens seen, the current one included
  std::int64_t bytes_per_token = 0;  // keys and values, all layers of the group
};

}  // namespace pagemill
