// ForwardBatch: one step's tokens as the model sees them. Its arrays live in buffers of fixed size
// and address.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/attention.h"

namespace pagemill {

struct KvGroupBatch {
  std::span<const std::int64_t> slot_mapping;    // [num_tokens]
  std::span<const AttentionSequence> sequences;  // [num_sequences]
};

struct ForwardBatch {
  std::span<const TokenId> token_ids;       // [num_tokens]
  std::span<const std::int32_t> positions;  // [num_tokens]
  std::span<const std::int32_t>
      prompt_lens;  // [num_tokens]; of the token's sequence (dynamic RoPE)
  std::span<const std::int32_t> adapter_index;  // [num_tokens]; 0 is no adapter
  std::span<const KvGroupBatch> groups;         // [num_kv_groups]
  std::span<const std::int32_t>
      logits_rows;  // ascending: rows of the hidden state that need logits
};

// Writes to `selected` the sequences of those queries alone that are in `rows` (ascending; rows of
// q), in as few runs of neighbours as there are.
void select_queries(std::span<const AttentionSequence> sequences,
                    std::span<const std::int32_t> rows,
                    std::vector<AttentionSequence>& selected);

}  // namespace pagemill
