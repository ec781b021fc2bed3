// POST /v1/chat/completions
#include "server/endpoints/chat_protocol.h"
#include "server/endpoints/chat_render.h"
#include "server/endpoints/endpoints.h"

namespace pagemill {
namespace {

Result<Request> make_request(const ServerContext& context,
                             const HttpRequest& http,
                             const ChatRequest& chat) {
  const ModelInfo& model = context.engine.model();
  Request request;
  PM_ASSIGN(request.prompt_token_ids, render_chat_tokens(context, chat));
  request.params = chat.params;
  Status fits = fit_max_tokens(model,
                               request.prompt_token_ids.size(),
                               chat.max_tokens,
                               std::nullopt,
                               "messages",
                               request.params);
  if (!fits.ok()) {
    Error error = std::move(fits).error();
    if (error.param == "max_tokens" && chat.max_completion_tokens) {
      error.param = "max_completion_tokens";
    }
    return error;
  }
  request.priority = chat.priority;
  request.cache_salt = chat.cache_salt;
  request.user = http.tenant_or(chat.user);
  return request;
}

Status handle(const ServerContextPtr& context,
              const HttpRequest& http,
              const ResponseWriterPtr& writer) {
  PM_ASSIGN(ChatRequest chat,
            parse_chat_request(http.body, context->engine.model().default_sampling));
  PM_TRY(check_model(*context, chat.model));
  PM_ASSIGN(Request request, make_request(*context, http, chat));
  std::vector<TokenId> shown;
  if (chat.return_token_ids) shown = request.prompt_token_ids;
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  start_generation(
      context,
      writer,
      make_chat_format(new_answer_head(*context, chat, "chatcmpl-"), chat, std::move(shown)),
      std::move(requests));
  return ok_status();
}

}  // namespace

const Endpoint kChatCompletions = {"POST", "/v1/chat/completions", false, handle};

}  // namespace pagemill
