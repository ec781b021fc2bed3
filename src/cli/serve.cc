// pagemill serve MODEL: the OpenAI-compatible server.
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/logging.h"
#include "cli/commands.h"
#include "engine/engine_client.h"
#include "server/server.h"

namespace pagemill::cli {
namespace {

struct ServeOptions {
  EngineOptions engine;
  ServerOptions server;
};

int serve(ServeOptions& options) {
  const double begin = monotonic_seconds();
  if (const char* key = std::getenv("PAGEMILL_API_KEY");
      key != nullptr && options.server.api_keys.empty()) {
    options.server.api_keys = {key};
  }
  const std::string name = options.engine.model;
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  // A model that was named and not given by its path is known to clients by that name.
  if (options.server.served_model_names.empty() && !options.engine.model.starts_with(name)) {
    options.server.served_model_names = {name};
  }
  auto engine = EngineClient::start(options.engine);
  if (!engine.ok()) return fail(engine.error());
  options.server.cache_config = {
      {"block_size", std::to_string(options.engine.block_size)},
      {"num_blocks", std::to_string((*engine)->stats().num_blocks)},
      {"enable_prefix_caching", options.engine.enable_prefix_caching ? "True" : "False"},
      {"cache_dtype", options.engine.kv_cache_dtype}};
  auto server = Server::start(**engine, options.server);
  if (!server.ok()) return fail(server.error());
  const ModelInfo& model = (*engine)->model();
  spdlog::info("{} ({}, {} M parameters, max_model_len {}) serves on {} after {:.0f} ms",
               model.path,
               model.dtype,
               model.num_parameters / 1000000,
               model.max_model_len,
               (*server)->url(),
               1e3 * (monotonic_seconds() - begin));
  const bool clean = (*server)->wait_for_signal();
  if (!clean) spdlog::warn("requests were still running when the drain timeout ended");
  return 0;
}

}  // namespace

void add_serve(CLI::App& app, ExitStatus& status) {
  CLI::App* command = app.add_subcommand("serve", "Serve a model through the OpenAI API");
  auto options = std::make_shared<ServeOptions>();
  ServerOptions& server = options->server;
  options->engine.target_itl_ms = kServedItlMs;
  add_engine_options(*command, options->engine);
  command->add_option("--host", server.host, "Address to listen on")->capture_default_str();
  command->add_option("--port", server.port, "Port to listen on, 0 for an unused one")
      ->capture_default_str();
  command->add_option(
      "--served-model-name",
      server.served_model_names,
      "Names that requests may use as `model` (default: MODEL, or the file's name)");
  command
      ->add_option("--api-key",
                   server.api_keys,
                   "Key that clients must send (or PAGEMILL_API_KEY); given again for each tenant")
      ->allow_extra_args(false);
  command
      ->add_option("--metrics-prefix",
                   server.metrics_prefix,
                   "Prefix of metric names; 'vllm' suits its dashboards")
      ->capture_default_str();
  command->add_option("--max-connections", server.max_connections, "Most connections open at once")
      ->capture_default_str();
  command->add_option("--max-body-size", server.max_body_bytes, "Largest request body, e.g. 32MiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command
      ->add_option("--drain-timeout",
                   server.drain_timeout_s,
                   "Seconds that running requests may go on after SIGTERM")
      ->capture_default_str();
  command->add_flag(
      "!--no-access-log",
      server.access_log,
      "Do not log a line for each request (its client, path, status, bytes, seconds)");
  command->callback([options, &status] { status.code = serve(*options); });
}

}  // namespace pagemill::cli
