// pagemill bench limits: what this machine can do at most.
#pragma once

#include "cli/commands.h"

namespace pagemill::cli {

void add_bench_limits(CLI::App& bench, ExitStatus& status);

}  // namespace pagemill::cli
