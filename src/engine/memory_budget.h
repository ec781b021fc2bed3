// MemoryBudget: what the process may use, planned once at start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "engine/engine_options.h"
#include "kv/kv_spec.h"
#include "tensor/dtype.h"

namespace pagemill {

// The share of free memory that the KV cache may grow to unless --kv-cache-memory says otherwise.
inline constexpr double kDefaultKvShare = 0.5;

struct MemoryBudget {
  std::int64_t free_bytes = 0;  // after the weights: MemAvailable, or less by the cgroup's limit
  std::int64_t kv_cache_bytes = 0;   // address space; memory follows as blocks are first written
  std::int32_t num_blocks = 0;       // the null block included
  std::int32_t block_size = 0;       // tokens
  std::int64_t bytes_per_block = 0;  // all layers, K and V
  std::int32_t max_model_len = 0;    // tokens of the longest sequence, as asked or as fits
};

// Bytes that the system or the cgroup (v1 or v2) would still give this process.
std::int64_t available_memory_bytes();

// Plans the KV pool: options.kv_cache_memory_bytes, or kDefaultKvShare of free memory, but never
// more than max_num_seqs sequences of their full length can use. That length is
// options.max_model_len, which must fit (kInvalidArgument with the numbers), or else the model's,
// lowered to what fits.
Result<MemoryBudget> plan_memory(const EngineOptions& options,
                                 std::span<const KvSpec> specs,
                                 DType kv_dtype,
                                 std::int32_t model_max_len);

}  // namespace pagemill
