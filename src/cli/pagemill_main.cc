// The `pagemill` program: one binary, a subcommand for each use.
#include <CLI/CLI.hpp>

#include "base/logging.h"
#include "cli/commands.h"

#ifndef PAGEMILL_VERSION
#define PAGEMILL_VERSION "unknown"
#endif

int main(int argc, char** argv) {
  using namespace pagemill;
  CLI::App app(
      "Pagemill: serves large language models with PagedAttention and continuous batching");
  app.require_subcommand(1);
  app.set_version_flag("--version", PAGEMILL_VERSION);
  std::string log_level = "info";
  bool log_json = false;
  app.add_option("--log-level", log_level, "trace, debug, info, warning, error, critical or off")
      ->capture_default_str();
  app.add_flag("--log-json", log_json, "One JSON object a log line");
  app.parse_complete_callback([&] {
    if (const Status status = init_logging(log_level, log_json); !status.ok()) {
      throw CLI::ValidationError("--log-level", status.error().message);
    }
  });
  cli::ExitStatus status;
  cli::add_serve(app, status);
  cli::add_generate(app, status);
  cli::add_chat(app, status);
  cli::add_bench(app, status);
  cli::add_inspect(app, status);
  cli::add_simulate(app, status);
  CLI11_PARSE(app, argc, argv);
  return status.code;
}
