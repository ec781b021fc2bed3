// POST /tokenize: {"prompt"} or {"messages"} to {"count", "max_model_len", "tokens"}.
#include "server/endpoints/chat_render.h"
#include "server/endpoints/endpoints.h"
#include "server/endpoints/tokenize_protocol.h"

namespace pagemill {
namespace {

using T = TokenizeRequest;

constexpr JsonField<T> kFields[] = {
    json_field<&T::model>("model"),
    json_field<&T::prompt>("prompt"),
    json_field<&T::add_special_tokens>("add_special_tokens"),
    json_field<&T::return_token_strs>("return_token_strs"),
};

bool has(JsonElement root, const char* key) {
  JsonElement value;
  return root.is_object() && root[key].get(value) == simdjson::SUCCESS && !value.is_null();
}

Result<std::vector<TokenId>> tokens_of(const ServerContext& context,
                                       const TokenizeRequest& request) {
  if (request.has_messages) return render_chat_tokens(context, request.chat);
  return context.engine.tokenizer()->encode(request.prompt, request.add_special_tokens);
}

Status handle(const ServerContextPtr& context,
              const HttpRequest& http,
              const ResponseWriterPtr& writer) {
  PM_ASSIGN(const TokenizeRequest request, parse_tokenize_request(http.body));
  PM_TRY(check_model(*context, request.model));
  PM_ASSIGN(const std::vector<TokenId> ids, tokens_of(*context, request));
  HttpResponse response;
  JsonOut json(response.body);
  json.begin_object().field("count", ids.size());
  json.field("max_model_len", context->engine.model().max_model_len);
  put_token_ids(json, "tokens", ids);
  if (request.return_token_strs) {
    json.key("token_strs").begin_array();
    for (const TokenId id : ids) json.value(context->engine.tokenizer()->token_piece(id));
    json.end_array();
  }
  json.end_object();
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

Result<TokenizeRequest> parse_tokenize_request(std::string_view body) {
  PM_ASSIGN(const JsonDocument document, JsonDocument::parse(body));
  TokenizeRequest request;
  PM_TRY(read_json_fields<T>(document.root(), "", kFields, request));
  request.has_messages = has(document.root(), "messages");
  if (request.has_messages) {
    PM_ASSIGN(request.chat, parse_chat_request(body, SamplingParams()));
  } else if (!has(document.root(), "prompt")) {
    return invalid_argument("prompt: is required (or messages)", "prompt");
  }
  return request;
}

const Endpoint kTokenize = {"POST", "/tokenize", false, handle};

}  // namespace pagemill
