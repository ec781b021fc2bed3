// /v1/chat/completions: what its request and its answer look like.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/answer_json.h"
#include "server/generation.h"
#include "server/generation_request.h"

namespace pagemill {

struct ChatRequest : GenerationRequest {
  ChatRequest() { add_special_tokens = false; }  // the template writes them

  // For the template: a JSON array of messages, each content flattened to a string or null and each
  // tool call's arguments to an object.
  std::string messages_json;
  std::string tools_json;                                            // an array, or empty
  std::vector<std::pair<std::string, std::string>> template_kwargs;  // name, JSON
  std::string last_role, last_content;

  std::optional<std::int32_t> max_completion_tokens;
  bool logprobs = false;
  std::int32_t top_logprobs = 0;
  std::optional<bool> add_generation_prompt;
  bool continue_final_message = false;
};

Result<ChatRequest> parse_chat_request(std::string_view body, const SamplingParams& defaults);

// The context of ChatTemplate::render.
std::string chat_template_context(const ChatRequest& request);

// `prompt_token_ids`: for return_token_ids.
std::unique_ptr<AnswerFormat> make_chat_format(AnswerHead head,
                                               const ChatRequest& request,
                                               std::vector<TokenId> prompt_token_ids);

}  // namespace pagemill
