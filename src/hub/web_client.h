// One HTTP exchange at a time, over libcurl: connections are kept, TLS certificates are verified,
// redirects are returned and not followed, so that the caller decides what goes where.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace pagemill {

struct WebResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // what went to no sink; at most max_body_bytes
  std::string redirect_url;                    // absolute; empty without a Location

  bool is_redirect() const { return status >= 300 && status < 400 && !redirect_url.empty(); }
  // A header's value, or an empty string.
  const std::string& header(const std::string& name) const;
};

// Called with the status and headers, and the bytes as they come. An error ends the exchange with
// that error.
using BodySink = std::function<Status(const WebResponse& head, std::span<const std::uint8_t>)>;

struct WebRequest {
  std::string url;
  std::string bearer_token;  // empty: none
  bool head = false;         // HEAD, else GET
  std::int64_t range_begin = 0;
  BodySink sink;  // takes the body of a 2xx; null: WebResponse::body
  std::int64_t max_body_bytes = 1 << 16;
};

class WebClient {
 public:
  // timeout_s: to connect, and for a transfer on which nothing comes.
  explicit WebClient(double timeout_s);
  ~WebClient();
  WebClient(const WebClient&) = delete;
  WebClient& operator=(const WebClient&) = delete;

  // Any status is a response. kUnavailable: the host can't be reached or the connection broke,
  // which may pass; kIo: something that won't, such as a certificate that is not trusted.
  Result<WebResponse> send(const WebRequest& request);

  // Called about once a second and as bytes come; false ends the exchange (kCancelled).
  void set_keep_going(std::function<bool()> keep_going) { keep_going_ = std::move(keep_going); }

 private:
  struct Exchange;
  void prepare(const WebRequest& request, Exchange& exchange);

  struct Curl;
  std::unique_ptr<Curl> curl_;
  const double timeout_s_;
  std::function<bool()> keep_going_;
};

// A URL without what may be secret in it: signatures in the query, a user and password.
std::string printable_url(const std::string& url);
// "https://host:port", to tell whether two URLs lead to the same place; empty if `url` is none.
std::string origin_of(const std::string& url);

}  // namespace pagemill
