#include "server/connection.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/logging.h"
#include "server/error_response.h"
#include "server/exchange.h"
#include "server/response_head.h"

namespace pagemill {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kReadBytes = 16u << 10;
constexpr auto kLinger = std::chrono::seconds(2);

const asio::use_awaitable_t<Connection::Strand> kAwait;

Connection::TimePoint after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

Connection::Connection(Socket socket, Strand strand, std::shared_ptr<const ConnectionHost> host)
    : strand_(std::move(strand)),
      socket_(std::move(socket)),
      event_(strand_),
      space_(strand_),
      write_timer_(strand_),
      host_(std::move(host)),
      in_limit_(std::max<std::size_t>(host_->context->options.max_header_bytes + kReadBytes,
                                      64u << 10)) {}

void Connection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  const asio::ip::tcp::endpoint client = socket_.remote_endpoint(ignored);
  const std::string address = client.address().to_string();
  client_ = client.address().is_v6() ? fmt::format("[{}]:{}", address, client.port())
                                     : fmt::format("{}:{}", address, client.port());
  // Each coroutine holds the connection until it ends.
  const auto finished = [self = shared_from_this()](const std::exception_ptr&) {};
  asio::co_spawn(strand_, read_loop(), finished);
  asio::co_spawn(strand_, run(), [self = shared_from_this()](const std::exception_ptr&) {
    self->close();
    self->host_->on_closed();
  });
}

void Connection::poke() {
  asio::post(strand_, [self = shared_from_this()] {
    self->poked_ = true;
    self->event_.cancel();
  });
}

void Connection::kill() {
  asio::post(strand_, [self = shared_from_this()] { self->close(); });
}

void Connection::close() {
  if (closed_) return;
  closed_ = eof_ = true;
  if (current_) current_->client_gone();
  error_code ignored;
  socket_.close(ignored);
  event_.cancel();
  space_.cancel();
  write_timer_.cancel();
}

void Connection::reset() {
  error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

auto Connection::wait_event(TimePoint deadline) -> Task<bool> {
  error_code ec;
  event_.expires_at(deadline);
  co_await event_.async_wait(asio::redirect_error(kAwait, ec));
  co_return ec == asio::error::operation_aborted;
}

auto Connection::run() -> Task<void> {
  while (!closed_) {
    const HttpLimits limits{host_->context->options.max_header_bytes,
                            host_->context->options.max_body_bytes};
    HttpParser parser(limits);
    const bool complete = co_await read_request(parser);
    if (!complete) break;
    if (parser.state() == HttpParser::State::kError) {
      HttpParseError problem = parser.error();
      co_await refuse(std::move(problem));
      break;
    }
    HttpRequest request = parser.take();
    const bool keep = co_await answer(std::move(request));
    first_request_ = false;
    if (!keep) {
      co_await linger();
      break;
    }
  }
}

auto Connection::read_loop() -> Task<void> {
  std::string buffer(kReadBytes, '\0');
  while (!closed_) {
    if (in_.size() >= in_limit_) {
      error_code ignored;
      space_.expires_at(TimePoint::max());
      co_await space_.async_wait(asio::redirect_error(kAwait, ignored));
      continue;
    }
    error_code ec;
    const std::size_t size = co_await socket_.async_read_some(
        asio::buffer(buffer.data(), buffer.size()), asio::redirect_error(kAwait, ec));
    if (ec) break;
    if (!discarding_) in_.append(buffer, 0, size);
    event_.cancel();
  }
  eof_ = true;
  if (current_) current_->client_gone();
  event_.cancel();
}

void Connection::consume(std::size_t size) {
  in_.erase(0, size);
  if (in_.size() < in_limit_) space_.cancel();
}

// True when the parser is done or has an error; false when the connection should just close.
auto Connection::read_request(HttpParser& parser) -> Task<bool> {
  const ServerOptions& options = host_->context->options;
  bool started = false, in_body = false;
  TimePoint deadline = after(first_request_ ? options.header_timeout_s : options.idle_timeout_s);
  while (!closed_) {
    if (!in_.empty()) {
      if (!started) deadline = after(options.header_timeout_s);
      started = true;
      const std::size_t taken = parser.feed(in_);
      consume(taken);
      if (parser.state() == HttpParser::State::kDone) co_return true;
      if (parser.state() == HttpParser::State::kError) co_return true;
      if (parser.state() == HttpParser::State::kBody && !in_body) {
        in_body = true;
        deadline = after(options.body_timeout_s);
        if (parser.expects_continue() && in_.empty()) {
          std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
          const bool sent = co_await write_all(std::move(go_on));
          if (!sent) co_return false;
        }
      }
      if (taken > 0) continue;
    }
    if (eof_) co_return false;
    if (!started && poked_) co_return false;
    const bool woken = co_await wait_event(deadline);
    if (woken || Clock::now() < deadline) continue;
    if (started) {
      HttpParseError late{408, "the request's head took too long"};
      if (in_body) late.message = "the request's body took too long";
      co_await refuse(std::move(late));
    }
    co_return false;
  }
  co_return false;
}

auto Connection::answer(HttpRequest request) -> Task<bool> {
  const TimePoint begin = Clock::now();
  AccessRecord record = access_record(client_, request);
  status_ = 0;
  num_bytes_sent_ = 0;
  const bool counted = host_->on_exchange_begin();
  const auto exchange =
      std::make_shared<Exchange>(weak_from_this(), strand_, host_->context, request);
  current_ = exchange;
  if (eof_) exchange->client_gone();
  host_->dispatch(std::move(request), make_writer(exchange));
  const bool keep = co_await write_answer(exchange);
  exchange->client_gone();  // a no-op unless the answer was cut short
  current_.reset();
  log_access(std::move(record), begin);
  if (counted) host_->on_exchange_end();
  co_return keep;
}

void Connection::log_access(AccessRecord record, TimePoint begin) const {
  if (!host_->context->options.access_log) return;
  if (status_ != 0) record.status = status_;
  record.num_bytes = num_bytes_sent_;
  record.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  spdlog::info(access_line(record));
}

// True when the connection may serve another request.
auto Connection::write_answer(std::shared_ptr<Exchange> exchange) -> Task<bool> {
  bool keep = exchange->keep_alive();
  Framing framing = Framing::kLength;
  while (!closed_) {
    Exchange::Output output = exchange->take();
    if (output.abandoned) co_return false;
    if (output.empty()) {
      co_await wait_event(TimePoint::max());
      continue;
    }
    std::string bytes;
    if (output.begin) {
      if (output.head.close || poked_ || host_->context->draining) keep = false;
      if (output.stream) framing = exchange->http_1_1() ? Framing::kChunked : Framing::kUntilClose;
      if (framing == Framing::kUntilClose) keep = false;
      if (output.head.status == 204) framing = Framing::kNone;
      status_ = output.head.status;
      host_->context->metrics->count_http(exchange->route(), exchange->method(), status_);
      bytes = response_head(output.head, framing, keep, exchange->http_1_1());
      if (!output.stream && exchange->method() != "HEAD") bytes += output.head.body;
    }
    if (framing == Framing::kChunked && !output.bytes.empty()) {
      fmt::format_to(
          std::back_inserter(bytes), "{:x}\r\n{}\r\n", output.bytes.size(), output.bytes);
    } else {
      bytes += output.bytes;
    }
    if (framing == Framing::kChunked && output.end) bytes += "0\r\n\r\n";
    const bool sent = co_await write_all(std::move(bytes));
    if (!sent) co_return false;
    if (output.end) co_return keep;
  }
  co_return false;
}

auto Connection::refuse(HttpParseError error) -> Task<void> {
  HttpResponse response =
      error_response(error.status, Error{ErrorCode::kInvalidArgument, error.message, {}});
  host_->context->metrics->count_http("malformed", "", error.status);
  std::string bytes = response_head(response, Framing::kLength, false, true) + response.body;
  const TimePoint begin = Clock::now();
  status_ = error.status;
  num_bytes_sent_ = 0;
  const bool sent = co_await write_all(std::move(bytes));
  log_access({.client = client_}, begin);
  if (sent) co_await linger();
}

// Writes what the kernel takes at once, waits for room for the rest. False: the client is gone, or
// took nothing for write_timeout_s.
auto Connection::write_all(std::string bytes) -> Task<bool> {
  std::size_t done = 0;
  while (done < bytes.size() && !closed_) {
    error_code ec;
    const std::size_t size =
        socket_.write_some(asio::buffer(bytes.data() + done, bytes.size() - done), ec);
    done += size;
    num_bytes_sent_ += size;
    if (!ec) continue;
    if (ec != asio::error::would_block && ec != asio::error::try_again) co_return false;
    write_timer_.expires_at(after(host_->context->options.write_timeout_s));
    const auto on_timeout = [weak = weak_from_this()](error_code waited) {
      const auto self = weak.lock();
      if (!waited && self) self->close();
    };
    write_timer_.async_wait(on_timeout);
    co_await socket_.async_wait(Socket::wait_write, asio::redirect_error(kAwait, ec));
    write_timer_.cancel();
    if (ec) co_return false;
  }
  co_return !closed_;
}

// Lets the client read the last answer: closing with unread input would reset the connection.
auto Connection::linger() -> Task<void> {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  discarding_ = true;
  consume(in_.size());
  const TimePoint deadline = Clock::now() + kLinger;
  while (!eof_ && !closed_ && Clock::now() < deadline) co_await wait_event(deadline);
}

}  // namespace pagemill
