// Server: the OpenAI-compatible HTTP front of an EngineClient.
//
//   auto server = Server::start(*engine, options);     // listens; threads are running on return
//   bool clean = (*server)->wait_for_signal();         // SIGTERM or SIGINT: drains, then returns
//
// Threads: `io_threads` run the sockets (each connection on its own strand), `worker_threads` parse
// JSON, render chat templates and tokenise. Neither ever runs on the engine's threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"

namespace pagemill {

struct ServerOptions {
  std::string host = "127.0.0.1";  // an IPv4 or IPv6 address; "0.0.0.0" or "::" for every interface
  std::uint16_t port = 8000;       // 0: an unused one, see Server::port()
  // Names that requests may use as `model`, the first shown in answers. Empty: the last component
  // of the model's path.
  std::vector<std::string> served_model_names;
  std::string metrics_prefix = "pagemill";  // "vllm" makes existing dashboards work
  // If there are any, /v1/* and the like need "Authorization: Bearer KEY" with one of them. Several
  // tell tenants apart for the fair policy, in place of the requests' `user`.
  std::vector<std::string> api_keys;
  bool access_log = true;  // a line for each request
  std::string version;     // what /version says; empty: the build's

  int io_threads = 1;
  int worker_threads = 2;
  std::size_t max_body_bytes = 32u << 20;
  std::size_t max_header_bytes = 32u << 10;
  std::size_t max_connections = 4096;
  // Bytes of a streamed answer that may wait for a slow client before its request is aborted.
  std::size_t max_stream_buffer_bytes = 1u << 20;
  std::size_t max_prompts_per_request = 1024;

  double header_timeout_s = 10;  // from a request's first byte to the end of its head
  double body_timeout_s = 60;    // from the end of the head to the end of the body
  double idle_timeout_s = 75;    // between requests of a kept connection
  double write_timeout_s = 60;   // without any progress of a write
  double drain_timeout_s = 30;   // wait_for_signal(): how long running requests may go on

  // Labels of the metric cache_config_info, such as {"block_size", "16"}.
  std::vector<std::pair<std::string, std::string>> cache_config;
};

class Server {
 public:
  // Binds and listens. kInvalidArgument for a bad host or option, kIo when the port is taken. The
  // engine must outlive the server.
  static Result<std::unique_ptr<Server>> start(EngineClient& engine, const ServerOptions& options);
  ~Server();  // as stop()
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:8000"

  // Running answers go on for up to `timeout_s`, then are aborted. Idle connections close; requests
  // that come meanwhile hear 503, but for /metrics, whose last values scrapers want. At the end the
  // port closes. True if all answers finished. Idempotent.
  bool drain_and_stop(double timeout_s);
  // Aborts what runs, closes every connection, joins the threads. Idempotent.
  void stop();

  // Blocks until SIGTERM or SIGINT, then drains for up to options.drain_timeout_s; a second signal
  // meanwhile stops at once. True if every answer finished.
  bool wait_for_signal();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagemill
