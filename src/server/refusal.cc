#include "server/refusal.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/post.hpp>
#include <chrono>
#include <memory>

#include "server/error_response.h"
#include "server/response_head.h"

namespace pagemill {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kLinger = std::chrono::seconds(1);
constexpr int kMaxReads = 16;  // of what a client sends meanwhile; past it, it doesn't read

std::string answer(std::size_t max_connections) {
  const HttpResponse response = error_response(
      503,
      Error{ErrorCode::kUnavailable,
            fmt::format("{} connections are open already; try again later", max_connections),
            {}});
  return response_head(response, Framing::kLength, false, true) + response.body;
}

class Refusal : public std::enable_shared_from_this<Refusal> {
 public:
  Refusal(Connection::Socket socket,
          const Connection::Strand& strand,
          std::function<void()> on_closed)
      : socket_(std::move(socket)), timer_(strand), on_closed_(std::move(on_closed)) {}
  ~Refusal() { on_closed_(); }

  void start(const std::string& bytes) {
    error_code ignored;
    socket_.non_blocking(true, ignored);
    socket_.write_some(asio::buffer(bytes), ignored);  // a new socket's buffer has room for it
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    timer_.expires_after(kLinger);
    timer_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled) self->close();
    });
    discard();
  }

 private:
  // Closing with unread input would reset the connection, and the client might lose the answer.
  void discard() {
    socket_.async_wait(Connection::Socket::wait_read,
                       [self = shared_from_this()](error_code failed) {
                         if (!failed) self->read();
                       });
  }

  void read() {
    std::array<char, 4096> sink;
    error_code ec;
    socket_.read_some(asio::buffer(sink), ec);
    if (ec == asio::error::would_block) ec = {};
    if (ec || ++reads_ == kMaxReads) return close();
    discard();
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
    timer_.cancel();
  }

  Connection::Socket socket_;
  Connection::Timer timer_;
  const std::function<void()> on_closed_;
  int reads_ = 0;
};

}  // namespace

void refuse_connection(Connection::Socket socket,
                       const Connection::Strand& strand,
                       std::size_t max_connections,
                       std::function<void()> on_closed) {
  const auto refusal = std::make_shared<Refusal>(std::move(socket), strand, std::move(on_closed));
  asio::post(strand, [refusal, max_connections] { refusal->start(answer(max_connections)); });
}

}  // namespace pagemill
