#include "server/endpoints/chat_render.h"

namespace pagemill {

Result<std::vector<TokenId>> render_chat_tokens(const ServerContext& context,
                                                const ChatRequest& request) {
  const auto chat_template = context.engine.chat_template();
  if (chat_template == nullptr) {
    return invalid_argument(
        "messages: this model has no chat template; start the server with --chat-template, or use "
        "/v1/completions",
        "messages");
  }
  PM_TRY(check_prompt_bytes(context.engine.model(), request.messages_json.size(), "messages"));
  auto text = chat_template->render(chat_template_context(request));
  if (!text.ok()) {
    Error error = std::move(text).error();
    if (error.param.empty()) error.param = "messages";
    return error;
  }
  PM_ASSIGN(std::vector<TokenId> ids,
            context.engine.tokenizer()->encode(*text, request.add_special_tokens));
  if (ids.empty()) return invalid_argument("messages: the rendered prompt is empty", "messages");
  return ids;
}

}  // namespace pagemill
