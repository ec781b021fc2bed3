#include "server/exchange.h"

#include <boost/asio/post.hpp>

#include "server/error_response.h"

namespace pagemill {

Exchange::Exchange(std::weak_ptr<Connection> connection,
                   Connection::Strand strand,
                   ServerContextPtr context,
                   const HttpRequest& request)
    : connection_(std::move(connection)),
      strand_(std::move(strand)),
      context_(std::move(context)),
      method_(request.method),
      http_1_1_(request.http_1_1),
      keep_alive_(request.keep_alive) {}

Exchange::Output Exchange::take() {
  const std::lock_guard lock(mutex_);
  wake_posted_ = false;
  return std::exchange(output_, {});
}

void Exchange::client_gone() {
  std::function<void()> on_disconnect;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || ended_) return;
    gone_ = true;
    on_disconnect = std::move(on_disconnect_);
  }
  if (on_disconnect) on_disconnect();
}

std::string Exchange::route() const {
  const std::lock_guard lock(mutex_);
  return route_;
}

void Exchange::set_route(std::string_view route) {
  const std::lock_guard lock(mutex_);
  route_ = std::string(route);
}

void Exchange::send(HttpResponse response) {
  {
    const std::lock_guard lock(mutex_);
    if (begun_ || ended_) return;
    begun_ = ended_ = true;
    output_.begin = output_.end = true;
    output_.head = std::move(response);
  }
  wake();
}

void Exchange::begin_stream(HttpResponse head) {
  {
    const std::lock_guard lock(mutex_);
    if (begun_ || ended_) return;
    begun_ = true;
    output_.begin = output_.stream = true;
    output_.head = std::move(head);
  }
  wake();
}

bool Exchange::write(std::string_view bytes) {
  bool too_slow = false;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || ended_) return false;
    too_slow = output_.bytes.size() + bytes.size() > context_->options.max_stream_buffer_bytes;
    if (too_slow) {
      ended_ = true;
      output_ = {};
      output_.abandoned = true;
    } else {
      output_.bytes.append(bytes);
    }
  }
  if (too_slow) {
    post([connection = connection_] {
      if (const auto alive = connection.lock()) alive->reset();
    });
  } else {
    wake();
  }
  return !too_slow;
}

void Exchange::end_stream() {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    output_.end = true;
  }
  wake();
}

void Exchange::abandon() {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    output_ = {};
    output_.abandoned = true;
  }
  wake();
}

void Exchange::drop() {
  bool begun = false;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    begun = begun_ || gone_;
  }
  if (begun) {
    abandon();
  } else {
    send(error_response(500, Error{ErrorCode::kInternal, "the request was dropped", {}}));
  }
}

void Exchange::set_on_disconnect(std::function<void()> on_disconnect) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      on_disconnect_ = std::move(on_disconnect);
      return;
    }
  }
  on_disconnect();
}

bool Exchange::disconnected() const {
  const std::lock_guard lock(mutex_);
  return gone_;
}

void Exchange::post(std::function<void()> task) {
  context_->gate.if_open([&] { boost::asio::post(strand_, std::move(task)); });
}

void Exchange::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (wake_posted_) return;
    wake_posted_ = true;
  }
  post([connection = connection_] {
    if (const auto alive = connection.lock()) alive->event_.cancel();
  });
}

namespace {

class Writer : public ResponseWriter {
 public:
  explicit Writer(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~Writer() override { exchange_->drop(); }

  void set_route(std::string_view route) override { exchange_->set_route(route); }
  void send(HttpResponse response) override { exchange_->send(std::move(response)); }
  void begin_stream(HttpResponse head) override { exchange_->begin_stream(std::move(head)); }
  bool write(std::string_view bytes) override { return exchange_->write(bytes); }
  void end_stream() override { exchange_->end_stream(); }
  void abandon() override { exchange_->abandon(); }
  void set_on_disconnect(std::function<void()> on_disconnect) override {
    exchange_->set_on_disconnect(std::move(on_disconnect));
  }
  bool disconnected() const override { return exchange_->disconnected(); }
  void post(std::function<void()> task) override { exchange_->post(std::move(task)); }

 private:
  const std::shared_ptr<Exchange> exchange_;
};

}  // namespace

ResponseWriterPtr make_writer(std::shared_ptr<Exchange> exchange) {
  return std::make_shared<Writer>(std::move(exchange));
}

}  // namespace pagemill
