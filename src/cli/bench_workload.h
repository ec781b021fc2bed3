// Workloads of `pagemill bench`, and what running one measures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "simulate/random.h"

namespace pagemill::cli {

struct WorkloadItem {
  std::vector<TokenId> prompt_token_ids;
  std::int32_t output_len = 0;
};

// `count` requests with log-normal lengths (sigma 1.0 in, 0.9 out; clipped to 4..1024 and 4..512)
// scaled to the given means, of random tokens: the same for the same seed on every machine.
std::vector<WorkloadItem> mixed_workload(std::int32_t count,
                                         double mean_input,
                                         double mean_output,
                                         std::int32_t vocab_size,
                                         std::uint64_t seed);
// JSON lines with prompt_token_ids and output_len.
Result<std::vector<WorkloadItem>> read_workload(const std::string& path);

// What one run of a workload took; times in seconds.
struct RunMeasure {
  double wall_s = 0;
  std::int64_t input_tokens = 0, output_tokens = 0;
  std::vector<double> ttft_s;  // [requests]: submit to first token
  std::vector<double> itl_s;   // between consecutive deltas of a request
  std::vector<double> e2e_s;   // [requests]
  // [requests]: seconds over output tokens, those of all its sequences.
  std::vector<double> normalized_s;
  std::int64_t num_failed = 0;
  std::string first_failure;
  // Times that the engine's queue was full (--max-queued-requests) and a request was put off.
  std::int64_t num_put_off = 0;
};

// Sleeps between requests that arrive by a Poisson process; not at all if `rate`, in requests/s, is
// 0. The same arrivals in every run: those of `pagemill simulate --seed 1` at that rate.
class PoissonArrivals {
 public:
  explicit PoissonArrivals(double rate);
  double next();  // seconds from construction to the next arrival
  void wait();    // until then

 private:
  double rate_, begin_, next_ = 0;
  Random random_;
};

// Submits every item (at `rate` requests/s by a Poisson process, or all at once if 0) and waits for
// all. A request that finds the queue full waits for another to end, and its time runs meanwhile.
// EOS is ignored, so that every run does the same work.
RunMeasure run_workload(EngineClient& engine,
                        const std::vector<WorkloadItem>& items,
                        const SamplingParams& params,
                        double rate = 0);

// Each item as often as it is to be answered, for requests that share nothing.
std::vector<WorkloadItem> repeated(const std::vector<WorkloadItem>& items, std::int32_t times);

double mean(const std::vector<double>& values);  // 0 of nothing
// The q-quantile (0..1) by linear interpolation; 0 of nothing. Sorts a copy.
double quantile(std::vector<double> values, double q);

}  // namespace pagemill::cli
