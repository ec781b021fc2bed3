#include "server/error_response.h"

#include "server/json_out.h"

namespace pagemill {
namespace {

// A request over the context length is told apart by its code, as OpenAI's is.
constexpr std::string_view kContextLength = "maximum context length";

std::string_view error_type(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  if (status == 503) return "service_unavailable_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string_view default_code(int status, const Error& error) {
  if (status == 404 && error.param == "model") return "model_not_found";
  switch (status) {
    case 401:
      return "invalid_api_key";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_exceeded";
    case 503:
      return "service_unavailable";
    default:
      break;
  }
  if (error.message.find(kContextLength) != std::string::npos) return "context_length_exceeded";
  return {};
}

}  // namespace

int http_status(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kTooLarge:
      return 413;
    case ErrorCode::kResourceExhausted:
      return 429;
    case ErrorCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

std::string error_json(int status, const Error& error, std::string_view code) {
  if (code.empty()) code = default_code(status, error);
  std::string out;
  JsonOut json(out);
  json.begin_object().key("error").begin_object();
  json.field("message", error.message).field("type", error_type(status));
  error.param.empty() ? json.null_field("param") : json.field("param", error.param);
  code.empty() ? json.null_field("code") : json.field("code", code);
  json.end_object().end_object();
  return out;
}

HttpResponse error_response(int status, const Error& error, std::string_view code) {
  HttpResponse response;
  response.status = status;
  response.body = error_json(status, error, code);
  if (status == 429) response.headers.emplace_back("Retry-After", "1");
  if (status == 503) response.headers.emplace_back("Retry-After", "5");
  return response;
}

HttpResponse error_response(const Error& error) {
  return error_response(http_status(error), error);
}

}  // namespace pagemill
