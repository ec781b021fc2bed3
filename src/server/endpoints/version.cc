// GET /version
#include "server/endpoints/endpoints.h"
#include "server/json_out.h"

#ifndef PM_VERSION
#define PM_VERSION "unknown"
#endif

namespace pagemill {
namespace {

Status handle(const ServerContextPtr& context,
              const HttpRequest&,
              const ResponseWriterPtr& writer) {
  const std::string& version = context->options.version;
  HttpResponse response;
  JsonOut json(response.body);
  json.begin_object().field("version", version.empty() ? std::string(PM_VERSION) : version);
  json.end_object();
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

const Endpoint kVersion = {"GET", "/version", true, handle};

}  // namespace pagemill
