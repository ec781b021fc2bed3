#include "metrics/serving_metrics.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>

namespace pagemill {
namespace {

using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

// Bucket bounds as vLLM's v1 metrics have them, so that its dashboards read these too. Seconds.
const Buckets kTtftBuckets = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                              0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                              20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
const Buckets kInterTokenBuckets = {0.01,
                                    0.025,
                                    0.05,
                                    0.075,
                                    0.1,
                                    0.15,
                                    0.2,
                                    0.3,
                                    0.4,
                                    0.5,
                                    0.75,
                                    1.0,
                                    2.5,
                                    5.0,
                                    7.5,
                                    10.0,
                                    20.0,
                                    40.0,
                                    80.0};
const Buckets kLatencyBuckets = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                 5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
const Buckets kParamsNBuckets = {1, 2, 5, 10, 20};

bool is_name(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
  for (const char c : text) {
    const bool ok =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!ok) return false;
  }
  return true;
}

// A total kept elsewhere, mirrored into a counter.
struct MirroredCounter {
  prometheus::Counter* counter = nullptr;
  void set(double total) {
    const double increase = total - counter->Value();
    if (increase > 0) counter->Increment(increase);
  }
};

// The same for a histogram.
struct MirroredIterationTokens {
  Histogram* histogram = nullptr;
  IterationTokens shown = {};
  void set(const IterationTokens& total) {
    std::vector<double> increases(total.steps.size());
    for (std::size_t i = 0; i < increases.size(); ++i) {
      increases[i] = static_cast<double>(total.steps[i] - shown.steps[i]);
    }
    histogram->ObserveMultiple(increases, static_cast<double>(total.tokens - shown.tokens));
    shown = total;
  }
};

}  // namespace

std::vector<double> buckets_1_2_5(std::int64_t max) {
  std::vector<double> buckets;
  for (std::int64_t decade = 1;; decade *= 10) {
    for (const std::int64_t m : {1, 2, 5}) {
      if (m * decade > max) return buckets;
      buckets.push_back(static_cast<double>(m * decade));
    }
  }
}

struct ServingMetrics::Impl {
  explicit Impl(const ServingMetricsOptions& options)
      : prefix(options.prefix + ":"), labels{{"model_name", options.model_name}, {"engine", "0"}} {
    add_engine_metrics();
    add_request_metrics(buckets_1_2_5(options.max_model_len));
    http_requests = &prometheus::BuildCounter()
                         .Name(prefix + "http_requests_total")
                         .Help("HTTP requests answered, by route, method and status.")
                         .Register(registry);
    Labels cache_labels = labels;
    for (const auto& [name, value] : options.cache_config) cache_labels[name] = value;
    prometheus::BuildGauge()
        .Name(prefix + "cache_config_info")
        .Help("The KV cache's configuration, as labels.")
        .Register(registry)
        .Add(cache_labels)
        .Set(1);
  }

  prometheus::Gauge* gauge(const std::string& name, const std::string& help) {
    return &prometheus::BuildGauge().Name(prefix + name).Help(help).Register(registry).Add(labels);
  }
  MirroredCounter counter(const std::string& name, const std::string& help) {
    auto& family = prometheus::BuildCounter().Name(prefix + name).Help(help).Register(registry);
    return {&family.Add(labels)};
  }
  Histogram* histogram(const std::string& name, const std::string& help, const Buckets& buckets) {
    auto& family = prometheus::BuildHistogram().Name(prefix + name).Help(help).Register(registry);
    return &family.Add(labels, buckets);
  }

  void add_engine_metrics() {
    running = gauge("num_requests_running", "Requests in the running batch.");
    waiting = gauge("num_requests_waiting", "Requests waiting to run.");
    kv_usage = gauge("kv_cache_usage_perc", "KV blocks referenced over all, 0 to 1.");
    kv_waste =
        gauge("kv_cache_waste", "Empty slots in referenced blocks over their slots, 0 to 1.");
    auto& blocks = prometheus::BuildGauge()
                       .Name(prefix + "kv_blocks")
                       .Help("KV blocks by state.")
                       .Register(registry);
    auto& bytes = prometheus::BuildGauge()
                      .Name(prefix + "kv_cache_bytes")
                      .Help("KV memory by what it holds; the states add up to all of it.")
                      .Register(registry);
    const auto in_state = [&](auto& family, const char* state) {
      Labels with_state = labels;
      with_state["state"] = state;
      return &family.Add(with_state);
    };
    blocks_free = in_state(blocks, "free");
    blocks_cached = in_state(blocks, "cached");
    blocks_referenced = in_state(blocks, "referenced");
    blocks_pinned = in_state(blocks, "pinned");
    bytes_tokens = in_state(bytes, "tokens");
    bytes_empty = in_state(bytes, "empty");
    bytes_cached = in_state(bytes, "cached");
    bytes_free = in_state(bytes, "free");
    bytes_pinned = in_state(bytes, "pinned");
    bytes_saved = gauge("kv_cache_saved_bytes",
                        "What sequences would take in addition if they shared no blocks.");
    preemptions = counter("num_preemptions_total", "Preemptions so far.");
    cache_queries = counter("prefix_cache_queries_total", "Tokens looked up in the prefix cache.");
    cache_hits = counter("prefix_cache_hits_total", "Tokens found in the prefix cache.");
    cache_copied = counter("prefix_cache_copied_tokens_total",
                           "Tokens found by copying part of a cached block.");
    prompt_tokens = counter("prompt_tokens_total", "Prompt tokens processed.");
    generation_tokens = counter("generation_tokens_total", "Tokens generated.");
    steps = counter("engine_steps_total", "Steps that the engine ran.");
    step_seconds = counter("engine_step_seconds_total", "Seconds spent in steps.");
    iteration_tokens = {
        histogram("iteration_tokens_total",
                  "Tokens that a step computed.",
                  {IterationTokens::kBounds.begin(), IterationTokens::kBounds.end()})};
    corrupted =
        counter("corrupted_requests_total", "Requests that ended by logits that are not finite.");
    chunked = counter("chunked_prefills_total", "Prompts that took more than one step.");
    tier_queries = counter("external_prefix_cache_queries_total",
                           "Tokens that the prefix cache lacked, looked up on disk.");
    tier_hits = counter("external_prefix_cache_hits_total", "Tokens read from disk.");
    tier_saved = counter("kv_disk_saved_bytes_total", "Bytes of KV blocks written to disk.");
    tier_loaded = counter("kv_disk_loaded_bytes_total", "Bytes of KV blocks read from disk.");
    tier_failed = counter("kv_disk_failed_loads_total",
                          "Reads from disk that ended at a missing or broken block.");
    copies =
        counter("copy_on_writes_total", "KV blocks copied because another sequence shares them.");
  }

  void add_request_metrics(const Buckets& token_buckets) {
    success = &prometheus::BuildCounter()
                   .Name(prefix + "request_success_total")
                   .Help("Finished requests by reason.")
                   .Register(registry);
    for (const char* reason : {"stop", "length", "abort", "error"}) finished(reason);
    ttft =
        histogram("time_to_first_token_seconds", "From arrival to the first token.", kTtftBuckets);
    inter_token = histogram(
        "inter_token_latency_seconds", "Between tokens of one request.", kInterTokenBuckets);
    per_output_token = histogram("request_time_per_output_token_seconds",
                                 "A request's decode time over its output tokens after the first.",
                                 kInterTokenBuckets);
    e2e = histogram("e2e_request_latency_seconds", "From arrival to the end.", kLatencyBuckets);
    queue =
        histogram("request_queue_time_seconds", "From arrival to the first step.", kLatencyBuckets);
    inference = histogram(
        "request_inference_time_seconds", "From the first step to the end.", kLatencyBuckets);
    prefill = histogram(
        "request_prefill_time_seconds", "From the first step to the first token.", kLatencyBuckets);
    decode = histogram(
        "request_decode_time_seconds", "From the first token to the end.", kLatencyBuckets);
    req_prompt = histogram("request_prompt_tokens", "Prompt tokens of a request.", token_buckets);
    req_computed = histogram("request_prefill_kv_computed_tokens",
                             "Prompt tokens of a request that no cache supplied.",
                             token_buckets);
    req_generation =
        histogram("request_generation_tokens", "Tokens generated for a request.", token_buckets);
    req_max_generation = histogram("request_max_num_generation_tokens",
                                   "Tokens of a request's longest sequence.",
                                   token_buckets);
    params_n = histogram("request_params_n", "The parameter n.", kParamsNBuckets);
    params_max_tokens =
        histogram("request_params_max_tokens", "The parameter max_tokens.", token_buckets);
  }

  void set_memory(const EngineSnapshot& s) const;

  prometheus::Counter& finished(std::string_view reason) {
    Labels with_reason = labels;
    with_reason["finished_reason"] = std::string(reason);
    return success->Add(with_reason);
  }

  std::string prefix;
  Labels labels;
  prometheus::Registry registry;
  std::mutex render_mutex;

  prometheus::Gauge *running, *waiting, *kv_usage, *kv_waste;
  prometheus::Gauge *blocks_free, *blocks_cached, *blocks_referenced, *blocks_pinned;
  prometheus::Gauge *bytes_tokens, *bytes_empty, *bytes_cached, *bytes_free, *bytes_pinned;
  prometheus::Gauge* bytes_saved;
  MirroredCounter preemptions, cache_queries, cache_hits, prompt_tokens, generation_tokens;
  MirroredCounter steps, step_seconds, chunked, copies, cache_copied, corrupted;
  MirroredIterationTokens iteration_tokens;
  MirroredCounter tier_queries, tier_hits, tier_saved, tier_loaded, tier_failed;
  prometheus::Family<prometheus::Counter>* success;
  prometheus::Family<prometheus::Counter>* http_requests;
  Histogram *ttft, *inter_token, *per_output_token, *e2e, *queue, *inference, *prefill, *decode;
  Histogram *req_prompt, *req_computed, *req_generation, *req_max_generation, *params_n,
      *params_max_tokens;
};

Result<std::unique_ptr<ServingMetrics>> ServingMetrics::create(
    const ServingMetricsOptions& options) {
  if (!is_name(options.prefix)) {
    return invalid_argument(
        fmt::format(
            "metrics prefix '{}': expected letters, digits and '_', not starting with a digit",
            options.prefix),
        "metrics_prefix");
  }
  for (const auto& [name, value] : options.cache_config) {
    if (!is_name(name))
      return invalid_argument(fmt::format("metrics label '{}': not a name", name));
  }
  return std::unique_ptr<ServingMetrics>(new ServingMetrics(std::make_unique<Impl>(options)));
}

ServingMetrics::ServingMetrics(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::observe_inter_token(double seconds) { impl_->inter_token->Observe(seconds); }

void ServingMetrics::observe_finished(const FinishedRequest& request) {
  const auto observe = [](Histogram* histogram, double value) {
    if (value >= 0) histogram->Observe(value);
  };
  impl_->finished(request.finished_reason).Increment();
  observe(impl_->e2e, request.e2e_s);
  observe(impl_->ttft, request.ttft_s);
  observe(impl_->queue, request.queue_s);
  observe(impl_->prefill, request.prefill_s);
  observe(impl_->decode, request.decode_s);
  observe(impl_->inference, request.inference_s);
  if (request.max_generation_tokens > 1 && request.decode_s >= 0) {
    observe(impl_->per_output_token, request.decode_s / (request.max_generation_tokens - 1));
  }
  impl_->req_prompt->Observe(request.prompt_tokens);
  if (request.prefill_s >= 0) {
    impl_->req_computed->Observe(request.prompt_tokens - request.cached_tokens);
  }
  impl_->req_generation->Observe(request.generation_tokens);
  impl_->req_max_generation->Observe(request.max_generation_tokens);
  impl_->params_n->Observe(request.n);
  impl_->params_max_tokens->Observe(request.max_tokens);
}

void ServingMetrics::count_http(std::string_view route, std::string_view method, int status) {
  Labels labels = impl_->labels;
  labels["route"] = std::string(route);
  labels["method"] = std::string(method);
  labels["status"] = std::to_string(status);
  impl_->http_requests->Add(labels).Increment();
}

void ServingMetrics::Impl::set_memory(const EngineSnapshot& s) const {
  blocks_free->Set(s.blocks_free);
  blocks_cached->Set(s.blocks_cached);
  blocks_referenced->Set(s.blocks_referenced);
  blocks_pinned->Set(s.blocks_pinned);
  const double empty = s.block_size > 0 ? s.empty_slots * (s.block_bytes / s.block_size) : 0;
  bytes_tokens->Set(s.blocks_referenced * s.block_bytes - empty);
  bytes_empty->Set(empty);
  bytes_cached->Set(s.blocks_cached * s.block_bytes);
  bytes_free->Set(s.blocks_free * s.block_bytes);
  bytes_pinned->Set(s.blocks_pinned * s.block_bytes);
  bytes_saved->Set(s.blocks_saved * s.block_bytes);
}

std::string ServingMetrics::render(const EngineSnapshot& s) {
  const std::lock_guard lock(impl_->render_mutex);
  impl_->running->Set(s.num_requests_running);
  impl_->waiting->Set(s.num_requests_waiting);
  impl_->kv_usage->Set(s.kv_cache_usage);
  impl_->kv_waste->Set(s.kv_cache_waste);
  impl_->set_memory(s);
  impl_->preemptions.set(static_cast<double>(s.num_preemptions));
  impl_->cache_queries.set(static_cast<double>(s.prefix_cache_queries));
  impl_->cache_hits.set(static_cast<double>(s.prefix_cache_hits));
  impl_->prompt_tokens.set(static_cast<double>(s.prompt_tokens));
  impl_->generation_tokens.set(static_cast<double>(s.generation_tokens));
  impl_->steps.set(static_cast<double>(s.steps));
  impl_->step_seconds.set(s.step_seconds);
  impl_->iteration_tokens.set(s.iteration_tokens);
  impl_->corrupted.set(static_cast<double>(s.corrupted_requests));
  impl_->chunked.set(static_cast<double>(s.chunked_prefills));
  impl_->copies.set(static_cast<double>(s.copy_on_writes));
  impl_->tier_queries.set(static_cast<double>(s.tier_queries));
  impl_->tier_hits.set(static_cast<double>(s.tier_hits));
  impl_->tier_saved.set(static_cast<double>(s.tier_saved_bytes));
  impl_->tier_loaded.set(static_cast<double>(s.tier_loaded_bytes));
  impl_->tier_failed.set(static_cast<double>(s.tier_failed_loads));
  impl_->cache_copied.set(static_cast<double>(s.prefix_cache_copied));
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace pagemill
