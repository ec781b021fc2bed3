// A blocking loopback HTTP client for tests, on plain sockets: it can send what no well-behaved
// client would.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pagemill {

struct TestResponse {
  int status = 0;                              // 0: the connection closed without an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool complete = false;                       // ended as its framing says
};

class TestClient {
 public:
  explicit TestClient(std::uint16_t port);
  ~TestClient();
  TestClient(TestClient&& other) noexcept;
  TestClient(const TestClient&) = delete;

  void send(std::string_view bytes);  // ignores a closed connection
  TestResponse request(std::string_view method, std::string_view path, std::string_view body = {});
  void send_request(std::string_view method, std::string_view path, std::string_view body = {});
  // The next answer, however long it takes up to `timeout`.
  TestResponse read_response(std::chrono::seconds timeout = std::chrono::seconds(20));
  // Up to `size` bytes as they come; empty at the end of the stream or the timeout.
  std::string read_some(std::size_t size, std::chrono::milliseconds timeout);
  // True when the peer closed (or reset) within `timeout`.
  bool closed_within(std::chrono::milliseconds timeout);
  void shrink_receive_buffer();  // a client that reads nothing fills up sooner
  void reset();                  // closes with RST
  void half_close();
  void close();

 private:
  bool fill(std::chrono::steady_clock::time_point deadline);

  int fd_ = -1;
  std::string buffer_;
};

// The payloads of an SSE body, in order, "[DONE]" included.
std::vector<std::string> sse_events(std::string_view body);

}  // namespace pagemill
