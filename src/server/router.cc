#include "server/router.h"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "server/error_response.h"

namespace pagemill {
namespace {

bool matches(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with("/*")) return pattern == path;
  const std::string_view prefix = pattern.substr(0, pattern.size() - 1);
  return path.size() > prefix.size() && path.starts_with(prefix);
}

// Compares in time that depends on the lengths only.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^
                  static_cast<unsigned char>(b.empty() ? '\0' : b[i % b.size()]);
  }
  return difference == 0;
}

// Which of the server's API keys the request came with: none if it needs one.
std::optional<std::size_t> find_key(const ServerContext& context, const HttpRequest& request) {
  const std::vector<std::string>& keys = context.options.api_keys;
  if (keys.empty()) return 0;
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view given = request.header("authorization");
  std::optional<std::size_t> found;
  if (!given.starts_with(kBearer)) return found;
  for (std::size_t i = 0; i < keys.size(); ++i) {  // all of them: the time tells nothing
    if (same_secret(given.substr(kBearer.size()), keys[i])) found = i;
  }
  return found;
}

// A browser can't send application/json to another origin unasked, so insisting on it keeps web
// pages from driving a local server.
bool json_content(const HttpRequest& request) {
  std::string_view type = request.header("content-type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return type.empty() || type == "application/json" || type.ends_with("+json");
}

HttpResponse refused(int status, std::string message, std::string_view code = {}) {
  return error_response(status, invalid_argument(std::move(message)), code);
}

struct Match {
  const Endpoint* endpoint = nullptr;
  std::string allow;  // methods of the path, if it exists
  std::string_view pattern;
};

Match find(const HttpRequest& request) {
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  Match match;
  for (const Endpoint* endpoint : endpoints()) {
    if (!matches(endpoint->path, request.path)) continue;
    match.pattern = endpoint->path;
    match.allow +=
        fmt::format("{}{}", endpoint->method == "GET" ? "GET, HEAD" : endpoint->method, ", ");
    if (endpoint->method == method) match.endpoint = endpoint;
  }
  if (!match.allow.empty()) match.allow += "OPTIONS";
  return match;
}

// The answer that needs no endpoint, or status 0 and the request's tenant set.
HttpResponse early_answer(const ServerContext& context, HttpRequest& request, const Match& match) {
  HttpResponse none;
  none.status = 0;
  const bool drains_too = match.endpoint != nullptr && match.endpoint->while_draining;
  if (context.draining && !drains_too) {
    HttpResponse response =
        error_response(503, Error{ErrorCode::kUnavailable, "the server is shutting down", {}});
    response.close = true;
    return response;
  }
  if (request.method == "OPTIONS" && (!match.allow.empty() || request.path == "*")) {
    HttpResponse response;
    response.status = 204;
    response.headers.emplace_back("Allow",
                                  match.allow.empty() ? "GET, HEAD, POST, OPTIONS" : match.allow);
    return response;
  }
  if (match.allow.empty()) {
    return refused(
        404, fmt::format("no such route: {} {}", request.method, request.path), "not_found");
  }
  if (match.endpoint == nullptr) {
    HttpResponse response = refused(
        405, fmt::format("{} does not take {}; use {}", request.path, request.method, match.allow));
    response.headers.emplace_back("Allow", match.allow);
    return response;
  }
  const auto key = find_key(context, request);
  if (key && context.options.api_keys.size() > 1) request.tenant = fmt::format("key {}", *key);
  if (!match.endpoint->open && !key) {
    HttpResponse response =
        refused(401, "missing or wrong API key; send 'Authorization: Bearer KEY'");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (request.method == "POST") {
    if (match.endpoint->needs_body && !request.has_length) {
      return refused(411, "POST needs a Content-Length or a chunked body");
    }
    if (!json_content(request)) {
      return refused(415,
                     fmt::format("Content-Type: expected application/json, got {}",
                                 request.header("content-type")));
    }
  }
  return none;
}

void run_endpoint(const Endpoint& endpoint,
                  const ServerContextPtr& context,
                  const HttpRequest& request,
                  const ResponseWriterPtr& writer) {
  try {
    const Status status = endpoint.handle(context, request, writer);
    if (!status.ok()) writer->send(error_response(status.error()));
  } catch (const std::exception& e) {
    writer->send(error_response(Error{ErrorCode::kInternal, e.what(), {}}));
  }
}

}  // namespace

void dispatch(const ServerContextPtr& context, HttpRequest request, ResponseWriterPtr writer) {
  const Match match = find(request);
  if (!match.pattern.empty()) writer->set_route(match.pattern);
  HttpResponse early = early_answer(*context, request, match);
  if (early.status != 0) {
    writer->send(std::move(early));
    return;
  }
  // std::function wants copyable captures.
  auto shared_request = std::make_shared<const HttpRequest>(std::move(request));
  const Endpoint* endpoint = match.endpoint;
  context->post_worker([endpoint, context, shared_request, writer = std::move(writer)] {
    run_endpoint(*endpoint, context, *shared_request, writer);
  });
}

}  // namespace pagemill
