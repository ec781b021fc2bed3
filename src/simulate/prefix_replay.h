// How many blocks of a trace's prompts a prefix cache of a given size would hold, requests one
// after another.
#pragma once

#include <cstdint>

#include "simulate/trace.h"

namespace pagemill {

struct PrefixHits {
  std::int64_t blocks = 0, hits = 0;        // ids of all prompts; those found
  std::int64_t tokens = 0, hit_tokens = 0;  // prompt tokens behind them
  double block_rate() const { return blocks > 0 ? double(hits) / double(blocks) : 0; }
  double token_rate() const { return tokens > 0 ? double(hit_tokens) / double(tokens) : 0; }
};

// The reference order: leading-run LRU. Each prompt touches its blocks from first to last; a hit
// counts while every block before it was one; a miss inserts, and evicts the block touched longest
// ago. num_blocks < 0: unlimited.
PrefixHits replay_reference_lru(const Trace& trace, std::int64_t num_blocks);

// The engine's order: its scheduler serves each prompt alone. A block that ends a prefix goes
// before those that it needs, and what a request uses stays while it runs. Every id stands for a
// block of 16 tokens. kInvalidArgument where a prompt is longer than the cache.
Result<PrefixHits> replay_engine_order(const Trace& trace, std::int64_t num_blocks);

}  // namespace pagemill
