#include "engine/local_engine.h"

#include <fmt/format.h>

#include <chrono>

#include "base/clock.h"
#include "base/logging.h"
#include "engine/weights_identity.h"
#include "layers/kv_disk_tier.h"

namespace pagemill {
namespace {

// Part of the names of KV blocks. To be raised where a change of the kernels or of a model's code
// changes the bits of keys and values: blocks that an older version left are then not found.
constexpr int kNumericsVersion = 1;

// SplitMix64's finalizer (Steele et al., OOPSLA 2014): turns a counter into a seed.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Status check_options(const EngineOptions& options) {
  const auto require =
      [](bool ok, const char* option, std::int64_t value, const char* what) -> Status {
    if (ok) return ok_status();
    return invalid_argument(fmt::format("--{}: expected {}, got {}", option, what, value), option);
  };
  PM_TRY(
      require(options.block_size >= 16 && options.block_size % 16 == 0 && options.block_size <= 256,
              "block-size",
              options.block_size,
              "a multiple of 16 from 16 to 256"));
  PM_TRY(require(options.max_num_batched_tokens >= 1,
                 "max-num-batched-tokens",
                 options.max_num_batched_tokens,
                 "at least 1"));
  PM_TRY(require(options.max_num_seqs >= 1, "max-num-seqs", options.max_num_seqs, "at least 1"));
  PM_TRY(require(options.max_queued_requests >= 1,
                 "max-queued-requests",
                 options.max_queued_requests,
                 "at least 1"));
  PM_TRY(require(
      options.threads >= 0 && options.threads <= 1024, "threads", options.threads, "0..1024"));
  PM_TRY(require(options.profile_bytes >= 1, "profile-size", options.profile_bytes, "bytes"));
  PM_TRY(require(options.kv_disk_bytes >= 1, "kv-disk-size", options.kv_disk_bytes, "bytes"));
  PM_ASSIGN(const PreemptionMode mode, parse_preemption_mode(options.preemption_mode));
  if (mode == PreemptionMode::kSwap && options.kv_disk_path.empty()) {
    return invalid_argument(
        "--preemption-mode swap: say where preempted requests' blocks go, by --kv-disk-path",
        "preemption-mode");
  }
  PM_TRY(require(options.max_model_len >= 0, "max-model-len", options.max_model_len, "at least 0"));
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<EngineClient>> EngineClient::start(const EngineOptions& options) {
  PM_ASSIGN(std::unique_ptr<LocalEngine> engine, LocalEngine::create(options));
  return std::unique_ptr<EngineClient>(std::move(engine));
}

Result<std::unique_ptr<LocalEngine>> LocalEngine::create(const EngineOptions& options) {
  PM_TRY(check_options(options));
  PM_ASSIGN(LoadedModel loaded, load_engine_model(options));
  std::unique_ptr<LocalEngine> engine(new LocalEngine(options, std::move(loaded)));
  PM_TRY(engine->init());
  return engine;
}

LocalEngine::LocalEngine(EngineOptions options, LoadedModel loaded)
    : options_(std::move(options)), loaded_(std::move(loaded)) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  next_seed_ = options_.seed != 0 ? options_.seed : static_cast<std::uint64_t>(now);
}

Status LocalEngine::init() {
  const ModelSpec& spec = loaded_.model->spec();
  if (options_.max_model_len > loaded_.info.max_model_len) {
    return invalid_argument(fmt::format("--max-model-len: the model's positions end at {}, got {}",
                                        loaded_.info.max_model_len,
                                        options_.max_model_len),
                            "max-model-len");
  }
  PM_ASSIGN(memory_,
            plan_memory(options_, spec.kv_specs, loaded_.kv_dtype, loaded_.info.max_model_len));
  if (options_.max_model_len == 0 && memory_.max_model_len < loaded_.info.max_model_len) {
    spdlog::warn(
        "max_model_len lowered from {} to {} tokens: what the KV cache holds (--kv-cache-memory)",
        loaded_.info.max_model_len,
        memory_.max_model_len);
  }
  loaded_.info.max_model_len = memory_.max_model_len;
  PM_ASSIGN(
      KvStorage kv,
      KvStorage::create(spec.kv_specs, loaded_.kv_dtype, options_.block_size, memory_.num_blocks));
  PM_ASSIGN(SchedulerConfig config, scheduler_config());
  for (std::int32_t group = 0; group < kv.num_groups(); ++group) {
    config.tier_block_bytes.push_back(static_cast<std::int64_t>(kv.block_bytes(group)));
  }
  PM_ASSIGN(std::unique_ptr<Scheduler> scheduler, Scheduler::create(std::move(config)));
  std::unique_ptr<KvDiskTier> tier;
  if (!options_.kv_disk_path.empty()) {
    PM_ASSIGN(tier, KvDiskTier::open(options_.kv_disk_path));
    const auto found = tier->scan();
    for (const KvDiskTier::StoredBlock& block : found) {
      scheduler->add_tier_block(block.group, block.key);
    }
    spdlog::info("{} KV blocks lie in {}", found.size(), options_.kv_disk_path);
  }
  scheduler_ = scheduler.get();
  auto runner = std::make_unique<ModelRunner>(
      *loaded_.model,
      std::move(kv),
      *loaded_.pool,
      loaded_.isa,
      RunnerOptions{.block_size = options_.block_size,
                    .max_num_batched_tokens = options_.max_num_batched_tokens,
                    .max_num_seqs = options_.max_num_seqs,
                    .max_logits_rows = kMaxLogitsRows,
                    .poison_free_blocks = options_.poison_free_blocks,
                    .eos_token_ids = loaded_.info.eos_token_ids},
      std::move(tier));
  std::unique_ptr<Tracer> tracer;
  if (!options_.profile_path.empty()) {
    PM_ASSIGN(tracer, Tracer::open(options_.profile_path, {.file_bytes = options_.profile_bytes}));
  }
  core_ = std::make_unique<EngineCore>(
      std::move(scheduler), std::move(runner), loaded_.tokenizer, std::move(tracer));
  core_->start();
  return ok_status();
}

Result<SchedulerConfig> LocalEngine::scheduler_config() const {
  const ModelSpec& spec = loaded_.model->spec();
  PM_ASSIGN(const SchedulingPolicy policy, parse_scheduling_policy(options_.scheduling_policy));
  PM_ASSIGN(const PreemptionMode preemption, parse_preemption_mode(options_.preemption_mode));
  PM_ASSIGN(const Reservation reservation, parse_reservation(options_.kv_reservation));
  // Blocks on a disk outlive the process: they need a name that no other weights can have.
  std::string weights = options_.model;
  if (!options_.kv_disk_path.empty()) {
    PM_ASSIGN(weights, weights_identity(options_.model));
  }
  return SchedulerConfig{
      .kv_groups = spec.kv_specs,
      .num_blocks = memory_.num_blocks,
      .block_size = options_.block_size,
      .max_model_len = loaded_.info.max_model_len,
      .max_num_batched_tokens = options_.max_num_batched_tokens,
      .max_num_seqs = options_.max_num_seqs,
      .max_queued_requests = options_.max_queued_requests,
      .enable_prefix_caching = options_.enable_prefix_caching && spec.prefix_cacheable,
      .policy = policy,
      .tier_bytes = options_.kv_disk_path.empty() ? 0 : options_.kv_disk_bytes,
      .preemption = preemption,
      .reservation = reservation,
      .admission_headroom = options_.admission_headroom,
      .target_itl_s = options_.target_itl_ms / 1e3,
      .fair_input_weight = options_.fair_input_weight,
      .fair_output_weight = options_.fair_output_weight,
      .eos_token_ids = loaded_.info.eos_token_ids,
      .cache_identity = fmt::format("{}:{}:{}:{}:{}",
                                    weights,
                                    loaded_.info.dtype,
                                    dtype_info(loaded_.kv_dtype).name,
                                    to_string(loaded_.isa),
                                    kNumericsVersion)};
}

EngineStats LocalEngine::stats() const {
  EngineStats stats = core_->stats();
  stats.block_size = memory_.block_size;
  stats.block_bytes = memory_.bytes_per_block;
  return stats;
}

// As vLLM: a bad word is forbidden at the start of a text and after a space.
Status LocalEngine::tokenize_bad_words(SamplingParams& params) const {
  for (const std::string& word : params.bad_words) {
    if (!loaded_.tokenizer)
      return invalid_argument("bad_words: the model has no tokenizer", "bad_words");
    for (const char* prefix : {"", " "}) {
      PM_ASSIGN(std::vector<TokenId> ids, loaded_.tokenizer->encode(prefix + word, false));
      if (!ids.empty()) params.bad_words_token_ids.push_back(std::move(ids));
    }
  }
  return ok_status();
}

Status LocalEngine::prepare(Request& request) const {
  SamplingParams& params = request.params;
  const std::int32_t vocab_size = loaded_.info.vocab_size;
  PM_TRY(validate(params, vocab_size));
  if (request.prompt_token_ids.empty())
    return invalid_argument("the prompt has no tokens", "prompt");
  for (TokenId token : request.prompt_token_ids) {
    if (token < 0 || token >= vocab_size) {
      return invalid_argument(
          fmt::format("token id {} is outside the vocabulary 0..{}", token, vocab_size - 1),
          "prompt");
    }
  }
  const auto prompt_len = static_cast<std::int64_t>(request.prompt_token_ids.size());
  if (prompt_len + params.max_tokens > loaded_.info.max_model_len) {
    return invalid_argument(fmt::format("this model's maximum context length is {} tokens, but {} "
                                        "were requested ({} in the prompt, "
                                        "{} for the output)",
                                        loaded_.info.max_model_len,
                                        prompt_len + params.max_tokens,
                                        prompt_len,
                                        params.max_tokens),
                            prompt_len >= loaded_.info.max_model_len ? "prompt" : "max_tokens");
  }
  const std::int64_t needed = scheduler_->blocks_at_full_length(
      static_cast<std::int32_t>(prompt_len), params.max_tokens, params.num_sequences());
  if (needed > memory_.num_blocks - 1) {
    return invalid_argument(fmt::format("the request needs {} KV blocks at its longest ({} "
                                        "sequences of {} tokens), the cache has {}",
                                        needed,
                                        params.num_sequences(),
                                        prompt_len + params.max_tokens,
                                        memory_.num_blocks - 1),
                            params.num_sequences() > 1 ? params.width_field() : "max_tokens");
  }
  if (!params.stop.empty() && !loaded_.tokenizer) {
    return invalid_argument("stop: the model has no tokenizer; use stop_token_ids", "stop");
  }
  return tokenize_bad_words(params);
}

Result<RequestId> LocalEngine::submit(Request request, OnDelta on_delta) {
  PM_TRY(prepare(request));
  request.id = next_id_++;
  request.arrival_time = monotonic_seconds();
  if (!request.params.seed) request.params.seed = mix(next_seed_++);
  const bool hide_logprobs =
      request.params.num_outputs() > request.params.n && !request.params.logprobs;
  if (hide_logprobs) request.params.logprobs = 0;
  const RequestId id = request.id;
  PM_TRY(core_->submit(std::move(request), std::move(on_delta), hide_logprobs));
  return id;
}

}  // namespace pagemill
