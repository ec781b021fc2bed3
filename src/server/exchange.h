// Exchange: the meeting point of one request's endpoint (any thread) and its connection (strand).
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "server/connection.h"

namespace pagemill {

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::weak_ptr<Connection> connection,
           Connection::Strand strand,
           ServerContextPtr context,
           const HttpRequest& request);

  // What the connection should do next; moved out of the exchange.
  struct Output {
    bool begin = false;  // `head` starts the answer; its body too unless `stream`
    bool stream = false;
    HttpResponse head;
    std::string bytes;       // of a stream
    bool end = false;        // the answer is complete after `bytes`
    bool abandoned = false;  // close without (more) answer
    bool empty() const { return !begin && bytes.empty() && !end && !abandoned; }
  };
  Output take();
  void client_gone();  // strand

  const std::string& method() const { return method_; }
  bool http_1_1() const { return http_1_1_; }
  bool keep_alive() const { return keep_alive_; }
  std::string route() const;

  // ResponseWriter's operations.
  void set_route(std::string_view route);
  void send(HttpResponse response);
  void begin_stream(HttpResponse head);
  bool write(std::string_view bytes);
  void end_stream();
  void abandon();
  void drop();  // the last writer is gone
  void set_on_disconnect(std::function<void()> on_disconnect);
  bool disconnected() const;
  void post(std::function<void()> task);

 private:
  void wake();  // the connection looks at take() again

  const std::weak_ptr<Connection> connection_;
  const Connection::Strand strand_;
  const ServerContextPtr context_;
  const std::string method_;
  const bool http_1_1_, keep_alive_;

  mutable std::mutex mutex_;
  std::string route_ = "unknown";
  Output output_;
  bool begun_ = false, ended_ = false, gone_ = false;
  bool wake_posted_ = false;
  std::function<void()> on_disconnect_;
};

// The endpoint's handle; its destruction without an answer sends 500.
ResponseWriterPtr make_writer(std::shared_ptr<Exchange> exchange);

}  // namespace pagemill
