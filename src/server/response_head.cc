#include "server/response_head.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <iterator>
#include <string_view>

namespace pagemill {
namespace {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

}  // namespace

std::string response_head(const HttpResponse& response, Framing framing, bool keep, bool http_1_1) {
  std::string out =
      fmt::format("HTTP/1.1 {} {}\r\nServer: pagemill\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n",
                  response.status,
                  reason_phrase(response.status),
                  fmt::gmtime(std::time(nullptr)));
  auto sink = std::back_inserter(out);
  if (framing != Framing::kNone)
    fmt::format_to(sink, "Content-Type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers)
    fmt::format_to(sink, "{}: {}\r\n", name, value);
  if (framing == Framing::kLength) {
    fmt::format_to(sink, "Content-Length: {}\r\n", response.body.size());
  } else if (framing == Framing::kChunked) {
    out += "Transfer-Encoding: chunked\r\n";
  }
  if (!keep) {
    out += "Connection: close\r\n";
  } else if (!http_1_1) {
    out += "Connection: keep-alive\r\n";
  }
  out += "\r\n";
  return out;
}

}  // namespace pagemill
