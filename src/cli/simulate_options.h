// The options of `pagemill simulate`, and what they stand for.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine_options.h"
#include "simulate/replay.h"

namespace pagemill::cli {

struct SimulateOptions {
  // The workload.
  std::string trace_file, synthetic;
  std::int32_t hash_block_tokens = 0;  // 0: as the trace has it
  std::vector<double> rates;           // empty: the trace's arrivals
  double duration_s = 600;
  std::int32_t num_requests = 0;  // 0: by rate and duration, or the whole trace
  std::uint64_t seed = 1;
  // The machine.
  std::string machine = "opt-13b@a100-40gb", measure;
  EngineOptions engine;  // for `measure`
  std::optional<double> weights_bytes, memory_bandwidth, flops, kv_bytes_per_token, overhead_ms;
  std::int64_t kv_slots = 0;  // 0: the machine's
  // The engine.
  std::vector<std::string> policies = {"paged"};
  BatcherConfig batcher;  // 0: the machine's
  double target_itl_ms = 0;
  // What is shown.
  std::vector<std::int32_t> block_sizes;
  std::vector<std::int64_t> prefix_cache_blocks;
  std::string replicas_for, split = "least-loaded";
  std::int32_t max_replicas = 1024;
  double latency_limit = 5;  // times that of an idle machine
  std::string plot_dir, measured_file;
  bool json = false;
};

void add_simulate_options(CLI::App& command, SimulateOptions& options);

// The trace that the options name, with its lengths and ids but without new arrivals.
Result<Trace> load_trace(const SimulateOptions& options);
// It at a request rate: as many requests as the options ask for, by a Poisson process; `rate` < 0
// keeps the trace's own arrivals.
Result<Trace> trace_at(const SimulateOptions& options, const Trace& lengths, double rate);
// The machine by name or figures; with --measure, measured, which takes a while.
Result<Machine> load_machine(const SimulateOptions& options);

// Targets such as "ttft_p99=500,itl_p99=50", in milliseconds.
struct LatencyTarget {
  std::string name;  // of ttft, itl or e2e, and p50, p90 or p99
  double limit_ms = 0;
  double measured_ms(const ReplaySummary& summary) const;
};
Result<std::vector<LatencyTarget>> parse_targets(const std::string& text);

}  // namespace pagemill::cli
