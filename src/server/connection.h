// Connection: one socket. Reads requests in order, hands each to the host's `dispatch`, writes its
// answer, and watches for the client to hang up meanwhile. Everything runs on one strand.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "server/access_log.h"
#include "server/http_parser.h"
#include "server/http_types.h"
#include "server/server_context.h"

namespace pagemill {

// What a connection needs of the server.
struct ConnectionHost {
  ServerContextPtr context;
  std::function<void(HttpRequest, ResponseWriterPtr)> dispatch;
  // An answer is under way between these two; false: nobody waits for it, and it needs no end.
  std::function<bool()> on_exchange_begin;
  std::function<void()> on_exchange_end;
  std::function<void()> on_closed;  // the connection's last word
};

class Exchange;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
  using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Strand>;
  using Timer =
      boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                        boost::asio::wait_traits<std::chrono::steady_clock>,
                                        Strand>;
  using TimePoint = std::chrono::steady_clock::time_point;

  Connection(Socket socket, Strand strand, std::shared_ptr<const ConnectionHost> host);

  void start();
  // Any thread: an idle connection closes, a busy one after its answer.
  void poke();
  // Any thread: tells the current request that its client is gone and closes the socket.
  void kill();

 private:
  friend class Exchange;
  // gcc 12 destroys temporaries of an expression with co_await twice: arguments are named first.
  template <typename T>
  using Task = boost::asio::awaitable<T, Strand>;

  Task<void> run();
  Task<void> read_loop();
  Task<bool> read_request(HttpParser& parser);
  Task<bool> answer(HttpRequest request);
  Task<bool> write_answer(std::shared_ptr<Exchange> exchange);
  Task<void> refuse(HttpParseError error);
  Task<bool> write_all(std::string bytes);
  Task<bool> wait_event(TimePoint deadline);  // false at the deadline
  Task<void> linger();
  void close();
  // Closes and drops what the kernel still holds for a client that doesn't read it.
  void reset();
  void consume(std::size_t size);
  void log_access(AccessRecord record, TimePoint begin) const;

  Strand strand_;
  Socket socket_;
  Timer event_;        // cancelled when run() has something to look at
  Timer space_;        // cancelled when read_loop() may read on
  Timer write_timer_;  // closes the socket when a write makes no progress
  std::shared_ptr<const ConnectionHost> host_;
  std::shared_ptr<Exchange> current_;
  std::string client_;              // address and port
  int status_ = 0;                  // of the current answer; 0: not yet begun
  std::size_t num_bytes_sent_ = 0;  // of the current answer
  std::string in_;                  // received, not yet parsed
  std::size_t in_limit_;            // read_loop() pauses at this size
  bool eof_ = false;                // the client sends no more
  bool closed_ = false;
  bool discarding_ = false;  // lingering: what arrives is dropped
  bool first_request_ = true;
  bool poked_ = false;
};

}  // namespace pagemill
