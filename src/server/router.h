// Endpoints and how requests reach them. A new endpoint is one file in endpoints/ and one line in
// endpoints/endpoints.cc.
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "server/http_types.h"
#include "server/server_context.h"

namespace pagemill {

struct Endpoint {
  std::string_view method;  // "GET" (which serves HEAD too) or "POST"
  std::string_view path;    // exact, or ending in "/*" for everything below
  bool open;                // needs no API key
  // Called on a worker thread. Answers through the writer, now or later; an error that it returns
  // instead is answered for it.
  Status (*handle)(const ServerContextPtr& context,
                   const HttpRequest& request,
                   const ResponseWriterPtr& writer);
  bool while_draining = false;  // answers on until the server has stopped
  bool needs_body = true;       // of a POST: one without a length is refused
};

// Every endpoint (endpoints/endpoints.cc).
std::span<const Endpoint* const> endpoints();

// Finds the endpoint and runs it on a worker; answers 401, 404, 405, 411, 415 and 503 itself.
void dispatch(const ServerContextPtr& context, HttpRequest request, ResponseWriterPtr writer);

}  // namespace pagemill
