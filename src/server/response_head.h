// The head of an HTTP answer.
#pragma once

#include <string>

#include "server/http_types.h"

namespace pagemill {

enum class Framing { kLength, kChunked, kUntilClose, kNone };

// Status line and headers, the empty line included. Content-Length is that of response.body.
std::string response_head(const HttpResponse& response, Framing framing, bool keep, bool http_1_1);

}  // namespace pagemill
