// What a request gives back. The names are those that vLLM's users read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace pagemill {

enum class FinishReason { kNone, kStop, kLength, kAbort, kError };
// "stop", "length", "abort", "error"; empty for kNone.
std::string_view to_string(FinishReason reason);

// One candidate token with its log-probability under the raw distribution (before temperature,
// penalties and masks), natural log.
struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.0f;
  std::int32_t rank = 0;  // 1 is the most likely
  std::string text;       // the token decoded alone, possibly not valid UTF-8 by itself
};

// The chosen token first, then the top candidates by descending logprob (the chosen one may recur).
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
};

// What has become known of one sequence since the last delta.
struct CompletionDelta {
  std::int32_t index = 0;                  // 0..n-1
  std::string text;                        // complete characters only
  std::vector<TokenId> token_ids;          // those that produced or preceded `text`
  std::vector<PositionLogprobs> logprobs;  // one per token of token_ids, if asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;  // set when a stop string ended it
  std::optional<TokenId> stop_token;       // set when a stop token (not EOS) ended it
  std::optional<float> beam_score;         // of a beam search's hypothesis, set at its end
};

struct Usage {
  std::int32_t prompt_tokens = 0;
  std::int32_t completion_tokens = 0;  // tokens past a stop string are not counted
  std::int32_t cached_tokens = 0;      // prompt tokens found in the prefix cache
};

struct RequestTimes {  // seconds of the engine's monotonic clock
  double arrival = 0, first_scheduled = 0, first_token = 0, finished = 0;
  double committed = 0;  // when the tokens of this delta were known
};

// One event of a request's stream. The last one has `finished`.
struct RequestDelta {
  RequestId request_id = 0;
  std::vector<CompletionDelta> completions;
  // Once, before or with the first token, if prompt_logprobs was asked for: one entry per prompt
  // token; the first has no distribution (an empty `top` and rank 0).
  std::vector<PositionLogprobs> prompt_logprobs;
  bool finished = false;
  std::optional<Error> error;  // set with `finished` when the request failed
  Usage usage;                 // so far
  RequestTimes times;
};

}  // namespace pagemill
