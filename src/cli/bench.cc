// pagemill bench throughput|latency|serve MODEL: measures the engine in this process, without
// sockets.
//
//   throughput  the mixed workload, all requests at once
//   latency     one sequence alone: prefill of 512 tokens, decoding, time to first token
//   serve       the mixed workload under Poisson arrivals: TTFT and inter-token percentiles
//
// Each prints one JSON object a line, so that bench/run.sh can make a table.
#include <fmt/format.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "cli/bench_workload.h"
#include "cli/commands.h"
#include "engine/local_engine.h"

namespace pagemill::cli {
namespace {

using nlohmann::json;

struct BenchOptions {
  EngineOptions engine;
  std::string workload_file;
  std::int32_t num_prompts = 128, repeats = 3;
  double mean_input = 160, mean_output = 200, rate = 1;
  std::uint64_t workload_seed = 20261122;
  bool sampling = false;
};

// Everything that makes sampling costly at once: temperature, top-p, top-k, penalties, stop
// strings.
SamplingParams costly_sampling() {
  SamplingParams params;
  params.temperature = 0.8f;
  params.top_p = 0.95f;
  params.top_k = 50;
  params.presence_penalty = 0.2f;
  params.frequency_penalty = 0.2f;
  params.repetition_penalty = 1.1f;
  params.stop = {"a stop string that never comes", "\n\n\n\n\n\n\n\n"};
  params.seed = 1;
  return params;
}

SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

double peak_memory_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

json latency_fields(const RunMeasure& measure) {
  json fields;
  const auto add = [&](const char* name, const std::vector<double>& seconds) {
    for (int percent : {50, 90, 99}) {
      fields[fmt::format("{}_p{}_ms", name, percent)] = 1e3 * quantile(seconds, percent / 100.0);
    }
  };
  add("ttft", measure.ttft_s);
  add("itl", measure.itl_s);
  add("e2e", measure.e2e_s);
  return fields;
}

void print(json line, const EngineClient& engine) {
  line["model"] = engine.model().path;
  line["dtype"] = engine.model().dtype;
  line["peak_memory_mib"] = peak_memory_mib();
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
}

Result<std::vector<WorkloadItem>> workload_of(const BenchOptions& options,
                                              const EngineClient& engine) {
  if (!options.workload_file.empty()) return read_workload(options.workload_file);
  return mixed_workload(options.num_prompts,
                        options.mean_input,
                        options.mean_output,
                        engine.model().vocab_size,
                        options.workload_seed);
}

// Other prompts of the same lengths: a repeated run must not find the first one's in the prefix
// cache.
void shift_tokens(std::vector<WorkloadItem>& items, std::int32_t vocab_size) {
  for (WorkloadItem& item : items) {
    for (TokenId& token : item.prompt_token_ids) token = (token + 1) % vocab_size;
  }
}

Status measure_workload(const BenchOptions& options,
                        EngineClient& engine,
                        const char* name,
                        double rate) {
  PM_ASSIGN(std::vector<WorkloadItem> items, workload_of(options, engine));
  for (std::int32_t repeat = 0; repeat < options.repeats; ++repeat) {
    if (repeat > 0) shift_tokens(items, engine.model().vocab_size);
    const EngineStats before = engine.stats();
    PM_ASSIGN(const RunMeasure measure,
              run_workload(engine, items, options.sampling ? costly_sampling() : greedy(), rate));
    const EngineStats after = engine.stats();
    json line = latency_fields(measure);
    line["bench"] = name;
    line["sampling"] = options.sampling;
    line["requests"] = items.size();
    line["wall_s"] = measure.wall_s;
    line["input_tokens"] = measure.input_tokens;
    line["output_tokens"] = measure.output_tokens;
    line["output_tokens_per_s"] = static_cast<double>(measure.output_tokens) / measure.wall_s;
    line["total_tokens_per_s"] =
        static_cast<double>(measure.input_tokens + measure.output_tokens) / measure.wall_s;
    line["steps"] = after.steps - before.steps;
    line["step_seconds"] = after.step_seconds - before.step_seconds;
    line["preemptions"] = after.num_preemptions - before.num_preemptions;
    if (rate > 0) line["rate"] = rate;
    print(std::move(line), engine);
  }
  return ok_status();
}

// One request alone; its prompt differs each time so that no prefix is found in the cache.
Result<RunMeasure> run_alone(EngineClient& engine,
                             std::int32_t input_len,
                             std::int32_t output_len,
                             std::uint64_t seed) {
  std::vector<WorkloadItem> items = mixed_workload(1, 4, 4, engine.model().vocab_size, seed);
  items[0].output_len = output_len;
  items[0].prompt_token_ids.resize(input_len);
  for (std::int32_t i = 0; i < input_len; ++i) {
    items[0].prompt_token_ids[i] = static_cast<TokenId>(
        (seed * 7919 + static_cast<std::uint64_t>(i) * 104729) % engine.model().vocab_size);
  }
  return run_workload(engine, items, greedy());
}

Status measure_latency(const BenchOptions& options, EngineClient& engine) {
  constexpr std::int32_t kPrefill = 512, kShort = 16, kDecode = 128;
  PM_TRY(run_alone(engine, kPrefill, 8, 1));  // warm: pages of the KV cache and of the scratch
  for (std::int32_t repeat = 0; repeat < options.repeats; ++repeat) {
    const std::uint64_t seed = 2 + 2 * static_cast<std::uint64_t>(repeat);
    PM_ASSIGN(const RunMeasure prefill, run_alone(engine, kPrefill, 1, seed));
    PM_ASSIGN(const RunMeasure decode, run_alone(engine, kShort, kDecode + 1, seed + 1));
    double decode_s = 0;
    for (double itl : decode.itl_s) decode_s += itl;
    print({{"bench", "latency"},
           {"prefill_tokens_per_s", kPrefill / prefill.ttft_s.front()},
           {"decode_tokens_per_s", static_cast<double>(decode.itl_s.size()) / decode_s},
           {"ttft_short_ms", 1e3 * decode.ttft_s.front()}},
          engine);
  }
  return ok_status();
}

using Measure = Status (*)(const BenchOptions&, EngineClient&);

int bench(BenchOptions& options, Measure measure) {
  const double begin = monotonic_seconds();
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  auto engine = EngineClient::start(options.engine);
  if (!engine.ok()) return fail(engine.error());
  print({{"bench", "start"}, {"load_ms", 1e3 * (monotonic_seconds() - begin)}}, **engine);
  const Status status = measure(options, **engine);
  return status.ok() ? 0 : fail(status.error());
}

void add_measure(
    CLI::App& parent, const char* name, const char* what, ExitStatus& status, Measure measure) {
  CLI::App* command = parent.add_subcommand(name, what);
  auto options = std::make_shared<BenchOptions>();
  add_engine_options(*command, options->engine);
  command->add_option("--repeats", options->repeats, "Runs, each a line")->capture_default_str();
  command->add_option(
      "--workload", options->workload_file, "JSON lines with prompt_token_ids and output_len");
  command->add_option("--num-prompts", options->num_prompts, "Requests of the mixed workload")
      ->capture_default_str();
  command->add_option("--input-len", options->mean_input, "Mean prompt tokens")
      ->capture_default_str();
  command->add_option("--output-len", options->mean_output, "Mean output tokens")
      ->capture_default_str();
  command->add_option("--rate", options->rate, "serve: requests a second")->capture_default_str();
  command->add_option("--workload-seed", options->workload_seed, "Seed of the mixed workload")
      ->capture_default_str();
  command->add_flag("--sampling",
                    options->sampling,
                    "With temperature, top-p, top-k, penalties and stop strings");
  command->callback([options, measure, &status] { status.code = bench(*options, measure); });
}

}  // namespace

void add_bench(CLI::App& app, ExitStatus& status) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure throughput, latency, or serving under load");
  command->require_subcommand(1);
  add_measure(*command,
              "throughput",
              "The mixed workload, all requests at once",
              status,
              [](const BenchOptions& options, EngineClient& engine) {
                return measure_workload(options, engine, "throughput", 0);
              });
  add_measure(
      *command, "latency", "One sequence alone: prefill and decode", status, measure_latency);
  add_measure(*command,
              "serve",
              "The mixed workload under Poisson arrivals",
              status,
              [](const BenchOptions& options, EngineClient& engine) {
                return measure_workload(options, engine, "serve", options.rate);
              });
}

}  // namespace pagemill::cli
