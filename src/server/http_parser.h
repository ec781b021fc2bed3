// HttpParser: bytes to an HttpRequest, incrementally and with every size bounded. The shapes that
// let two parsers disagree about where a request ends (RFC 9112, section 11.2) are refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "server/http_types.h"

namespace pagemill {

struct HttpLimits {
  std::size_t max_header_bytes = 32u << 10;
  std::size_t max_body_bytes = 32u << 20;
};

// Why a request was refused: the status to answer before closing the connection.
struct HttpParseError {
  int status = 400;
  std::string message;
};

class HttpParser {
 public:
  enum class State { kHead, kBody, kDone, kError };

  explicit HttpParser(const HttpLimits& limits);
  ~HttpParser();
  HttpParser(HttpParser&&) noexcept;
  HttpParser& operator=(HttpParser&&) noexcept;

  // Takes what it can from the front of `input` and says how many bytes that was; the caller keeps
  // the rest and passes it again with more behind it. 0 with state kHead or kBody: more is needed.
  std::size_t feed(std::string_view input);

  State state() const;
  const HttpParseError& error() const;
  // In kBody: the client waits for "100 Continue" before it sends the body.
  bool expects_continue() const;
  // In kDone, once.
  HttpRequest take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Length of the head at the front of `input`, its blank line included, or 0 while incomplete.
// `resume` carries the position between calls. Sets `problem` for bare CR or LF, NUL, a folded
// header line or a space before a header's colon.
std::size_t scan_http_head(std::string_view input, std::size_t& resume, std::string& problem);

}  // namespace pagemill
