// Request: what a client asks of the engine, tokenised and validated at the door.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "request/sampling_params.h"

namespace pagemill {

struct Request {
  RequestId id = 0;                       // assigned by the EngineClient
  std::vector<TokenId> prompt_token_ids;  // not empty
  SamplingParams params;
  std::int32_t priority = 0;  // lower runs earlier (as vLLM); only under the priority policy
  double arrival_time = 0;    // seconds, the engine's monotonic clock
  std::string cache_salt;     // isolates prefix-cache hits between tenants
  std::string user;           // tenant, for fairness and metrics
};

}  // namespace pagemill
