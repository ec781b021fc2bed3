// POST /reset_prefix_cache: requests from now on find no prefix computed before. No body.
#include "server/endpoints/endpoints.h"

namespace pagemill {
namespace {

Status handle(const ServerContextPtr& context,
              const HttpRequest&,
              const ResponseWriterPtr& writer) {
  context->engine.reset_prefix_cache();
  writer->send({});
  return ok_status();
}

}  // namespace

const Endpoint kResetPrefixCache = {
    "POST", "/reset_prefix_cache", false, handle, /*while_draining=*/false, /*needs_body=*/false};

}  // namespace pagemill
