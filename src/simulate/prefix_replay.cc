#include "simulate/prefix_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <unordered_map>

#include "simulate/batcher.h"

namespace pagemill {
namespace {

// Ids by how recently they were touched.
class LruSet {
 public:
  explicit LruSet(std::int64_t capacity) : capacity_(capacity) {}

  // True if the id was there. It is now, as the latest.
  bool touch(TokenId id) {
    const auto found = where_.find(id);
    if (found != where_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return true;
    }
    order_.push_front(id);
    where_[id] = order_.begin();
    if (capacity_ >= 0 && static_cast<std::int64_t>(order_.size()) > capacity_) {
      where_.erase(order_.back());
      order_.pop_back();
    }
    return false;
  }

 private:
  std::int64_t capacity_;
  std::list<TokenId> order_;  // latest first
  std::unordered_map<TokenId, std::list<TokenId>::iterator> where_;
};

// The ids that name blocks of the prompt.
std::int64_t num_prompt_ids(const Trace& trace, const TraceRequest& request) {
  const auto num_ids = static_cast<std::int64_t>(request.hash_ids.size());
  if (!trace.ids_cover_output) return num_ids;
  return std::min<std::int64_t>(num_ids, request.input_tokens / trace.hash_block_tokens);
}

void count_request(const Trace& trace,
                   const TraceRequest& request,
                   std::int64_t num_hits,
                   PrefixHits& hits) {
  hits.blocks += num_prompt_ids(trace, request);
  hits.hits += num_hits;
  hits.tokens += request.input_tokens;
  hits.hit_tokens +=
      std::min<std::int64_t>(num_hits * trace.hash_block_tokens, request.input_tokens);
}

}  // namespace

PrefixHits replay_reference_lru(const Trace& trace, std::int64_t num_blocks) {
  PrefixHits hits;
  LruSet cache(num_blocks);
  for (const TraceRequest& request : trace.requests) {
    std::int64_t run = 0;
    bool unbroken = true;
    for (std::int64_t i = 0; i < num_prompt_ids(trace, request); ++i) {
      unbroken = cache.touch(request.hash_ids[i]) && unbroken;
      run += unbroken ? 1 : 0;
    }
    count_request(trace, request, run, hits);
  }
  return hits;
}

Result<PrefixHits> replay_engine_order(const Trace& trace, std::int64_t num_blocks) {
  constexpr std::int32_t kBlockSize = 16;
  // One token after the ids: the last token of a prompt is always computed, and must not be a
  // block's. It takes the one block that is added to the pool.
  Trace prompts;
  prompts.hash_block_tokens = kBlockSize;
  std::int64_t longest = 0;
  for (const TraceRequest& request : trace.requests) {
    const std::int64_t num_ids = num_prompt_ids(trace, request);
    longest = std::max(longest, num_ids);
    prompts.requests.push_back({0,
                                static_cast<std::int32_t>(num_ids * kBlockSize + 1),
                                1,
                                {request.hash_ids.begin(), request.hash_ids.begin() + num_ids}});
  }
  if (longest > num_blocks) {
    return invalid_argument(
        fmt::format("a prompt of {} blocks is longer than the cache, {}", longest, num_blocks));
  }
  BatcherConfig config;
  config.block_size = kBlockSize;
  config.kv_slots = (num_blocks + 1) * kBlockSize;
  config.max_model_len = static_cast<std::int32_t>(longest * kBlockSize + 2);
  config.max_num_batched_tokens = config.max_model_len;
  PM_ASSIGN(auto batcher, make_batcher(BatchPolicy::kPaged, config, prompts));

  PrefixHits hits;
  std::uint64_t cached_before = 0;
  StepLoad load;
  std::vector<TokenEvent> events;
  for (std::size_t i = 0; i < prompts.requests.size(); ++i) {
    PM_TRY(batcher->add(static_cast<std::int32_t>(i)));
    while (batcher->plan(load)) batcher->commit(0, events);
    events.clear();
    const std::uint64_t cached = batcher->counters().prompt_tokens_cached;
    const auto num_hits = static_cast<std::int64_t>((cached - cached_before) / kBlockSize);
    count_request(trace, trace.requests[i], num_hits, hits);
    cached_before = cached;
  }
  return hits;
}

}  // namespace pagemill
