// A trace replayed by one or more replicas under a virtual clock.
//
// Each replica runs steps back to back while it has work; a request that arrives during a step
// waits for its end. A step's tokens are known when it ends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "simulate/batcher.h"

namespace pagemill {

enum class ReplicaSplit {
  kRoundRobin,
  kLeastLoaded,  // to the replica with the fewest requests that have not ended; the first of equals
};
Result<ReplicaSplit> parse_replica_split(const std::string& name);

struct ReplayConfig {
  BatchPolicy policy = BatchPolicy::kPaged;
  BatcherConfig batcher;
  CostModel cost;
  std::int32_t num_replicas = 1;
  ReplicaSplit split = ReplicaSplit::kLeastLoaded;
  bool check_every_step = false;  // tests
};

// A replica during one step.
struct StepSample {
  double begin_s = 0, seconds = 0;
  std::int32_t num_running = 0, num_waiting = 0;
  MemoryUse memory;
};

struct RequestTimes {
  double arrival_s = 0, first_token_s = 0, end_s = 0;  // first_token_s < 0: it was refused
  double seconds_to_first() const { return first_token_s - arrival_s; }
  double seconds() const { return end_s - arrival_s; }
};

struct Replay {
  std::vector<RequestTimes> requests;          // as in the trace
  std::vector<float> token_gaps_s;             // between a request's tokens, all requests
  std::vector<std::vector<StepSample>> steps;  // [num_replicas], in order
  BatchCounters counters;                      // of all replicas
  std::int32_t num_refused = 0;
  std::string first_refusal;
};

// The trace has arrivals. kInvalidArgument for a config that cannot work.
Result<Replay> replay(const Trace& trace, const ReplayConfig& config);

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
};

// What a replay comes to. Averages are over the time in which the replicas ran steps.
struct ReplaySummary {
  std::int32_t num_requests = 0, num_refused = 0;
  double seconds = 0;  // from the first arrival to the last end
  // Of a request: seconds from arrival to end over its output tokens (Kwon et al., section 6.1).
  double normalized_latency_s = 0;  // the mean
  Percentiles ttft_s, itl_s, e2e_s;
  double output_tokens_per_s = 0;
  double mean_batch = 0;  // requests
  std::int32_t max_batch = 0;
  struct Shares {        // of all KV slots
    double seconds = 0;  // that the average is over
    double tokens = 0, reserved = 0, internal = 0, rounding = 0, cached = 0, free = 0;
    double mean_batch = 0;
    // Empty slots in held memory over held memory.
    double waste() const;
  };
  Shares busy;    // while steps ran
  Shares queued;  // while a request waited as well: memory, or places, were short
  Shares full;    // while at least 90 % of the slots were held
  std::uint64_t preemptions = 0;
  double prefix_hit_rate = 0;  // prompt tokens from the cache over prompt tokens
};

ReplaySummary summarize(const Trace& trace, const Replay& replay);

// The highest request rate that a curve of (rate, mean normalized latency) sustains: where it
// crosses `limit_s`, between two rates by linear interpolation; 0 if it is above from the start,
// the last rate if it never is.
double sustained_rate(const std::vector<double>& rates,
                      const std::vector<double>& latencies_s,
                      double limit_s);

}  // namespace pagemill
