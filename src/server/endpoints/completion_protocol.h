// /v1/completions: what its request and its answer look like.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_json.h"
#include "server/generation.h"
#include "server/generation_request.h"

namespace pagemill {

// A prompt as text or as token ids.
struct PromptInput {
  std::string text;
  std::vector<TokenId> token_ids;
  bool is_text = true;
};

struct CompletionRequest : GenerationRequest {
  std::vector<PromptInput> prompts;  // not empty
  std::optional<std::int32_t> logprobs;
  bool prompt_only = false;  // echo with max_tokens 0: the prompt's own logprobs
};

// `defaults`: the model's sampling parameters, where the client leaves a field out.
Result<CompletionRequest> parse_completion_request(std::string_view body,
                                                   const SamplingParams& defaults,
                                                   std::size_t max_prompts);

// "tokens", "token_logprobs", "top_logprobs" and "text_offset" of OpenAI's legacy format.
// `offset` counts code points of the answer's text and moves on.
void put_completion_logprobs(JsonOut& json,
                             std::span<const PositionLogprobs> positions,
                             std::int64_t& offset);

// `prompts`: the text and token ids of each, for echo and return_token_ids.
std::unique_ptr<AnswerFormat> make_completion_format(AnswerHead head,
                                                     const CompletionRequest& request,
                                                     std::vector<PromptInput> prompts);

}  // namespace pagemill
