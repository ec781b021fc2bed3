// The subcommands of `pagemill`, one file each. Each adds itself to the application and runs from
// its callback.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"
#include "engine/engine_options.h"

namespace pagemill::cli {

// A subcommand's callback stores its exit status here.
struct ExitStatus {
  int code = 0;
};

void add_serve(CLI::App& app, ExitStatus& status);
void add_generate(CLI::App& app, ExitStatus& status);
void add_chat(CLI::App& app, ExitStatus& status);
void add_bench(CLI::App& app, ExitStatus& status);
void add_inspect(CLI::App& app, ExitStatus& status);
void add_simulate(CLI::App& app, ExitStatus& status);

// What EngineOptions::target_itl_ms is where streams are watched as they come.
inline constexpr double kServedItlMs = 100;

// MODEL and the engine's options, the same in every subcommand that starts an engine.
void add_engine_options(CLI::App& command, EngineOptions& options);
// Replaces options.model by its path.
Status resolve_model(EngineOptions& options);
// Prints "pagemill: error: ..." to stderr and returns the exit status 1.
int fail(const Error& error);

}  // namespace pagemill::cli
