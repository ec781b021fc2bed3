#include "cli/bench_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/thread_pool.h"
#include "engine/memory_budget.h"
#include "kernels/limits.h"

namespace pagemill::cli {
namespace {

using nlohmann::json;

struct Options {
  int threads = 0;
  std::size_t buffer_bytes = 0;
  int repeats = 5;
};

void print_json(const MachineLimits& limits) {
  const auto print = [&](json line) {
    line["bench"] = "limits";
    line["threads"] = limits.threads;
    fmt::print("{}\n", line.dump());
  };
  for (const ComputeLimit& limit : limits.compute) {
    print({{"isa", to_string(limit.isa)},
           {"instruction", limit.instruction},
           {"gflops", limit.gflops},
           {"gflops_median", limit.median_gflops}});
  }
  for (const ReadLimit& limit : limits.read) {
    print({{"buffer_bytes", limits.buffer_bytes},
           {"streams", limit.streams},
           {"prefetch", limit.prefetch},
           {"gb_per_s", limit.gb_per_s},
           {"gb_per_s_median", limit.median_gb_per_s}});
  }
  print(
      {{"fork_join_us", limits.fork_join_us}, {"fork_join_us_median", limits.median_fork_join_us}});
  std::fflush(stdout);
}

// One row a limit, two columns (best and median) a number of threads.
void print_table(const std::vector<MachineLimits>& columns) {
  const MachineLimits& first = columns.front();
  fmt::print(stderr,
             "reads of {} MiB; the last-level cache has {} MiB\n{:<36}",
             first.buffer_bytes >> 20,
             last_level_cache_bytes() >> 20,
             "best and median");
  for (const MachineLimits& column : columns) {
    fmt::print(stderr, "{:>14} thread{}", column.threads, column.threads == 1 ? " " : "s");
  }
  const auto row = [&](const std::string& title, auto values) {
    fmt::print(stderr, "\n{:<36}", title);
    for (const MachineLimits& column : columns) {
      const auto [best, median] = values(column);
      fmt::print(stderr, "{:>11.2f}{:>11.2f}", best, median);
    }
  };
  for (std::size_t i = 0; i < first.compute.size(); ++i) {
    row(fmt::format(
            "GFLOP/s, {} {}", to_string(first.compute[i].isa), first.compute[i].instruction),
        [i](const MachineLimits& limits) {
          return std::pair(limits.compute[i].gflops, limits.compute[i].median_gflops);
        });
  }
  for (std::size_t i = 0; i < first.read.size(); ++i) {
    const int streams = first.read[i].streams;
    row(fmt::format("GB/s read, {} stream{}{}",
                    streams,
                    streams == 1 ? "" : "s",
                    first.read[i].prefetch ? " + prefetch" : ""),
        [i](const MachineLimits& limits) {
          return std::pair(limits.read[i].gb_per_s, limits.read[i].median_gb_per_s);
        });
  }
  row("us to fork and join", [](const MachineLimits& limits) {
    return std::pair(limits.fork_join_us, limits.median_fork_join_us);
  });
  fmt::print(stderr, "\n");
}

Status measure(const Options& options) {
  const int all = options.threads > 0 ? options.threads : default_num_threads();
  LimitOptions limit_options{.repeats = options.repeats, .buffer_bytes = options.buffer_bytes};
  if (limit_options.buffer_bytes == 0) {
    limit_options.buffer_bytes =
        std::min(default_buffer_bytes(), static_cast<std::size_t>(available_memory_bytes()) / 4);
  }
  std::vector<MachineLimits> columns;
  for (const int threads : {1, all}) {
    if (!columns.empty() && threads == 1) continue;
    PM_ASSIGN(MachineLimits limits, measure_limits(threads, limit_options));
    print_json(limits);
    columns.push_back(std::move(limits));
  }
  print_table(columns);
  return ok_status();
}

}  // namespace

void add_bench_limits(CLI::App& bench, ExitStatus& status) {
  CLI::App* command =
      bench.add_subcommand("limits", "What this machine can compute and read at most");
  auto options = std::make_shared<Options>();
  command
      ->add_option("--threads",
                   options->threads,
                   "Beside one thread (default: one per physical core that the process may use)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--buffer-size",
                   options->buffer_bytes,
                   "What is read, e.g. 2GiB (default: eight times the last-level cache, at least "
                   "1 GiB, at most a quarter of free memory)")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--repeats", options->repeats, "Runs of each")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->callback([options, &status] {
    const Status measured = measure(*options);
    status.code = measured.ok() ? 0 : fail(measured.error());
  });
}

}  // namespace pagemill::cli
