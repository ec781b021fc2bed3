// Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>

#include "base/result.h"
#include "server/http_types.h"

namespace pagemill {

// 400, 404, 413, 429, 503, 501 or 500 for each ErrorCode.
int http_status(const Error& error);

// The error object as JSON. `code` is OpenAI's machine-readable one, chosen by status if empty.
std::string error_json(int status, const Error& error, std::string_view code = {});

// The answer; 429 and 503 carry Retry-After.
HttpResponse error_response(int status, const Error& error, std::string_view code = {});
HttpResponse error_response(const Error& error);

}  // namespace pagemill
