// pagemill simulate: the scheduler and block manager under a virtual clock, with a cost model in
// place of the model.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "cli/commands.h"
#include "cli/simulate_options.h"
#include "cli/simulate_report.h"
#include "simulate/prefix_replay.h"
#include "simulate/workload.h"

namespace pagemill::cli {
namespace {

using nlohmann::json;

// Prints tables as it goes, or one JSON object at the end.
class Simulator {
 public:
  Simulator(const SimulateOptions& options, Trace lengths, Machine machine)
      : options_(options), lengths_(std::move(lengths)), machine_(std::move(machine)) {
    config_.batcher = options.batcher;
    config_.batcher.kv_slots = machine_.kv_slots;
    config_.batcher.target_itl_s = options.target_itl_ms / 1e3;
    config_.batcher.max_model_len = machine_.max_model_len;
    config_.cost = machine_.cost;
    // Cached prefixes are counted for all prompts, whoever may serve them.
    if (options.prefix_cache_blocks.empty()) {
      num_dropped_ = clip_to_model_len(lengths_, machine_.max_model_len);
    }
  }

  Status run() {
    if (lengths_.requests.empty()) {
      return invalid_argument(
          fmt::format("no prompt is shorter than max_model_len, {}", machine_.max_model_len));
    }
    PM_TRY(show_setting());
    if (!options_.prefix_cache_blocks.empty()) {
      PM_TRY(show_prefix_cache());
    } else if (!options_.replicas_for.empty()) {
      PM_TRY(show_replicas());
    } else if (!options_.block_sizes.empty()) {
      PM_TRY(show_block_sizes());
    } else {
      PM_TRY(show_runs());
    }
    if (options_.json) fmt::print("{}\n", out_.dump(-1, ' ', false, kReplace));
    return ok_status();
  }

 private:
  static constexpr auto kReplace = json::error_handler_t::replace;

  Status show_setting() {
    std::string workload = fmt::format("trace {}", lengths_.name);
    if (!options_.synthetic.empty()) {
      PM_ASSIGN(const LengthDistribution lengths, find_distribution(options_.synthetic));
      workload = lengths.describe();
    }
    const BatcherConfig& batcher = config_.batcher;
    out_["setting"] = {{"workload", workload},
                       {"seed", options_.seed},
                       {"machine", machine_.name},
                       {"cost", describe(machine_.cost)},
                       {"kv_slots", batcher.kv_slots},
                       {"block_size", batcher.block_size},
                       {"max_model_len", batcher.max_model_len},
                       {"max_num_seqs", batcher.max_num_seqs},
                       {"max_num_batched_tokens", batcher.max_num_batched_tokens},
                       {"target_itl_ms", 1e3 * batcher.target_itl_s},
                       {"requests_over_max_model_len", num_dropped_}};
    if (options_.json) return ok_status();
    fmt::print("workload  {}; seed {}\n", workload, options_.seed);
    if (num_dropped_ > 0) {
      fmt::print("          {} requests left out: their prompts leave no room in max_model_len\n",
                 num_dropped_);
    }
    fmt::print("machine   {}\n          {}\n          {} KV slots, at most {} tokens a sequence\n",
               machine_.name,
               describe(machine_.cost),
               batcher.kv_slots,
               batcher.max_model_len);
    fmt::print("engine    blocks of {} tokens, at most {} sequences and {} tokens a step\n\n",
               batcher.block_size,
               batcher.max_num_seqs,
               batcher.max_num_batched_tokens);
    return ok_status();
  }

  std::vector<double> rates() const {
    return options_.rates.empty() ? std::vector<double>{-1} : options_.rates;
  }

  Result<Trace> at_rate(double rate) const {
    PM_ASSIGN(Trace trace, trace_at(options_, lengths_, rate));
    clip_to_model_len(trace, machine_.max_model_len);
    return trace;
  }

  Result<ReplaySummary> replay_once(const Trace& trace, const ReplayConfig& config) {
    PM_ASSIGN(const Replay done, replay(trace, config));
    return summarize(trace, done);
  }

  // The mean normalized latency of requests that never meet.
  Result<double> idle_latency() {
    constexpr std::size_t kNumRequests = 500;
    Trace trace = lengths_;
    trace.requests.resize(std::min(trace.requests.size(), kNumRequests));
    for (std::size_t i = 0; i < trace.requests.size(); ++i) {
      trace.requests[i].arrival_s = 1e5 * static_cast<double>(i);
    }
    PM_ASSIGN(const ReplaySummary summary, replay_once(trace, config_));
    return summary.normalized_latency_s;
  }

  Status show_runs() {
    std::vector<SimulatedRun> runs;
    Plot batch{"Requests in the batch", "seconds", "requests", {}, false, 0};
    for (const std::string& name : options_.policies) {
      PM_ASSIGN(config_.policy, parse_batch_policy(name));
      for (const double rate : rates()) {
        PM_ASSIGN(const Trace trace, at_rate(rate));
        PM_ASSIGN(const Replay done, replay(trace, config_));
        runs.push_back({name, rate, summarize(trace, done)});
        if (done.num_refused > 0) {
          fmt::print(stderr,
                     "pagemill: warning: {}: {} requests refused, the first: {}\n",
                     name,
                     done.num_refused,
                     done.first_refusal);
        }
        if (options_.plot_dir.empty() || rate != rates().back()) continue;
        const std::string title = fmt::format("KV memory by state: {}", name);
        PM_TRY(
            write_plot(fmt::format("memory-{}.svg", name), plot_memory(title, done.steps.front())));
        batch.series.push_back(batch_series(name, done.steps.front()));
      }
    }
    if (!options_.plot_dir.empty()) PM_TRY(write_plot("batch.svg", batch));
    for (const SimulatedRun& run : runs) out_["runs"].push_back(to_json(run));
    if (!options_.json) print_runs(runs);
    return rates().size() > 1 ? show_curves(runs) : ok_status();
  }

  Status show_curves(const std::vector<SimulatedRun>& runs) {
    PM_ASSIGN(const double idle, idle_latency());
    const double limit = options_.latency_limit * idle;
    const auto curves = curves_of(runs, limit);
    out_["idle_latency_s"] = idle;
    out_["latency_limit_s"] = limit;
    for (const SimulatedCurve& curve : curves) out_["curves"].push_back(to_json(curve));
    if (!options_.plot_dir.empty()) {
      Plot plot = plot_latency(curves, limit);
      if (!options_.measured_file.empty()) {
        PM_ASSIGN(const std::vector<PlotSeries> measured, read_measured(options_.measured_file));
        plot.series.insert(plot.series.end(), measured.begin(), measured.end());
      }
      PM_TRY(write_plot("latency.svg", plot));
    }
    if (options_.json) return ok_status();
    fmt::print("\nsustained up to {:.4g} s a token, {} times an idle machine's {:.4g}:\n",
               limit,
               options_.latency_limit,
               idle);
    for (const SimulatedCurve& curve : curves) {
      if (curve.sustained_rate > 0) {
        fmt::print("  {:<12}{:.3g} requests/s\n", curve.policy, curve.sustained_rate);
      } else {
        fmt::print("  {:<12}under {:.3g} requests/s\n", curve.policy, curve.rates.front());
      }
    }
    return ok_status();
  }

  Status show_block_sizes() {
    PM_ASSIGN(const Trace trace, at_rate(rates().front()));
    if (!options_.json) {
      fmt::print("{:<12}{:>10}{:>16}{:>10}{:>12}{:>10}\n",
                 "block size",
                 "waste %",
                 "waste % if full",
                 "hits %",
                 "preemptions",
                 "tok/s");
    }
    for (const std::int32_t block_size : options_.block_sizes) {
      ReplayConfig config = config_;
      config.batcher.block_size = block_size;
      PM_ASSIGN(const ReplaySummary summary, replay_once(trace, config));
      json line = to_json(SimulatedRun{"paged", rates().front(), summary});
      line["block_size"] = block_size;
      out_["block_sizes"].push_back(std::move(line));
      if (options_.json) continue;
      fmt::print("{:<12}{:>10.2f}{:>16}{:>10.2f}{:>12}{:>10.0f}\n",
                 block_size,
                 100 * summary.busy.waste(),
                 summary.full.seconds > 0 ? fmt::format("{:.2f}", 100 * summary.full.waste()) : "-",
                 100 * summary.prefix_hit_rate,
                 summary.preemptions,
                 summary.output_tokens_per_s);
    }
    return ok_status();
  }

  Status show_prefix_cache() {
    if (lengths_.hash_block_tokens == 0) {
      return invalid_argument(
          fmt::format("--prefix-cache-blocks: {} has no ids of shared blocks", lengths_.name));
    }
    if (!options_.json) {
      fmt::print("{:<12}{:>22}{:>22}{:>22}{:>22}\n",
                 "blocks",
                 "reference: blocks %",
                 "tokens %",
                 "engine: blocks %",
                 "tokens %");
    }
    for (const std::int64_t blocks : options_.prefix_cache_blocks) {
      const PrefixHits reference = replay_reference_lru(lengths_, blocks == 0 ? -1 : blocks);
      // More blocks than there are ids are as good as unlimited.
      const std::int64_t enough = reference.blocks - reference.hits + 1;
      PM_ASSIGN(const PrefixHits engine,
                replay_engine_order(lengths_, blocks == 0 ? enough : blocks));
      out_["prefix_cache"].push_back({{"blocks", blocks},
                                      {"reference_block_rate", reference.block_rate()},
                                      {"reference_token_rate", reference.token_rate()},
                                      {"engine_block_rate", engine.block_rate()},
                                      {"engine_token_rate", engine.token_rate()}});
      if (options_.json) continue;
      fmt::print("{:<12}{:>22.2f}{:>22.2f}{:>22.2f}{:>22.2f}\n",
                 blocks == 0 ? "unlimited" : std::to_string(blocks),
                 100 * reference.block_rate(),
                 100 * reference.token_rate(),
                 100 * engine.block_rate(),
                 100 * engine.token_rate());
    }
    return ok_status();
  }

  struct Trial {
    std::int32_t num_replicas = 0;
    ReplaySummary summary;
    bool holds = false;
  };

  Result<Trial> try_replicas(const Trace& trace,
                             const std::vector<LatencyTarget>& targets,
                             std::int32_t num_replicas) {
    ReplayConfig config = config_;
    config.num_replicas = num_replicas;
    Trial trial{num_replicas, {}, true};
    PM_ASSIGN(trial.summary, replay_once(trace, config));
    json line = {{"replicas", num_replicas}};
    for (const LatencyTarget& target : targets) {
      const double measured = target.measured_ms(trial.summary);
      trial.holds = trial.holds && measured <= target.limit_ms && trial.summary.num_requests > 0;
      line[target.name + "_ms"] = measured;
    }
    line["holds"] = trial.holds;
    if (!options_.json) {
      fmt::print("  {:>4} replicas:", num_replicas);
      for (const LatencyTarget& target : targets) {
        fmt::print("  {} {:.1f} ms", target.name, target.measured_ms(trial.summary));
      }
      fmt::print("  {}\n", trial.holds ? "holds" : "too slow");
    }
    out_["trials"].push_back(std::move(line));
    return trial;
  }

  // Doubles until the targets hold, then bisects: more replicas are taken to be no slower.
  Status show_replicas() {
    PM_ASSIGN(const auto targets, parse_targets(options_.replicas_for));
    PM_ASSIGN(config_.split, parse_replica_split(options_.split));
    PM_ASSIGN(config_.policy, parse_batch_policy(options_.policies.front()));
    PM_ASSIGN(const Trace trace, at_rate(rates().front()));
    std::int32_t too_few = 0, enough = 1;
    for (;;) {
      PM_ASSIGN(const Trial trial, try_replicas(trace, targets, enough));
      if (trial.holds) break;
      too_few = enough;
      if (enough == options_.max_replicas) {
        return invalid_argument(fmt::format(
            "--replicas-for: {} do not hold '{}'; a target below what one request alone takes "
            "can't be held",
            enough,
            options_.replicas_for));
      }
      enough = std::min(2 * enough, options_.max_replicas);
    }
    while (enough - too_few > 1) {
      const std::int32_t middle = (enough + too_few) / 2;
      PM_ASSIGN(const Trial trial, try_replicas(trace, targets, middle));
      (trial.holds ? enough : too_few) = middle;
    }
    out_["replicas"] = enough;
    out_["split"] = options_.split;
    if (!options_.json) {
      fmt::print(
          "{} replica(s) hold {} ({} split)\n", enough, options_.replicas_for, options_.split);
    }
    return ok_status();
  }

  Status write_plot(const std::string& name, const Plot& plot) const {
    std::error_code error;
    std::filesystem::create_directories(options_.plot_dir, error);
    const auto path = std::filesystem::path(options_.plot_dir) / name;
    std::ofstream file(path);
    file << draw_svg(plot);
    file.close();
    if (!file) return io_error(fmt::format("--plot: cannot write '{}'", path.string()));
    return ok_status();
  }

  const SimulateOptions& options_;
  Trace lengths_;
  Machine machine_;
  ReplayConfig config_;
  std::int32_t num_dropped_ = 0;
  json out_;
};

Status simulate(const SimulateOptions& options) {
  PM_ASSIGN(Trace trace, load_trace(options));
  PM_ASSIGN(Machine machine, load_machine(options));
  return Simulator(options, std::move(trace), std::move(machine)).run();
}

}  // namespace

void add_simulate(CLI::App& app, ExitStatus& status) {
  CLI::App* command = app.add_subcommand(
      "simulate",
      "Replay a trace by the scheduler under a virtual clock, with policies to compare");
  auto options = std::make_shared<SimulateOptions>();
  add_simulate_options(*command, *options);
  command->callback([options, &status] {
    const Status done = simulate(*options);
    status.code = done.ok() ? 0 : fail(done.error());
  });
}

}  // namespace pagemill::cli
