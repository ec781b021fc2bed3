#include <fmt/format.h>

#include "server/endpoints/completion_protocol.h"

namespace pagemill {
namespace {

constexpr std::int32_t kMaxLogprobs = 20;

Status read_token_prompt(JsonElement element, const std::string& path, PromptInput& out) {
  out.is_text = false;
  PM_TRY(read_json(element, path, out.token_ids));
  if (out.token_ids.empty()) return invalid_argument(path + ": has no tokens", "prompt");
  return ok_status();
}

Status read_text_prompt(JsonElement element, PromptInput& out) {
  out.text = std::string(std::string_view(element));
  return ok_status();
}

// A string, an array of strings, an array of token ids or an array of those.
Status read_prompt(JsonElement element, const std::string& path, CompletionRequest& out) {
  out.prompts.clear();
  if (element.is_string()) return read_text_prompt(element, out.prompts.emplace_back());
  if (!element.is_array()) return json_expected(path, "string or array", element);
  const simdjson::dom::array items = element;
  if (items.size() == 0) return invalid_argument("prompt: the array is empty", "prompt");
  if (items.at(0).is_number()) return read_token_prompt(element, path, out.prompts.emplace_back());
  for (const JsonElement item : items) {
    const std::string where = json_index(path, out.prompts.size());
    PromptInput& prompt = out.prompts.emplace_back();
    if (item.is_string()) {
      PM_TRY(read_text_prompt(item, prompt));
    } else if (item.is_array()) {
      PM_TRY(read_token_prompt(item, where, prompt));
    } else {
      return json_expected(where, "string or array of token ids", item);
    }
  }
  return ok_status();
}

constexpr JsonField<CompletionRequest> kFields[] = {
    {"prompt", read_prompt},
    json_field<&CompletionRequest::logprobs>("logprobs"),
};

Status check(CompletionRequest& request, std::size_t max_prompts) {
  PM_TRY(check_generation_request(request));
  if (request.prompts.empty()) return invalid_argument("prompt: is required", "prompt");
  if (request.prompts.size() > max_prompts) {
    return invalid_argument(fmt::format("prompt: at most {} prompts in one request, got {}",
                                        max_prompts,
                                        request.prompts.size()),
                            "prompt");
  }
  if (request.logprobs && (*request.logprobs < 0 || *request.logprobs > kMaxLogprobs)) {
    return invalid_argument(
        fmt::format("logprobs: must be between 0 and {}, got {}", kMaxLogprobs, *request.logprobs),
        "logprobs");
  }
  SamplingParams& params = request.params;
  params.logprobs = request.logprobs;
  if (request.echo && request.max_tokens == 0) {
    // Nothing is to be generated, but the engine's least is one token: its output is dropped.
    request.prompt_only = true;
    request.max_tokens = 1;
    params.min_tokens = 0;
  }
  if (request.echo && request.logprobs && !params.prompt_logprobs) {
    params.prompt_logprobs = request.logprobs;
  }
  return ok_status();
}

}  // namespace

Result<CompletionRequest> parse_completion_request(std::string_view body,
                                                   const SamplingParams& defaults,
                                                   std::size_t max_prompts) {
  PM_ASSIGN(const JsonDocument document, JsonDocument::parse(body));
  CompletionRequest request;
  request.params = defaults;
  PM_TRY(refuse_unsupported(document.root()));
  PM_TRY(read_generation_request(document.root(), request));
  PM_TRY(read_json_fields<CompletionRequest>(document.root(), "", kFields, request));
  PM_TRY(check(request, max_prompts));
  return request;
}

}  // namespace pagemill
