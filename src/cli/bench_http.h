// The workload of `pagemill bench serve` against any server that speaks OpenAI's /v1/completions.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/bench_workload.h"
#include "cli/http_stream.h"
#include "request/sampling_params.h"

namespace pagemill::cli {

struct HttpBenchOptions {
  HttpUrl url;  // without /v1
  std::string model, api_key;
  double rate = 0;          // requests/s by a Poisson process; 0: all at once
  int max_concurrency = 0;  // requests under way at once; 0: no limit
  double timeout_s = 600;   // without a byte from the server
};

// Sends every item as a streamed completion on a connection of its own, and waits for all. Tokens
// are counted by the server's usage. Requests that fail are counted, and left out of the times.
RunMeasure run_http_workload(const HttpBenchOptions& options,
                             const std::vector<WorkloadItem>& items,
                             const SamplingParams& params);

}  // namespace pagemill::cli
