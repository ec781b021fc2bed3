// The HTTP/1.1 client of `pagemill bench serve` and `inspect --memory`: one request a connection,
// its answer read as it comes. http only.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill::cli {

struct HttpUrl {
  std::string host, port, path;  // no slash at the path's end, and none if that is all
};

// "http://HOST[:PORT][/PATH]", IPv6 addresses in brackets. kInvalidArgument for all else.
Result<HttpUrl> parse_http_url(const std::string& text);

// Takes a body of server-sent events in pieces and gives the data of each.
class EventStream {
 public:
  void take(std::string_view bytes, const std::function<void(std::string_view data)>& on_event);

 private:
  std::string line_;
};

struct HttpAnswer {
  int status = 0;
  std::string body;  // of an answer that is not 200
};

// Posts JSON to url.path + `path`. Content of a 200 goes to `on_content` as it arrives, an error's
// body (its first 64 KiB) into the answer. kIo for a connection that fails, is cut, or sends
// nothing for `timeout_s`.
Result<HttpAnswer> post_json(const HttpUrl& url,
                             const std::string& path,
                             const std::string& api_key,
                             const std::string& body,
                             double timeout_s,
                             const std::function<void(std::string_view)>& on_content);

// The same for a GET.
Result<HttpAnswer> get(const HttpUrl& url,
                       const std::string& path,
                       const std::string& api_key,
                       double timeout_s,
                       const std::function<void(std::string_view)>& on_content);

}  // namespace pagemill::cli
