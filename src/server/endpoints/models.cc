// GET /v1/models and /v1/models/{id}
#include <charconv>

#include "server/endpoints/endpoints.h"
#include "server/generation_request.h"
#include "server/json_out.h"

namespace pagemill {
namespace {

constexpr std::string_view kPrefix = "/v1/models/";

void put_model(JsonOut& json, const ServerContext& context, std::string_view name) {
  const ModelInfo& model = context.engine.model();
  json.begin_object().field("id", name).field("object", "model");
  json.field("created", context.created).field("owned_by", "pagemill");
  json.field("root", model.path).null_field("parent");
  json.field("max_model_len", model.max_model_len).end_object();
}

// Ids such as "org/name" may come with the slash escaped or plain.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size()) {
      const char* first = text.data() + i + 1;
      if (std::from_chars(first, first + 2, byte, 16).ptr == first + 2) {
        out.push_back(static_cast<char>(byte));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

Status handle_list(const ServerContextPtr& context,
                   const HttpRequest&,
                   const ResponseWriterPtr& writer) {
  HttpResponse response;
  JsonOut json(response.body);
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const std::string& name : context->model_names) put_model(json, *context, name);
  json.end_array().end_object();
  writer->send(std::move(response));
  return ok_status();
}

Status handle_one(const ServerContextPtr& context,
                  const HttpRequest& request,
                  const ResponseWriterPtr& writer) {
  const std::string name = percent_decoded(std::string_view(request.path).substr(kPrefix.size()));
  PM_TRY(check_model(*context, name));
  HttpResponse response;
  JsonOut json(response.body);
  put_model(json, *context, name);
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

const Endpoint kModels = {"GET", "/v1/models", false, handle_list};
const Endpoint kModel = {"GET", "/v1/models/*", false, handle_one};

}  // namespace pagemill
