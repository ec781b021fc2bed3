// Pieces that both endpoints' answers share: usage, stop reason, logprobs, SSE framing.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "request/outputs.h"
#include "server/generation_request.h"
#include "server/json_out.h"

namespace pagemill {

// Field "usage" with prompt_tokens, completion_tokens, total_tokens and the cached ones.
void put_usage(JsonOut& json, const Usage& usage);

// Fields "finish_reason" and "stop_reason" (the stop string or token, null otherwise).
void put_finish(JsonOut& json,
                FinishReason reason,
                const std::optional<std::string>& stop_string,
                const std::optional<TokenId>& stop_token);

// Field "beam_score" if there is one.
void put_beam_score(JsonOut& json, const std::optional<float>& beam_score);

// Field `name` with an array of ids.
void put_token_ids(JsonOut& json, std::string_view name, std::span<const TokenId> ids);

// vLLM's "prompt_logprobs": null for the first token, then {"token id": {"logprob", "rank",
// "decoded_token"}} per position.
void put_prompt_logprobs(JsonOut& json, std::span<const PositionLogprobs> positions);

// A log-probability that JSON can hold: no less than -9999.
float finite_logprob(float logprob);

// Counts the usage of several prompts while their deltas come in.
class UsageCounter {
 public:
  explicit UsageCounter(std::size_t prompts) : usages_(prompts) {}
  void set(std::size_t prompt, const Usage& usage) { usages_[prompt] = usage; }
  Usage total() const;

 private:
  std::vector<Usage> usages_;
};

// "data: " + event + blank line.
inline void put_event(std::string& out, std::string_view event) {
  out += "data: ";
  out += event;
  out += "\n\n";
}

// What every chunk or answer of one request starts with.
struct AnswerHead {
  std::string id;
  std::int64_t created = 0;
  std::string model;
  std::string system_fingerprint;

  // Opens the object and puts id, object, created, model and system_fingerprint.
  void put(JsonOut& json, std::string_view object) const;
};

// Ends a chunk after its choices: its usage as `options` want it, the brace, the blank line.
void end_chunk(std::string& out,
               JsonOut& json,
               const StreamOptions& options,
               const UsageCounter& usage);

// What ends a stream: a chunk with the usage alone, if `options` ask for it, and [DONE].
void put_stream_end(std::string& out,
                    const AnswerHead& head,
                    std::string_view object,
                    const StreamOptions& options,
                    const UsageCounter& usage);

AnswerHead new_answer_head(const ServerContext& context,
                           const GenerationRequest& request,
                           std::string_view id_prefix);

}  // namespace pagemill
