// GET /health: 200 while the server takes requests (a draining one answers 503 to everything).
#include "server/endpoints/endpoints.h"

namespace pagemill {
namespace {

Status handle(const ServerContextPtr&, const HttpRequest&, const ResponseWriterPtr& writer) {
  HttpResponse response;
  response.body = R"({"status":"ok"})";
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

const Endpoint kHealth = {"GET", "/health", true, handle};

}  // namespace pagemill
