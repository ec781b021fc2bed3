// POST /detokenize: {"tokens"} to {"prompt"}.
#include <fmt/format.h>

#include "server/endpoints/endpoints.h"
#include "server/endpoints/tokenize_protocol.h"

namespace pagemill {
namespace {

using D = DetokenizeRequest;

constexpr JsonField<D> kFields[] = {
    json_field<&D::model>("model"),
    json_field<&D::tokens>("tokens"),
    json_field<&D::skip_special_tokens>("skip_special_tokens"),
};

Status handle(const ServerContextPtr& context,
              const HttpRequest& http,
              const ResponseWriterPtr& writer) {
  PM_ASSIGN(const DetokenizeRequest request, parse_detokenize_request(http.body));
  PM_TRY(check_model(*context, request.model));
  const auto tokenizer = context->engine.tokenizer();
  for (std::size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] >= 0 && request.tokens[i] < tokenizer->vocab_size()) continue;
    return invalid_argument(fmt::format("tokens[{}]: {} is not in the vocabulary, 0 to {}",
                                        i,
                                        request.tokens[i],
                                        tokenizer->vocab_size() - 1),
                            "tokens");
  }
  PM_ASSIGN(const std::string text, tokenizer->decode(request.tokens, request.skip_special_tokens));
  HttpResponse response;
  JsonOut json(response.body);
  json.begin_object().field("prompt", text).end_object();
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

Result<DetokenizeRequest> parse_detokenize_request(std::string_view body) {
  PM_ASSIGN(const JsonDocument document, JsonDocument::parse(body));
  DetokenizeRequest request;
  PM_TRY(read_json_fields<D>(document.root(), "", kFields, request));
  JsonElement tokens;
  if (document.root()["tokens"].get(tokens) != simdjson::SUCCESS || tokens.is_null()) {
    return invalid_argument("tokens: is required", "tokens");
  }
  return request;
}

const Endpoint kDetokenize = {"POST", "/detokenize", false, handle};

}  // namespace pagemill
