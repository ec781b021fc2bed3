// POST /v1/completions
#include <fmt/format.h>

#include "server/endpoints/completion_protocol.h"
#include "server/endpoints/endpoints.h"

namespace pagemill {
namespace {

// OpenAI's default where the client gives none.
constexpr std::int32_t kDefaultMaxTokens = 16;

// Fills the side that the client left out: ids from text; text from ids if it will be echoed.
Status tokenise(const ServerContext& context,
                const CompletionRequest& request,
                PromptInput& prompt) {
  const ModelInfo& model = context.engine.model();
  const auto tokenizer = context.engine.tokenizer();
  if (prompt.is_text) {
    PM_TRY(check_prompt_bytes(model, prompt.text.size(), "prompt"));
    PM_ASSIGN(prompt.token_ids, tokenizer->encode(prompt.text, request.add_special_tokens));
    if (prompt.token_ids.empty()) return invalid_argument("prompt: has no tokens", "prompt");
    return ok_status();
  }
  for (const TokenId id : prompt.token_ids) {
    if (id >= 0 && id < model.vocab_size) continue;
    return invalid_argument(
        fmt::format(
            "prompt: token id {} is not in the vocabulary, 0 to {}", id, model.vocab_size - 1),
        "prompt");
  }
  if (request.echo) {
    PM_ASSIGN(prompt.text, tokenizer->decode(prompt.token_ids, false));
  }
  return ok_status();
}

Result<std::vector<Request>> make_requests(const ServerContext& context,
                                           const HttpRequest& http,
                                           CompletionRequest& request) {
  std::vector<Request> requests;
  for (PromptInput& prompt : request.prompts) {
    PM_TRY(tokenise(context, request, prompt));
    Request one;
    one.prompt_token_ids = prompt.token_ids;
    one.params = request.params;
    PM_TRY(fit_max_tokens(context.engine.model(),
                          prompt.token_ids.size(),
                          request.max_tokens,
                          kDefaultMaxTokens,
                          "prompt",
                          one.params));
    one.priority = request.priority;
    one.cache_salt = request.cache_salt;
    one.user = http.tenant_or(request.user);
    requests.push_back(std::move(one));
  }
  return requests;
}

Status handle(const ServerContextPtr& context,
              const HttpRequest& http,
              const ResponseWriterPtr& writer) {
  PM_ASSIGN(CompletionRequest request,
            parse_completion_request(http.body,
                                     context->engine.model().default_sampling,
                                     context->options.max_prompts_per_request));
  PM_TRY(check_model(*context, request.model));
  PM_ASSIGN(std::vector<Request> requests, make_requests(*context, http, request));
  std::vector<PromptInput> prompts = std::move(request.prompts);
  start_generation(context,
                   writer,
                   make_completion_format(
                       new_answer_head(*context, request, "cmpl-"), request, std::move(prompts)),
                   std::move(requests));
  return ok_status();
}

}  // namespace

const Endpoint kCompletions = {"POST", "/v1/completions", false, handle};

}  // namespace pagemill
