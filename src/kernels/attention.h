// Attention that reads keys and values in place, in their blocks, through block tables.
//
// Cache layout, per layer and per K or V, one block after the other (a block holds all KV heads):
//   K bf16: [num_blocks][num_kv_heads][block_size/16][head_size/2][16 tokens][2]
//   V bf16: [num_blocks][num_kv_heads][block_size/16][8 token pairs][head_size][2]
//   K f32:  [num_blocks][num_kv_heads][block_size/16][head_size][16 tokens]
//   V f32:  [num_blocks][num_kv_heads][block_size/16][16 tokens][head_size]
// so 16 tokens are scored in one pass, one token a lane. A (query token, head) visits its blocks in
// order with a softmax rescaled every 128 tokens; contexts longer than kAttentionSplit are split at
// its multiples and the parts merged in order. Neither depends on the batch, the chunking or the
// threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/thread_pool.h"
#include "kernels/isa.h"
#include "tensor/dtype.h"

namespace pagemill {

inline constexpr int kAttentionSplit = 1024;  // tokens

struct KvLayout {
  DType dtype = DType::kBF16;  // kBF16 or kF32
  std::int32_t num_kv_heads = 0;
  std::int32_t head_size = 0;       // even
  std::int32_t block_size = 16;     // a multiple of 16
  std::size_t block_bytes() const;  // of K or of V: one block, one layer
};

// Stores the keys and values [num_tokens, num_kv_heads, head_size] (f32, row strides in elements)
// of tokens at `slot_mapping` (block * block_size + offset). A slot's even-numbered write clears
// its odd partner in V, so a pair never holds a value that was not written. Negative slots are
// padding and are skipped. The two tokens of a pair come one after the other, the even one first,
// as positions of a sequence do.
void write_kv(Isa isa,
              ThreadPool& pool,
              const KvLayout& layout,
              std::byte* k_cache,
              std::byte* v_cache,
              const float* k,
              std::int64_t k_stride,
              const float* v,
              std::int64_t v_stride,
              std::span<const std::int64_t> slot_mapping);

struct AttentionSequence {
  std::int32_t query_start = 0;  // first row of q
  std::int32_t query_len = 0;    // rows of q
  std::int32_t context_len =
      0;  // tokens in the cache after this step; the last query sees all of them
  const BlockId* block_table = nullptr;  // [ceil(context_len / block_size)]
};

struct AttentionParams {
  std::int32_t num_heads = 0;           // a multiple of num_kv_heads
  float scale = 0;                      // usually 1/sqrt(head_size)
  std::int32_t window = 0;              // > 0: a query at position p sees positions p-window+1 .. p
  float logit_softcap = 0;              // > 0: scores become cap * tanh(score / cap)
  const float* alibi_slopes = nullptr;  // [num_heads] or null
};

// out [num_tokens, num_heads, head_size] f32; q likewise with row stride q_stride (elements).
void paged_attention(Isa isa,
                     ThreadPool& pool,
                     const KvLayout& layout,
                     const std::byte* k_cache,
                     const std::byte* v_cache,
                     const AttentionParams& params,
                     const float* q,
                     std::int64_t q_stride,
                     std::span<const AttentionSequence> sequences,
                     float* out,
                     std::int64_t out_stride);

}  // namespace pagemill
