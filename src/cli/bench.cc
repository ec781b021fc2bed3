// pagemill bench throughput|latency|serve MODEL: measures the engine in this process, without
// sockets; `serve --base-url` measures a server over HTTP. `bench limits` is in bench_limits.cc.
//
//   throughput  the mixed workload, all requests at once
//   latency     one sequence alone: prefill, decoding, time to first token
//   serve       the mixed workload under Poisson arrivals: TTFT and inter-token percentiles
//
// Each prints one JSON object a line, so that bench/run.sh can make a table.
#include <fmt/format.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "cli/bench_http.h"
#include "cli/bench_limits.h"
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
  std::int32_t prefill_len = 512, context_len = 16, decode_len = 128;  // of one sequence alone
  std::int32_t max_concurrency = 0, vocab_size = 32000;                // over HTTP
  std::string base_url, served_model, api_key;                         // likewise
  double mean_input = 160, mean_output = 200, rate = 1, timeout_s = 600;
  std::uint64_t workload_seed = 20261122;
  bool sampling = false, independent = false;
  std::int32_t n = 1, beam_width = 0;
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
  params.make_greedy();
  return params;
}

SamplingParams params_of(const BenchOptions& options) {
  SamplingParams params = options.sampling ? costly_sampling() : greedy();
  params.n = options.independent ? 1 : options.n;
  if (options.n > 1 && !options.sampling) {
    params.temperature = 1;  // n greedy sequences would be one
    params.seed = 1;
  }
  if (options.beam_width > 0) {
    params = greedy();
    params.use_beam_search = true;
    params.n = options.beam_width;
  }
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

void print(const json& line) {
  fmt::print("{}\n", line.dump(-1, ' ', false, json::error_handler_t::replace));
  std::fflush(stdout);
}

void print(json line, const EngineClient& engine) {
  line["model"] = engine.model().path;
  line["dtype"] = engine.model().dtype;
  line["peak_memory_mib"] = peak_memory_mib();
  print(line);
}

// A run of a workload, without what is known of the engine alone.
json workload_fields(const BenchOptions& options,
                     const char* name,
                     double rate,
                     std::size_t num_requests,
                     const RunMeasure& measure) {
  json line = latency_fields(measure);
  line["normalized_latency_s"] = mean(measure.normalized_s);
  line["bench"] = name;
  line["sampling"] = options.sampling;
  line["requests"] = num_requests;
  line["requests_ok"] = static_cast<std::int64_t>(num_requests) - measure.num_failed;
  line["requests_failed"] = measure.num_failed;
  line["wall_s"] = measure.wall_s;
  line["input_tokens"] = measure.input_tokens;
  line["output_tokens"] = measure.output_tokens;
  line["output_tokens_per_s"] = static_cast<double>(measure.output_tokens) / measure.wall_s;
  line["total_tokens_per_s"] =
      static_cast<double>(measure.input_tokens + measure.output_tokens) / measure.wall_s;
  if (rate > 0) line["rate"] = rate;
  return line;
}

// The same for people, beside the JSON that goes to stdout.
void print_table(const json& line) {
  const auto number = [&](const char* name) { return line.at(name).get<double>(); };
  fmt::print(stderr,
             "requests: {} ok, {} failed, in {:.1f} s\n"
             "tokens:   {} in, {} out; {:.1f} out/s, {:.1f} in and out/s\n"
             "{:<24}{:>10}{:>10}{:>10}\n",
             line.at("requests_ok").get<std::int64_t>(),
             line.at("requests_failed").get<std::int64_t>(),
             number("wall_s"),
             line.at("input_tokens").get<std::int64_t>(),
             line.at("output_tokens").get<std::int64_t>(),
             number("output_tokens_per_s"),
             number("total_tokens_per_s"),
             "milliseconds",
             "p50",
             "p90",
             "p99");
  for (const auto& [title, name] : {std::pair("time to first token", "ttft"),
                                    std::pair("between tokens", "itl"),
                                    std::pair("end to end", "e2e")}) {
    fmt::print(stderr, "{:<24}", title);
    for (int percent : {50, 90, 99}) {
      fmt::print(stderr, "{:>10.1f}", number(fmt::format("{}_p{}_ms", name, percent).c_str()));
    }
    fmt::print(stderr, "\n");
  }
}

// Fails where no request did well: its times would be those of nothing.
Status check(const RunMeasure& measure) {
  if (measure.num_failed == 0) return ok_status();
  const std::string what =
      fmt::format("{} requests failed, the first: {}", measure.num_failed, measure.first_failure);
  if (measure.e2e_s.empty()) return io_error(what);
  fmt::print(stderr, "pagemill: warning: {}\n", what);
  return ok_status();
}

Result<std::vector<WorkloadItem>> workload_of(const BenchOptions& options,
                                              std::int32_t vocab_size) {
  if (!options.workload_file.empty()) return read_workload(options.workload_file);
  return mixed_workload(options.num_prompts,
                        options.mean_input,
                        options.mean_output,
                        vocab_size,
                        options.workload_seed);
}

// Other prompts of the same lengths: a repeated run must not find the first one's in the prefix
// cache.
void shift_tokens(std::vector<WorkloadItem>& items, std::int32_t vocab_size) {
  for (WorkloadItem& item : items) {
    for (TokenId& token : item.prompt_token_ids) token = (token + 1) % vocab_size;
  }
}

// Averages over steps: how much of the memory in use was empty, how much sharing saved.
void add_memory_fields(json& line, const std::string& prefix, const KvUse& use, double block_size) {
  line[prefix + "steps"] = use.steps;
  if (use.steps == 0 || use.referenced == 0) return;
  const auto mean = [&](std::uint64_t sum) {
    return static_cast<double>(sum) / static_cast<double>(use.steps);
  };
  const double referenced = mean(use.referenced);
  line[prefix + "sequences"] = mean(use.sequences);
  line[prefix + "blocks"] = referenced;
  line[prefix + "waste"] = mean(use.empty_slots) / (referenced * block_size);
  line[prefix + "saved_by_sharing"] = mean(use.saved) / (referenced + mean(use.saved));
}

Status measure_workload(const BenchOptions& options,
                        EngineClient& engine,
                        const char* name,
                        double rate) {
  const std::int32_t vocab_size = engine.model().vocab_size;
  PM_ASSIGN(std::vector<WorkloadItem> items, workload_of(options, vocab_size));
  if (options.independent) items = repeated(items, options.n);
  for (std::int32_t repeat = 0; repeat < options.repeats; ++repeat) {
    if (repeat > 0) shift_tokens(items, vocab_size);
    const EngineStats before = engine.stats();
    const RunMeasure measure = run_workload(engine, items, params_of(options), rate);
    const EngineStats after = engine.stats();
    PM_TRY(check(measure));
    json line = workload_fields(options, name, rate, items.size(), measure);
    line["steps"] = after.steps - before.steps;
    line["step_seconds"] = after.step_seconds - before.step_seconds;
    line["preemptions"] = after.num_preemptions - before.num_preemptions;
    add_memory_fields(line, "kv_", after.kv_use - before.kv_use, after.block_size);
    add_memory_fields(line, "kv_full_", after.kv_use_full - before.kv_use_full, after.block_size);
    line["kv_slots"] = std::int64_t{after.num_blocks - 1} * after.block_size;
    line["cached_tokens"] = after.prefix_cache_hits - before.prefix_cache_hits;
    line["tier_saved_bytes"] = after.tier_saved_bytes - before.tier_saved_bytes;
    line["tier_loaded_bytes"] = after.tier_loaded_bytes - before.tier_loaded_bytes;
    line["put_off"] = measure.num_put_off;
    line["copy_on_writes"] = after.copy_on_writes - before.copy_on_writes;
    if (options.n > 1) line["n"] = options.n;
    if (options.independent) line["independent"] = true;
    if (options.beam_width > 0) line["beam_width"] = options.beam_width;
    if (rate > 0) print_table(line);
    print(std::move(line), engine);
  }
  return ok_status();
}

Result<HttpBenchOptions> http_options(const BenchOptions& options) {
  HttpBenchOptions http;
  PM_ASSIGN(http.url, parse_http_url(options.base_url));
  if (http.url.path.ends_with("/v1")) http.url.path.resize(http.url.path.size() - 3);
  if (options.served_model.empty()) {
    return invalid_argument("--base-url needs --model: the name that the server knows it by");
  }
  http.model = options.served_model;
  http.api_key = options.api_key;
  http.rate = options.rate;
  http.max_concurrency = options.max_concurrency;
  http.timeout_s = options.timeout_s;
  return http;
}

Status measure_http(const BenchOptions& options) {
  PM_ASSIGN(const HttpBenchOptions http, http_options(options));
  PM_ASSIGN(std::vector<WorkloadItem> items, workload_of(options, options.vocab_size));
  for (std::int32_t repeat = 0; repeat < options.repeats; ++repeat) {
    if (repeat > 0) shift_tokens(items, options.vocab_size);
    const RunMeasure measure =
        run_http_workload(http, items, options.sampling ? costly_sampling() : greedy());
    PM_TRY(check(measure));
    json line = workload_fields(options, "serve", http.rate, items.size(), measure);
    line["base_url"] = options.base_url;
    line["model"] = http.model;
    print_table(line);
    print(line);
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
  RunMeasure measure = run_workload(engine, items, greedy());
  PM_TRY(check(measure));
  return measure;
}

Status measure_latency(const BenchOptions& options, EngineClient& engine) {
  // Warm: pages of the KV cache and of the scratch.
  PM_TRY(run_alone(engine, options.prefill_len, 8, 1));
  for (std::int32_t repeat = 0; repeat < options.repeats; ++repeat) {
    const std::uint64_t seed = 2 + 2 * static_cast<std::uint64_t>(repeat);
    PM_ASSIGN(const RunMeasure prefill, run_alone(engine, options.prefill_len, 1, seed));
    PM_ASSIGN(const RunMeasure decode,
              run_alone(engine, options.context_len, options.decode_len + 1, seed + 1));
    double decode_s = 0;
    for (double itl : decode.itl_s) decode_s += itl;
    print({{"bench", "latency"},
           {"prefill_len", options.prefill_len},
           {"context_len", options.context_len},
           {"prefill_tokens_per_s", options.prefill_len / prefill.ttft_s.front()},
           {"decode_tokens_per_s", static_cast<double>(decode.itl_s.size()) / decode_s},
           {"ttft_short_ms", 1e3 * decode.ttft_s.front()}},
          engine);
  }
  return ok_status();
}

using Measure = Status (*)(const BenchOptions&, EngineClient&);

int bench(BenchOptions& options, Measure measure) {
  if (!options.base_url.empty()) {
    const Status status = measure_http(options);
    return status.ok() ? 0 : fail(status.error());
  }
  if (options.engine.model.empty()) return fail(invalid_argument("MODEL or --base-url is needed"));
  const double begin = monotonic_seconds();
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  auto engine = EngineClient::start(options.engine);
  if (!engine.ok()) return fail(engine.error());
  print({{"bench", "start"}, {"load_ms", 1e3 * (monotonic_seconds() - begin)}}, **engine);
  const Status status = measure(options, **engine);
  return status.ok() ? 0 : fail(status.error());
}

// `serve` can do without MODEL: a server has it already.
void add_serve_options(CLI::App& command, BenchOptions& options) {
  command.get_option("MODEL")->required(false);
  command.add_option("--rate,--request-rate", options.rate, "Requests a second; 0: all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  constexpr const char* kGroup = "Over HTTP";
  CLI::Option* url = command
                         .add_option("--base-url",
                                     options.base_url,
                                     "Measure the OpenAI-compatible server there instead, e.g. "
                                     "http://127.0.0.1:8000")
                         ->group(kGroup)
                         ->excludes("MODEL");
  command.add_option("--model", options.served_model, "The name that the server knows it by")
      ->group(kGroup)
      ->needs(url);
  command.add_option("--api-key", options.api_key, "Sent as 'Authorization: Bearer KEY'")
      ->group(kGroup)
      ->needs(url);
  command
      .add_option("--max-concurrency", options.max_concurrency, "Most requests under way at once")
      ->check(CLI::PositiveNumber)
      ->group(kGroup)
      ->needs(url);
  command
      .add_option("--vocab-size", options.vocab_size, "The prompts' random tokens are below this")
      ->check(CLI::PositiveNumber)
      ->group(kGroup)
      ->capture_default_str();
  command
      .add_option("--timeout", options.timeout_s, "Seconds without a byte until a request failed")
      ->check(CLI::PositiveNumber)
      ->group(kGroup)
      ->capture_default_str();
}

void add_latency_options(CLI::App& command, BenchOptions& options) {
  const auto add = [&](const char* name, std::int32_t& value, const char* what) {
    command.add_option(name, value, what)->check(CLI::PositiveNumber)->capture_default_str();
  };
  add("--input-len", options.prefill_len, "Tokens of the prompt whose computing is timed");
  add("--output-len", options.decode_len, "Tokens after the first whose computing is timed");
  add("--context-len", options.context_len, "Tokens of the prompt before these");
}

void add_workload_options(CLI::App& command, BenchOptions& options) {
  command.add_option(
      "--workload", options.workload_file, "JSON lines with prompt_token_ids and output_len");
  command.add_option("--num-prompts", options.num_prompts, "Requests of the mixed workload")
      ->capture_default_str();
  command.add_option("--input-len", options.mean_input, "Mean prompt tokens")
      ->capture_default_str();
  command.add_option("--output-len", options.mean_output, "Mean output tokens")
      ->capture_default_str();
  command.add_option("--workload-seed", options.workload_seed, "Seed of the mixed workload")
      ->capture_default_str();
  command.add_flag(
      "--sampling", options.sampling, "With temperature, top-p, top-k, penalties and stop strings");
}

void add_measure(
    CLI::App& parent, const char* name, const char* what, ExitStatus& status, Measure measure) {
  CLI::App* command = parent.add_subcommand(name, what);
  auto options = std::make_shared<BenchOptions>();
  if (std::string_view(name) == "serve") options->engine.target_itl_ms = kServedItlMs;
  add_engine_options(*command, options->engine);
  command
      ->add_option("--kv-reservation",
                   options->engine.kv_reservation,
                   "To compare with: memory set aside at admission as by a contiguous cache, for "
                   "the longest sequence (max), a power of two (pow2) or the known length (oracle)")
      ->check(CLI::IsMember({"none", "max", "pow2", "oracle"}))
      ->capture_default_str();
  command->add_option("--repeats", options->repeats, "Runs, each a line")->capture_default_str();
  if (std::string_view(name) == "latency") {
    add_latency_options(*command, *options);
  } else {
    add_workload_options(*command, *options);
  }
  if (std::string_view(name) == "serve") add_serve_options(*command, *options);
  if (std::string_view(name) == "throughput") {
    CLI::Option* n =
        command
            ->add_option("--n", options->n, "Sequences of each request, at temperature 1 if many")
            ->check(CLI::Range(1, 128));
    command
        ->add_flag("--independent",
                   options->independent,
                   "To compare with: each of the --n sequences as a request of its own, which "
                   "shares nothing with the others under --no-prefix-caching")
        ->needs(n);
    command->add_option("--beam-width", options->beam_width, "Beam searches of this width instead")
        ->check(CLI::Range(1, 128))
        ->excludes("--n")
        ->excludes("--sampling");
  }
  command->callback([options, measure, &status] { status.code = bench(*options, measure); });
}

}  // namespace

void add_bench(CLI::App& app, ExitStatus& status) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure throughput, latency, serving under load, the machine");
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
  add_bench_limits(*command, status);
}

}  // namespace pagemill::cli
