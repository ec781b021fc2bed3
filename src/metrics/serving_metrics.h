// ServingMetrics: what /metrics shows. Names, labels and buckets follow vLLM's v1 metrics where one
// applies, under a prefix of choice; docs/metrics.md lists them. It is fed plain numbers, from any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "metrics/iteration_tokens.h"

namespace pagemill {

struct ServingMetricsOptions {
  std::string prefix = "pagemill";  // letters, digits and '_', not starting with a digit
  std::string model_name;           // the label on every metric
  std::int32_t max_model_len = 0;   // bounds the token-count buckets
  std::vector<std::pair<std::string, std::string>> cache_config;  // labels of cache_config_info
};

// The engine's state at one moment. Counters are totals since the engine started.
struct EngineSnapshot {
  double num_requests_running = 0, num_requests_waiting = 0;
  double kv_cache_usage = 0, kv_cache_waste = 0;  // 0..1
  double blocks_free = 0, blocks_cached = 0, blocks_referenced = 0, blocks_pinned = 0;
  double blocks_saved = 0;  // by sharing
  double empty_slots = 0;   // in referenced blocks
  double block_size = 0, block_bytes = 0;
  std::uint64_t num_preemptions = 0, prefix_cache_queries = 0, prefix_cache_hits = 0;
  std::uint64_t prompt_tokens = 0, generation_tokens = 0;
  std::uint64_t steps = 0, chunked_prefills = 0, copy_on_writes = 0, prefix_cache_copied = 0;
  std::uint64_t tier_queries = 0, tier_hits = 0, tier_saved_bytes = 0, tier_loaded_bytes = 0,
                tier_failed_loads = 0;
  double step_seconds = 0;
  IterationTokens iteration_tokens;
  std::uint64_t corrupted_requests = 0;
};

// One finished request. Times are seconds; a negative one is unknown and is not observed.
struct FinishedRequest {
  std::string_view finished_reason;  // "stop", "length", "abort" or "error"
  double e2e_s = -1, ttft_s = -1, queue_s = -1, prefill_s = -1, decode_s = -1, inference_s = -1;
  std::int32_t prompt_tokens = 0, generation_tokens = 0;
  std::int32_t cached_tokens = 0;          // of the prompt: not computed
  std::int32_t max_generation_tokens = 0;  // of its sequences
  std::int32_t n = 1, max_tokens = 0;      // as asked
};

class ServingMetrics {
 public:
  // kInvalidArgument for a bad prefix or label name.
  static Result<std::unique_ptr<ServingMetrics>> create(const ServingMetricsOptions& options);
  ~ServingMetrics();

  void observe_inter_token(double seconds);
  void observe_finished(const FinishedRequest& request);
  void count_http(std::string_view route, std::string_view method, int status);

  // The exposition text (Prometheus text format 0.0.4), with the engine's state as of `snapshot`.
  std::string render(const EngineSnapshot& snapshot);

 private:
  struct Impl;
  explicit ServingMetrics(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// 1, 2, 5, 10, 20, 50, ... up to `max`.
std::vector<double> buckets_1_2_5(std::int64_t max);

}  // namespace pagemill
