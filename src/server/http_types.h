// What endpoints see of HTTP: a parsed request, an answer, and where to send it. The transport
// (connection.cc, http_parser.cc) is behind these; endpoints include neither Asio nor Beast.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pagemill {

struct HttpRequest {
  std::string method;                                        // "GET", as sent
  std::string path;                                          // before '?', not percent-decoded
  std::string query;                                         // after '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  bool http_1_1 = true;
  bool keep_alive = true;
  bool has_length = false;  // Content-Length or chunked coding was given
  std::string tenant;       // which API key it came with; empty unless there are several

  // Whom the request is served for: a key's owner can't pass for another by `user`.
  std::string tenant_or(const std::string& user) const { return tenant.empty() ? user : tenant; }

  // The first header of that (lower-case) name, or empty.
  std::string_view header(std::string_view name) const {
    const auto it = std::find_if(
        headers.begin(), headers.end(), [&](const auto& entry) { return entry.first == name; });
    return it == headers.end() ? std::string_view() : std::string_view(it->second);
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  bool close = false;  // the connection closes after this answer
};

// The answer to one request. Every method may be called from any thread and never blocks. Dropping
// the last reference without an answer sends 500, or cuts the stream.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // The route's pattern, for metrics; set once, before the answer.
  virtual void set_route(std::string_view route) = 0;

  // The whole answer at once.
  virtual void send(HttpResponse response) = 0;

  // Or a stream: its head (the body is ignored), any number of writes, its end.
  virtual void begin_stream(HttpResponse head) = 0;
  // Queues bytes. False when the client is gone or so slow that the buffer is full: the stream is
  // then dead and the caller should abort what feeds it.
  virtual bool write(std::string_view bytes) = 0;
  virtual void end_stream() = 0;
  // No (more) answer: closes the connection.
  virtual void abandon() = 0;

  // Called once when the client hangs up before the answer is complete, on the connection's strand;
  // at once if it already has.
  virtual void set_on_disconnect(std::function<void()> on_disconnect) = 0;
  virtual bool disconnected() const = 0;

  // Runs `task` on the connection's strand: tasks of one connection never overlap and keep their
  // order. Dropped after the server has stopped.
  virtual void post(std::function<void()> task) = 0;
};

using ResponseWriterPtr = std::shared_ptr<ResponseWriter>;

}  // namespace pagemill
