#include "server/testing/http_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"

namespace pagemill {
namespace {

using Clock = std::chrono::steady_clock;

bool readable(int fd, Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(0, left.count()))) > 0;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

void parse_head(std::string_view head, TestResponse& out) {
  out.status = std::stoi(std::string(head.substr(9, 3)));
  std::size_t line = head.find("\r\n") + 2;
  while (line < head.size()) {
    const std::size_t end = head.find("\r\n", line);
    const std::string_view text = head.substr(line, end - line);
    const std::size_t colon = text.find(": ");
    if (colon != std::string_view::npos) {
      out.headers[lower(std::string(text.substr(0, colon)))] = std::string(text.substr(colon + 2));
    }
    if (end == std::string_view::npos) break;
    line = end + 2;
  }
}

}  // namespace

TestClient::TestClient(std::uint16_t port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PM_CHECK(fd_ >= 0, "socket: errno {}", errno);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int rc = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (rc != 0) close();
}

TestClient::TestClient(TestClient&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}

TestClient::~TestClient() { close(); }

void TestClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void TestClient::reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close();
}

void TestClient::half_close() { shutdown(fd_, SHUT_WR); }

void TestClient::shrink_receive_buffer() {
  const int size = 4096;
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

void TestClient::send(std::string_view bytes) {
  while (!bytes.empty() && fd_ >= 0) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void TestClient::send_request(std::string_view method,
                              std::string_view path,
                              std::string_view body) {
  std::string bytes = fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n", method, path);
  if (method == "POST") {
    bytes += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  }
  bytes += "\r\n";
  bytes += body;
  send(bytes);
}

TestResponse TestClient::request(std::string_view method,
                                 std::string_view path,
                                 std::string_view body) {
  send_request(method, path, body);
  return read_response();
}

bool TestClient::fill(Clock::time_point deadline) {
  if (fd_ < 0 || !readable(fd_, deadline)) return false;
  char bytes[16384];
  const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
  if (n <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(n));
  return true;
}

TestResponse TestClient::read_response(std::chrono::seconds timeout) {
  const auto deadline = Clock::now() + timeout;
  TestResponse out;
  std::size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill(deadline)) return out;
  }
  parse_head(std::string_view(buffer_).substr(0, end), out);
  buffer_.erase(0, end + 4);
  if (out.status == 204 || out.status == 100) {
    out.complete = true;
  } else if (out.headers.count("content-length") > 0) {
    const std::size_t size = std::stoul(out.headers["content-length"]);
    while (buffer_.size() < size && fill(deadline)) {
    }
    out.complete = buffer_.size() >= size;
    out.body = buffer_.substr(0, size);
    buffer_.erase(0, size);
  } else if (out.headers.count("transfer-encoding") > 0) {
    for (;;) {
      while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (!fill(deadline)) return out;
      }
      const std::size_t size = std::stoul(buffer_, nullptr, 16);
      while (buffer_.size() < end + 2 + size + 2) {
        if (!fill(deadline)) return out;
      }
      out.body += buffer_.substr(end + 2, size);
      buffer_.erase(0, end + 2 + size + 2);
      if (size > 0) continue;
      out.complete = true;
      return out;
    }
  } else {
    while (fill(deadline)) {
    }
    out.body = std::exchange(buffer_, {});
    out.complete = true;
  }
  return out;
}

std::string TestClient::read_some(std::size_t size, std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  if (buffer_.empty()) fill(deadline);
  std::string out = buffer_.substr(0, size);
  buffer_.erase(0, out.size());
  return out;
}

bool TestClient::closed_within(std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (fd_ >= 0 && Clock::now() < deadline) {
    if (!readable(fd_, deadline)) continue;
    char bytes[4096];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n <= 0) return true;
  }
  return fd_ < 0;
}

std::vector<std::string> sse_events(std::string_view body) {
  std::vector<std::string> events;
  while (!body.empty()) {
    const std::size_t end = body.find("\n\n");
    const std::string_view event = body.substr(0, end);
    if (event.substr(0, 6) == "data: ") events.emplace_back(event.substr(6));
    if (end == std::string_view::npos) break;
    body.remove_prefix(end + 2);
  }
  return events;
}

}  // namespace pagemill
