#include "cli/simulate_options.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "cli/commands.h"
#include "cli/simulate_measure.h"
#include "hub/model_path.h"
#include "simulate/workload.h"

namespace pagemill::cli {
namespace {

// More would not fit in memory.
constexpr double kMaxRequests = 5e6;

void add_workload_options(CLI::App& command, SimulateOptions& options) {
  constexpr const char* kGroup = "Workload";
  CLI::Option* file =
      command.add_option("--trace", options.trace_file, "A trace: CSV or JSON lines")
          ->group(kGroup);
  command.add_option("--synthetic", options.synthetic, "Made-up lengths: sharegpt or alpaca")
      ->check(CLI::IsMember({"sharegpt", "alpaca"}))
      ->excludes(file)
      ->group(kGroup);
  command
      .add_option("--rate",
                  options.rates,
                  "Requests a second, Poisson arrivals; 0: all at once; several: a sweep "
                  "(default: the trace's own arrivals)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  command
      .add_option("--duration",
                  options.duration_s,
                  "Seconds of arrivals at a rate, where --num-requests does not say how many")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_option("--num-requests",
                  options.num_requests,
                  "Requests (default: a whole trace; rate x duration of a synthetic one)")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  command
      .add_option("--hash-block-tokens",
                  options.hash_block_tokens,
                  "Shrink a trace with ids of shared blocks: each stands for this many tokens")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  command.add_option("--seed", options.seed, "Of lengths and arrivals")
      ->capture_default_str()
      ->group(kGroup);
}

void add_machine_options(CLI::App& command, SimulateOptions& options) {
  constexpr const char* kGroup = "Machine";
  command.add_option("--machine", options.machine, "opt-13b@a100-40gb or llama-3.1-8b@h100-80gb")
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_option(
          "--measure", options.measure, "Measure this machine with MODEL, named as for `serve`")
      ->group(kGroup);
  command.add_option("--threads", options.engine.threads, "Compute threads of --measure")
      ->group(kGroup);
  command.add_option("--dtype", options.engine.dtype, "Weights of --measure, as `serve` takes it")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str()
      ->group(kGroup);
  const auto figure = [&](const char* name, std::optional<double>& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::NonNegativeNumber)->group(kGroup);
  };
  figure("--weights-bytes", options.weights_bytes, "Instead of --machine's: all weights");
  figure("--memory-bandwidth", options.memory_bandwidth, "Likewise: bytes a second");
  figure("--flops", options.flops, "Likewise: operations a second");
  figure("--kv-bytes-per-token", options.kv_bytes_per_token, "Likewise: keys and values");
  figure("--step-overhead-ms", options.overhead_ms, "Likewise: added to every step");
  command.add_option("--kv-slots", options.kv_slots, "Likewise: tokens that the KV cache holds")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
}

void add_engine_side_options(CLI::App& command, SimulateOptions& options) {
  constexpr const char* kGroup = "Engine";
  command
      .add_option(
          "--policy",
          options.policies,
          "paged, paged-full, orca-max, orca-pow2, orca-oracle, static; several with commas")
      ->delimiter(',')
      ->check(
          CLI::IsMember({"paged", "paged-full", "orca-max", "orca-pow2", "orca-oracle", "static"}))
      ->capture_default_str()
      ->group(kGroup);
  const auto count = [&](const char* name, std::int32_t& value, const char* help) {
    command.add_option(name, value, help)
        ->check(CLI::PositiveNumber)
        ->capture_default_str()
        ->group(kGroup);
  };
  count("--block-size", options.batcher.block_size, "Tokens of a KV block");
  count("--max-num-seqs", options.batcher.max_num_seqs, "Most sequences that run at once");
  count(
      "--max-num-batched-tokens", options.batcher.max_num_batched_tokens, "Most tokens of a step");
  command
      .add_option("--max-model-len",
                  options.batcher.max_model_len,
                  "Most tokens of a sequence (default: the machine's)")
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  command
      .add_option("--target-itl-ms",
                  options.target_itl_ms,
                  "Paged policies: smaller chunks of prompts to hold this time between tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_flag("!--no-prefix-caching",
                options.batcher.enable_prefix_caching,
                "Do not keep full blocks for prompts that begin alike")
      ->group(kGroup);
}

void add_result_options(CLI::App& command, SimulateOptions& options) {
  constexpr const char* kGroup = "Result";
  command
      .add_option("--replicas-for",
                  options.replicas_for,
                  "How many replicas hold these targets, in ms: ttft_p99=500,itl_p99=50")
      ->group(kGroup);
  command
      .add_option("--split", options.split, "Of requests to replicas: round-robin or least-loaded")
      ->check(CLI::IsMember({"round-robin", "least-loaded"}))
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--max-replicas", options.max_replicas, "Give up past so many")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--block-sizes", options.block_sizes, "Waste and hit rate of each block size")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->group(kGroup);
  command
      .add_option("--prefix-cache-blocks",
                  options.prefix_cache_blocks,
                  "Hit rates of prefix caches of so many blocks (0: unlimited), requests one by "
                  "one, in the reference order (leading-run LRU) and in the engine's")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  command
      .add_option("--latency-limit",
                  options.latency_limit,
                  "A rate is sustained up to so many times an idle machine's normalized latency")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kGroup);
  CLI::Option* plot =
      command.add_option("--plot", options.plot_dir, "Write SVG plots into this folder")
          ->group(kGroup);
  command
      .add_option("--measured",
                  options.measured_file,
                  "Latencies that a real engine had at some rates, to be drawn beside the curves: "
                  "JSON lines with label, rate and normalized_latency_s, as of `bench serve`")
      ->needs(plot)
      ->group(kGroup);
  command.add_flag("--json", options.json, "One JSON object instead of tables")->group(kGroup);
}

Machine with_figures(const SimulateOptions& options, Machine machine) {
  auto& roofline = std::get<Roofline>(machine.cost);
  bool changed = false;
  const auto set = [&](double& to, const std::optional<double>& from, double unit) {
    if (!from) return;
    to = *from * unit;
    changed = true;
  };
  set(roofline.weights_bytes, options.weights_bytes, 1);
  set(roofline.bytes_per_s, options.memory_bandwidth, 1);
  set(roofline.flops_per_s, options.flops, 1);
  set(roofline.kv_bytes_per_token, options.kv_bytes_per_token, 1);
  set(roofline.overhead_s, options.overhead_ms, 1e-3);
  // Every head has keys and values of its own, two bytes each: as many operations as bytes.
  if (options.kv_bytes_per_token) roofline.flops_per_pair = *options.kv_bytes_per_token;
  if (changed) machine.name += ", changed";
  return machine;
}

}  // namespace

void add_simulate_options(CLI::App& command, SimulateOptions& options) {
  add_workload_options(command, options);
  add_machine_options(command, options);
  add_engine_side_options(command, options);
  add_result_options(command, options);
}

Result<Trace> load_trace(const SimulateOptions& options) {
  if (!options.synthetic.empty()) {
    PM_ASSIGN(const LengthDistribution lengths, find_distribution(options.synthetic));
    return synthetic_trace(lengths, 1000, options.seed);
  }
  if (options.trace_file.empty()) return invalid_argument("--trace or --synthetic is needed");
  PM_ASSIGN(Trace trace, read_trace(options.trace_file));
  if (options.hash_block_tokens == 0) return trace;
  if (trace.hash_block_tokens == 0) {
    return invalid_argument(
        fmt::format("--hash-block-tokens: {} has no ids of shared blocks", options.trace_file));
  }
  return with_hash_block_tokens(std::move(trace), options.hash_block_tokens);
}

Result<Trace> trace_at(const SimulateOptions& options, const Trace& lengths, double rate) {
  Trace trace = lengths;
  const auto whole = static_cast<std::int32_t>(lengths.requests.size());
  if (rate < 0) {
    if (!trace.has_arrivals) {
      return invalid_argument(fmt::format("--rate is needed: {} has no arrivals", trace.name));
    }
    if (options.num_requests > 0 && options.num_requests < whole) {
      trace.requests.resize(options.num_requests);
    }
    return trace;
  }
  double count = options.num_requests > 0 ? options.num_requests : whole;
  if (options.num_requests == 0 && !options.synthetic.empty() && rate > 0) {
    count = std::max(1.0, std::round(rate * options.duration_s));
  }
  if (count > kMaxRequests) {
    return invalid_argument(fmt::format("{} requests are more than {}", count, kMaxRequests));
  }
  const auto num_requests = static_cast<std::int32_t>(count);
  if (!options.synthetic.empty()) {
    PM_ASSIGN(const LengthDistribution distribution, find_distribution(options.synthetic));
    trace = synthetic_trace(distribution, num_requests, options.seed);
  } else if (trace.hash_block_tokens == 0) {
    resize_trace(trace, num_requests);
  } else if (num_requests <= whole) {
    trace.requests.resize(num_requests);
  } else {
    return invalid_argument(fmt::format(
        "--num-requests: {} has {}, and repeated ones would find each other in the prefix cache",
        trace.name,
        whole));
  }
  set_poisson_arrivals(trace, rate, options.seed);
  return trace;
}

Result<Machine> load_machine(const SimulateOptions& options) {
  Machine machine;
  if (options.measure.empty()) {
    PM_ASSIGN(machine, find_machine(options.machine));
    machine = with_figures(options, std::move(machine));
  } else {
    EngineOptions engine = options.engine;
    PM_ASSIGN(engine.model, resolve_model_path(options.measure));
    PM_ASSIGN(const MeasuredMachine measured, measure_machine(engine));
    machine = measured.machine;
    machine.name = fmt::format("{} on this machine (fitted to {} runs, the worst off by {:.0f} %)",
                               options.measure,
                               measured.samples.size(),
                               100 * measured.worst_error);
  }
  if (options.kv_slots > 0) machine.kv_slots = options.kv_slots;
  if (options.batcher.max_model_len > 0) machine.max_model_len = options.batcher.max_model_len;
  return machine;
}

double LatencyTarget::measured_ms(const ReplaySummary& summary) const {
  const Percentiles& of = name.starts_with("ttft")  ? summary.ttft_s
                          : name.starts_with("itl") ? summary.itl_s
                                                    : summary.e2e_s;
  return 1e3 * (name.ends_with("p50") ? of.p50 : name.ends_with("p90") ? of.p90 : of.p99);
}

Result<std::vector<LatencyTarget>> parse_targets(const std::string& text) {
  std::vector<LatencyTarget> targets;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t equals = part.find('=');
    LatencyTarget target{part.substr(0, equals), 0};
    const auto known = CLI::IsMember({"ttft_p50",
                                      "ttft_p90",
                                      "ttft_p99",
                                      "itl_p50",
                                      "itl_p90",
                                      "itl_p99",
                                      "e2e_p50",
                                      "e2e_p90",
                                      "e2e_p99"});
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    const auto [last, error] =
        std::from_chars(value.data(), value.data() + value.size(), target.limit_ms);
    if (!known(target.name).empty() || error != std::errc() ||
        last != value.data() + value.size() || !(target.limit_ms > 0)) {
      return invalid_argument(fmt::format("--replicas-for: expected a target such as ttft_p99=500 "
                                          "(ttft, itl or e2e; p50, p90 or p99; ms), got '{}'",
                                          part),
                              "replicas-for");
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

}  // namespace pagemill::cli
