#include "server/server.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "server/connection.h"
#include "server/error_response.h"
#include "server/refusal.h"
#include "server/router.h"

namespace pagemill {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr auto kStopWait =
    std::chrono::seconds(10);  // for the engine to let go of aborted requests
constexpr auto kCloseWait = std::chrono::seconds(3);  // for lingering connections after a drain
// Connections past the limit that are being told so; more are closed without a word.
constexpr int kMaxRefusals = 64;
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);

std::string last_component(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  if (slash != std::string::npos && slash + 1 < path.size()) path = path.substr(slash + 1);
  if (path.ends_with(".gguf")) path.resize(path.size() - 5);
  return path.empty() ? "model" : path;
}

Status check_options(const ServerOptions& options) {
  if (options.io_threads < 1 || options.worker_threads < 1) {
    return invalid_argument("server: io_threads and worker_threads must be at least 1");
  }
  if (options.max_header_bytes < 1024 || options.max_header_bytes > (16u << 20)) {
    return invalid_argument("server: max_header_bytes must be between 1 KiB and 16 MiB");
  }
  if (options.max_connections < 1 || options.max_body_bytes < 1) {
    return invalid_argument("server: max_connections and max_body_bytes must be at least 1");
  }
  return ok_status();
}

Result<ServerContextPtr> make_context(EngineClient& engine, const ServerOptions& options) {
  PM_TRY(check_options(options));
  auto context = std::make_shared<ServerContext>(engine, options);
  context->model_names = options.served_model_names;
  if (context->model_names.empty()) {
    context->model_names.push_back(last_component(engine.model().path));
  }
  context->created = static_cast<std::int64_t>(std::time(nullptr));
  context->system_fingerprint = "fp_pagemill_" + engine.model().dtype;
  ServingMetricsOptions metrics;
  metrics.prefix = options.metrics_prefix;
  metrics.model_name = context->model_name();
  metrics.max_model_len = engine.model().max_model_len;
  metrics.cache_config = options.cache_config;
  PM_ASSIGN(context->metrics, ServingMetrics::create(metrics));
  return context;
}

}  // namespace

struct Server::Impl {
  Impl(ServerContextPtr context)
      : context(std::move(context)),
        io(this->context->options.io_threads),
        work(io.get_executor()),
        workers(static_cast<std::size_t>(this->context->options.worker_threads)),
        acceptor(io),
        retry(io),
        signal_set(io) {}

  Status listen();
  void run();
  void accept();
  void on_accept(error_code ec, Connection::Socket socket, const Connection::Strand& strand);
  // Null where there is no room, or the server is stopping; `socket` is then left as it was.
  std::shared_ptr<Connection> admit(Connection::Socket& socket, const Connection::Strand& strand);
  void each_connection(void (Connection::*call)());
  template <typename Done>
  bool wait(Clock::time_point deadline, Done done) {
    std::unique_lock lock(mutex);
    return changed.wait_until(lock, deadline, done);
  }
  void notify() {
    const std::lock_guard lock(mutex);
    changed.notify_all();
  }
  void close_acceptor();
  void await_signal();
  void stop();
  bool drain(double timeout_s);

  ServerContextPtr context;
  asio::io_context io;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  asio::thread_pool workers;
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  asio::signal_set signal_set;  // empty until wait_for_signal()
  std::shared_ptr<ConnectionHost> host;
  std::vector<std::thread> threads;
  tcp::endpoint bound;

  std::mutex mutex;
  std::condition_variable changed;
  std::unordered_map<std::uint64_t, std::weak_ptr<Connection>> connections;
  std::uint64_t next_connection = 0;
  std::int64_t exchanges = 0;  // answers under way
  const std::shared_ptr<std::atomic<int>> refusals = std::make_shared<std::atomic<int>>(0);
  int signals = 0;
  bool stopped = false, clean = true;
};

Status Server::Impl::listen() {
  const ServerOptions& options = context->options;
  error_code ec;
  const auto address = asio::ip::make_address(
      options.host == "localhost" ? std::string("127.0.0.1") : options.host, ec);
  if (ec) {
    return invalid_argument(fmt::format("host '{}': expected an IP address", options.host), "host");
  }
  const tcp::endpoint endpoint(address, options.port);
  const auto refused = [&] {
    return io_error(
        fmt::format("cannot listen on {}:{}: {}", options.host, options.port, ec.message()));
  };
  if (acceptor.open(endpoint.protocol(), ec)) return refused();
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (acceptor.bind(endpoint, ec)) return refused();
  if (acceptor.listen(asio::socket_base::max_listen_connections, ec)) return refused();
  bound = acceptor.local_endpoint(ec);
  return ok_status();
}

void Server::Impl::run() {
  context->post_worker = [this](std::function<void()> task) {
    context->gate.if_open([&] { asio::post(workers, std::move(task)); });
  };
  host = std::make_shared<ConnectionHost>();
  host->context = context;
  host->dispatch = [context = context](HttpRequest request, ResponseWriterPtr writer) {
    dispatch(context, std::move(request), std::move(writer));
  };
  // A drain waits for what began before it: those who go on asking must not hold it up.
  host->on_exchange_begin = [this] {
    const std::lock_guard lock(mutex);
    if (context->draining) return false;
    ++exchanges;
    return true;
  };
  host->on_exchange_end = [this] {
    const std::lock_guard lock(mutex);
    --exchanges;
    changed.notify_all();
  };
  accept();
  for (int i = 0; i < context->options.io_threads; ++i) {
    threads.emplace_back([this] { io.run(); });
  }
}

void Server::Impl::accept() {
  Connection::Strand strand(io.get_executor());
  auto done = [this, strand](error_code ec, Connection::Socket socket) {
    on_accept(ec, std::move(socket), strand);
  };
  acceptor.async_accept(strand, std::move(done));
}

std::shared_ptr<Connection> Server::Impl::admit(Connection::Socket& socket,
                                                const Connection::Strand& strand) {
  const std::lock_guard lock(mutex);
  if (connections.size() >= context->options.max_connections || stopped) return nullptr;
  const std::uint64_t id = next_connection++;
  auto own = std::make_shared<ConnectionHost>(*host);
  own->on_closed = [this, id] {
    const std::lock_guard closed_lock(mutex);
    connections.erase(id);
    changed.notify_all();
  };
  auto connection = std::make_shared<Connection>(std::move(socket), strand, std::move(own));
  connections.emplace(id, connection);
  return connection;
}

void Server::Impl::on_accept(error_code ec,
                             Connection::Socket socket,
                             const Connection::Strand& strand) {
  if (ec == asio::error::operation_aborted || !acceptor.is_open()) return;
  if (ec) {  // out of descriptors or memory: let some go first
    retry.expires_after(kAcceptRetry);
    retry.async_wait([this](error_code waited) {
      if (!waited) accept();
    });
    return;
  }
  if (const auto connection = admit(socket, strand)) {
    connection->start();
  } else if (*refusals < kMaxRefusals && socket.is_open()) {
    ++*refusals;
    context->metrics->count_http("refused", "", 503);
    refuse_connection(
        std::move(socket), strand, context->options.max_connections, [refusals = refusals] {
          --*refusals;
        });
  }
  accept();
}

void Server::Impl::each_connection(void (Connection::*call)()) {
  const std::lock_guard lock(mutex);
  for (const auto& [id, weak] : connections) {
    if (const auto connection = weak.lock()) (connection.get()->*call)();
  }
}

void Server::Impl::close_acceptor() {
  asio::post(io, [this] {
    error_code ignored;
    acceptor.close(ignored);
    retry.cancel();
  });
}

bool Server::Impl::drain(double timeout_s) {
  {
    const std::lock_guard lock(mutex);
    if (stopped) return clean;
    context->draining = true;
  }
  each_connection(&Connection::poke);
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(timeout_s));
  wait(deadline, [this] { return exchanges == 0 || signals > 1; });
  {
    const std::lock_guard lock(mutex);
    clean = exchanges == 0;
  }
  close_acceptor();
  each_connection(&Connection::poke);  // those that came meanwhile
  if (clean) wait(Clock::now() + kCloseWait, [this] { return connections.empty() || signals > 1; });
  stop();
  return clean;
}

void Server::Impl::stop() {
  {
    const std::lock_guard lock(mutex);
    if (stopped) return;
    stopped = true;
  }
  context->draining = true;
  close_acceptor();
  each_connection(&Connection::kill);
  const auto deadline = Clock::now() + kStopWait;
  wait(deadline, [this] { return connections.empty(); });
  while (context->live_generations > 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  context->gate.close();
  workers.join();
  work.reset();
  io.stop();
  for (std::thread& thread : threads) thread.join();
}

Result<std::unique_ptr<Server>> Server::start(EngineClient& engine, const ServerOptions& options) {
  PM_ASSIGN(ServerContextPtr context, make_context(engine, options));
  auto impl = std::make_unique<Impl>(std::move(context));
  PM_TRY(impl->listen());
  impl->run();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

std::uint16_t Server::port() const { return impl_->bound.port(); }

std::string Server::url() const {
  const auto address = impl_->bound.address();
  return fmt::format(fmt::runtime(address.is_v6() ? "http://[{}]:{}" : "http://{}:{}"),
                     address.to_string(),
                     port());
}

bool Server::drain_and_stop(double timeout_s) { return impl_->drain(timeout_s); }
void Server::stop() { impl_->stop(); }

void Server::Impl::await_signal() {
  signal_set.async_wait([this](error_code ec, int) {
    if (ec) return;
    {
      const std::lock_guard lock(mutex);
      ++signals;
      changed.notify_all();
    }
    await_signal();
  });
}

bool Server::wait_for_signal() {
  error_code ignored;
  impl_->signal_set.add(SIGTERM, ignored);
  impl_->signal_set.add(SIGINT, ignored);
  impl_->await_signal();
  {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait(lock, [&] { return impl_->signals > 0 || impl_->stopped; });
  }
  return impl_->drain(impl_->context->options.drain_timeout_s);
}

}  // namespace pagemill
