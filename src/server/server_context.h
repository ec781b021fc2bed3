// What every endpoint shares. Held by shared_ptr: a late delta of an aborted request may outlive
// the server.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine_client.h"
#include "metrics/serving_metrics.h"
#include "server/server.h"

namespace pagemill {

// Lets tasks be posted until it is closed; afterwards they are dropped. Guards executors that may
// be gone by the time a late caller posts.
class PostGate {
 public:
  template <typename Post>
  void if_open(Post&& post) {
    const std::shared_lock lock(mutex_);
    if (open_) post();
  }
  void close() {
    const std::unique_lock lock(mutex_);
    open_ = false;
  }

 private:
  std::shared_mutex mutex_;
  bool open_ = true;
};

struct ServerContext {
  ServerContext(EngineClient& engine, ServerOptions options)
      : engine(engine), options(std::move(options)) {}

  EngineClient& engine;
  const ServerOptions options;
  std::vector<std::string> model_names;  // not empty
  std::int64_t created = 0;              // Unix seconds
  std::string system_fingerprint;
  std::unique_ptr<ServingMetrics> metrics;
  PostGate gate;
  // Runs a task on a worker thread; dropped after the server has stopped.
  std::function<void(std::function<void()>)> post_worker;

  std::atomic<bool> draining{false};
  std::atomic<std::int64_t> live_generations{0};  // requests that the engine still knows

  const std::string& model_name() const { return model_names.front(); }
  bool serves(std::string_view name) const {
    for (const std::string& known : model_names) {
      if (known == name) return true;
    }
    return false;
  }
};

using ServerContextPtr = std::shared_ptr<ServerContext>;

}  // namespace pagemill
