// A request's logits, bit for bit, whatever else runs: alone or among 64 others, in chunks of 16 or
// whole, after a preemption, after a prefix hit, on 1 thread or 2, in blocks of 16 or 32. Counters
// show that each condition occurred.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <random>

#include "base/files_testing.h"
#include "hub/model_path.h"
#include "kernels/isa.h"
#include "models/model.h"
#include "runner/model_runner.h"
#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

constexpr RequestId kTarget = 1000000;
constexpr std::int32_t kPromptLen = 200, kOutputLen = 24;

struct Case {
  std::int32_t threads = 2;
  std::int32_t max_num_batched_tokens = 2048;
  std::int32_t block_size = 16;
  std::int32_t num_blocks = 2048;
  bool prefix_caching = false;
  std::int32_t others_before = 0, others_after = 0;
  std::int32_t others_max_prompt = 120, others_max_output = 40;
  bool others_outrank = false;  // under the priority policy: the target is the one preempted
  // So many of the target's tokens are computed before it and can be found in the cache.
  std::int32_t prefix_first = 0;
  // Without an observer's demand for every row, the last layer computes those that are needed; the
  // others also ask for logprobs of their prompts' tokens.
  bool needed_rows_only = false;
  bool swap = false;  // evicted blocks go to a disk, and come back from there
};

// What was seen of the target request.
struct Observed {
  std::map<std::int32_t, std::vector<float>> logits;  // by the position that they predict
  std::vector<TokenId> output;
  std::int32_t recomputed = 0;  // positions computed more than once
  bool recomputed_differs = false;
  std::int32_t cached_tokens = 0;
  SchedulerStats stats;
};

struct ModelUnderTest {
  std::string path;
  Isa isa;
  std::optional<DType> compute;
};

std::vector<TokenId> random_tokens(std::mt19937_64& random,
                                   std::int32_t count,
                                   std::int32_t vocab_size) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab_size);
  return tokens;
}

Request make_request(RequestId id,
                     std::vector<TokenId> prompt,
                     std::int32_t output_len,
                     std::int32_t priority,
                     bool prompt_logprobs = false) {
  Request request;
  request.id = id;
  request.prompt_token_ids = std::move(prompt);
  request.params.temperature = 0;
  request.params.max_tokens = output_len;
  request.params.ignore_eos = true;
  if (prompt_logprobs) request.params.prompt_logprobs = 1;
  request.priority = priority;
  return request;
}

class Rig {
 public:
  Rig(const ModelUnderTest& model, const Case& conditions)
      : conditions_(conditions), pool_(conditions.threads) {
    auto checkpoint = Checkpoint::open(model.path);
    PM_CHECK(checkpoint.ok(), "{}", checkpoint.error().message);
    checkpoint_ = std::move(checkpoint).value();
    comm_ = make_single_communicator();
    auto loaded = load_model(*checkpoint_,
                             {.isa = model.isa,
                              .compute = model.compute,
                              .max_tokens = conditions.max_num_batched_tokens,
                              .max_logits_rows = 64},
                             pool_,
                             *comm_);
    PM_CHECK(loaded.ok(), "{}", loaded.error().message);
    model_ = std::move(loaded).value();
    const ModelSpec& spec = model_->spec();
    auto kv = KvStorage::create(
        spec.kv_specs, DType::kBF16, conditions.block_size, conditions.num_blocks);
    PM_CHECK(kv.ok(), "{}", kv.error().message);
    std::vector<std::int64_t> block_bytes;
    block_bytes.reserve(kv->num_groups());
    for (std::int32_t group = 0; group < kv->num_groups(); ++group) {
      block_bytes.push_back(static_cast<std::int64_t>(kv->block_bytes(group)));
    }
    std::unique_ptr<KvDiskTier> tier;
    if (conditions.swap) tier = KvDiskTier::open(folder_.path()).value();
    runner_ = std::make_unique<ModelRunner>(
        *model_,
        std::move(kv).value(),
        pool_,
        model.isa,
        RunnerOptions{.block_size = conditions.block_size,
                      .max_num_batched_tokens = conditions.max_num_batched_tokens,
                      .max_num_seqs = 256,
                      .max_logits_rows = 64,
                      .poison_free_blocks = true,
                      .eos_token_ids = {}},
        std::move(tier));
    auto scheduler = Scheduler::create({.kv_groups = spec.kv_specs,
                                        .num_blocks = conditions.num_blocks,
                                        .block_size = conditions.block_size,
                                        .max_model_len = 512,
                                        .max_num_batched_tokens = conditions.max_num_batched_tokens,
                                        .max_num_seqs = 256,
                                        .max_queued_requests = 4096,
                                        .enable_prefix_caching = conditions.prefix_caching,
                                        .policy = SchedulingPolicy::kPriority,
                                        .tier_bytes = conditions.swap ? 1 << 30 : 0,
                                        .tier_block_bytes = block_bytes,
                                        .preemption = PreemptionMode::kSwap,
                                        .eos_token_ids = {},
                                        .cache_identity = model.path});
    PM_CHECK(scheduler.ok(), "{}", scheduler.error().message);
    scheduler_ = std::move(scheduler).value();
  }

  Observed run() {
    const std::int32_t vocab_size = model_->spec().vocab_size;
    std::mt19937_64 prompt_random(7);
    const std::vector<TokenId> prompt = random_tokens(prompt_random, kPromptLen, vocab_size);
    runner_->set_logits_observer(
        [this](SeqId seq, std::int32_t position, std::span<const float> logits) {
          if (seq == target_seq_) observe(position, logits);
        },
        /*every_row=*/!conditions_.needed_rows_only);
    if (conditions_.prefix_first > 0) {  // the same tokens so far, then others
      std::vector<TokenId> other = random_tokens(prompt_random, kPromptLen + 16, vocab_size);
      std::copy_n(prompt.begin(), conditions_.prefix_first, other.begin());
      if (conditions_.prefix_first < kPromptLen) {
        TokenId& differs = other[conditions_.prefix_first];
        differs = (prompt[conditions_.prefix_first] + 1) % vocab_size;
      }
      add(make_request(1, std::move(other), 4, 0));
      drain();
    }
    add_others(conditions_.others_before, 100, vocab_size);
    for (int i = 0; i < 2 && conditions_.others_before > 0; ++i) step();
    add(make_request(kTarget, prompt, kOutputLen, conditions_.others_outrank ? 1 : 0));
    if (conditions_
            .others_outrank) {  // the target is well under way when more important work arrives
      for (int i = 0; i < 3; ++i) step();
    }
    add_others(conditions_.others_after, 500, vocab_size);
    drain();
    observed_.stats = scheduler_->stats();
    return std::move(observed_);
  }

 private:
  void add(Request request) {
    const Status added = scheduler_->add_request(std::move(request));
    PM_CHECK(added.ok(), "{}", added.error().message);
  }

  void add_others(std::int32_t count, RequestId first_id, std::int32_t vocab_size) {
    std::mt19937_64 random(first_id);
    for (std::int32_t i = 0; i < count; ++i) {
      const auto prompt_len =
          static_cast<std::int32_t>(1 + random() % conditions_.others_max_prompt);
      add(make_request(first_id + i,
                       random_tokens(random, prompt_len, vocab_size),
                       static_cast<std::int32_t>(1 + random() % conditions_.others_max_output),
                       0,
                       conditions_.needed_rows_only && i % 2 == 0));
    }
  }

  void observe(std::int32_t position, std::span<const float> logits) {
    const auto [it, is_new] = observed_.logits.try_emplace(position, logits.begin(), logits.end());
    if (is_new) return;
    ++observed_.recomputed;
    if (std::memcmp(it->second.data(), logits.data(), logits.size_bytes()) != 0)
      observed_.recomputed_differs = true;
  }

  void step() {
    scheduler_->plan(plan_);
    if (plan_.empty()) return;
    for (const Admission& admission : scheduler_->newly_admitted()) {
      if (admission.request == kTarget) {
        observed_.cached_tokens = admission.num_cached_tokens;
        target_admitted_ = true;
      }
    }
    // The target's sequence id: its prompt is unique to it, but for the warming request, which ran
    // before.
    for (const SequenceCreate& create : plan_.creates) {
      if (target_admitted_ && create.params->max_tokens == kOutputLen &&
          create.prompt_token_ids.size() == kPromptLen) {
        target_seq_ = create.seq;
      }
    }
    runner_->submit(plan_);
    scheduler_->commit(std::move(runner_->wait()), output_);
    for (const SequenceEvent& event : output_.events) {
      if (event.request == kTarget && event.sampled)
        observed_.output.push_back(event.sampled->token);
    }
  }

  void drain() {
    while (scheduler_->has_work()) step();
  }

  TemporaryFolder folder_;
  Case conditions_;
  ThreadPool pool_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  StepOutput output_;
  Observed observed_;
  SeqId target_seq_ = 0;
  bool target_admitted_ = false;
};

void expect_same_bits(const Observed& expected, const Observed& actual) {
  EXPECT_EQ(expected.output, actual.output);
  EXPECT_FALSE(actual.recomputed_differs);
  ASSERT_FALSE(actual.logits.empty());
  for (const auto& [position, logits] : actual.logits) {
    const auto it = expected.logits.find(position);
    ASSERT_NE(it, expected.logits.end()) << "position " << position;
    ASSERT_EQ(std::memcmp(it->second.data(), logits.data(), logits.size() * sizeof(float)), 0)
        << "position " << position;
  }
}

void check_model(const ModelUnderTest& model) {
  SCOPED_TRACE(model.path + " on " + std::string(to_string(model.isa)));
  const auto run = [&](const Case& conditions) { return Rig(model, conditions).run(); };
  const Observed alone = run({});
  ASSERT_EQ(alone.logits.size(), static_cast<std::size_t>(kPromptLen + kOutputLen - 1));
  ASSERT_EQ(alone.recomputed, 0);
  for (const auto& [position, logits] : alone.logits) {
    for (float logit : logits) ASSERT_TRUE(std::isfinite(logit)) << "position " << position;
  }
  {
    SCOPED_TRACE("one thread");
    expect_same_bits(alone, run({.threads = 1}));
  }
  {
    SCOPED_TRACE("chunks of 16");
    const Observed chunked = run({.max_num_batched_tokens = 16});
    EXPECT_GE(chunked.stats.chunked_prefills, 1u);
    EXPECT_GE(chunked.stats.steps, static_cast<std::uint64_t>(kPromptLen / 16 + kOutputLen - 1));
    expect_same_bits(alone, chunked);
  }
  {
    SCOPED_TRACE("blocks of 32");
    expect_same_bits(alone, run({.block_size = 32, .num_blocks = 1024}));
  }
  {
    SCOPED_TRACE("among 64 others, three threads");
    const Observed crowded =
        run({.threads = 3, .max_num_batched_tokens = 512, .others_before = 32, .others_after = 32});
    EXPECT_EQ(crowded.logits.size(), alone.logits.size());
    expect_same_bits(alone, crowded);
  }
  {
    SCOPED_TRACE("rows that need logits alone");
    const Observed needed = run({.max_num_batched_tokens = 150,
                                 .others_before = 8,
                                 .others_after = 8,
                                 .needed_rows_only = true});
    EXPECT_EQ(needed.logits.size(), static_cast<std::size_t>(kOutputLen));
    expect_same_bits(alone, needed);
  }
  {
    SCOPED_TRACE("preempted");
    const Observed preempted = run({.num_blocks = 24,
                                    .others_after = 24,
                                    .others_max_prompt = 12,
                                    .others_max_output = 60,
                                    .others_outrank = true});
    EXPECT_GE(preempted.stats.preemptions, 1u);
    EXPECT_GE(preempted.recomputed, kPromptLen);
    expect_same_bits(alone, preempted);
  }
  {
    SCOPED_TRACE("preempted and swapped");
    const Observed swapped = run({.num_blocks = 24,
                                  .prefix_caching = true,
                                  .others_after = 24,
                                  .others_max_prompt = 12,
                                  .others_max_output = 60,
                                  .others_outrank = true,
                                  .swap = true});
    EXPECT_GE(swapped.stats.preemptions, 1u);
    EXPECT_GE(swapped.stats.tier_saves, static_cast<std::uint64_t>(kPromptLen / 16));
    EXPECT_GE(swapped.stats.resumed_loads, 16u);
    EXPECT_EQ(swapped.stats.tier_failed_loads, 0u);
    EXPECT_LT(swapped.recomputed, kPromptLen);
    expect_same_bits(alone, swapped);
  }
  {
    SCOPED_TRACE("prefix hit");
    const Observed hit = run({.prefix_caching = true, .prefix_first = 192});
    EXPECT_EQ(hit.cached_tokens, 192);
    EXPECT_EQ(hit.stats.copied_hits, 0u);
    EXPECT_EQ(hit.logits.size(), alone.logits.size() - hit.cached_tokens);
    expect_same_bits(alone, hit);
  }
  for (const std::int32_t length : {93, kPromptLen}) {
    SCOPED_TRACE(fmt::format("hit of {} tokens, the last by copy of part of a block", length));
    const Observed hit = run({.prefix_caching = true, .prefix_first = length});
    EXPECT_EQ(hit.cached_tokens, std::min(length, kPromptLen - 1));
    EXPECT_EQ(hit.stats.copied_hits, static_cast<std::uint64_t>(hit.cached_tokens % 16));
    EXPECT_EQ(hit.logits.size(), alone.logits.size() - hit.cached_tokens);
    expect_same_bits(alone, hit);
  }
}

std::string tiny(const char* name) { return std::string(PM_GOLDEN_DIR) + "/tiny/" + name; }

TEST(SameBits, TinyModelsOnEveryIsa) {
  for (Isa isa : supported_isas()) {
    check_model({tiny("gqa"), isa, DType::kBF16});
    check_model({tiny("gqa"), isa, DType::kF32});
    check_model({tiny("mistral_window"), isa, DType::kBF16});
    check_model({tiny("gguf_q4_1") + "/model.gguf", isa, std::nullopt});
    check_model({tiny("w8a8_llama"), isa, std::nullopt});
    check_model({tiny("gguf_q4_k_m") + "/model.gguf", isa, std::nullopt});
    if (HasFatalFailure()) return;
  }
}

TEST(SameBits, DemoModel) {
  const auto path = resolve_model_path("demo");
  if (!path.ok()) GTEST_SKIP() << path.error().message;
  for (Isa isa : supported_isas()) {
    if (isa == Isa::kScalar) continue;  // minutes; the tiny models cover it
    check_model({*path, isa, DType::kBF16});
    check_model({*path, isa, std::nullopt});
    if (HasFatalFailure()) return;
  }
}

// Instruction sets round in different orders: near, not equal. The bound is on the demo model in
// bf16, whose logits have a standard deviation of about 4.
TEST(SameBits, IsasAgreeWithinTolerance) {
  const auto path = resolve_model_path("demo");
  if (!path.ok()) GTEST_SKIP() << path.error().message;
  constexpr float kTolerance = 1.0f;
  std::vector<Isa> isas;
  for (Isa isa : supported_isas()) {
    if (isa != Isa::kScalar) isas.push_back(isa);
  }
  if (isas.size() < 2) GTEST_SKIP() << "the machine has one vector instruction set";
  const Observed a = Rig({*path, isas[0], DType::kBF16}, {}).run();
  for (Isa isa : std::vector<Isa>(isas.begin() + 1, isas.end())) {
    const Observed b = Rig({*path, isa, DType::kBF16}, {}).run();
    float worst = 0;
    for (std::int32_t position = 1; position <= kPromptLen; ++position) {
      for (std::size_t i = 0; i < a.logits.at(position).size(); ++i) {
        worst = std::max(worst, std::fabs(a.logits.at(position)[i] - b.logits.at(position)[i]));
      }
    }
    RecordProperty("worst_difference_" + std::string(to_string(isa)), std::to_string(worst));
    std::printf("worst difference between %s and %s: %g\n",
                std::string(to_string(isas[0])).c_str(),
                std::string(to_string(isa)).c_str(),
                static_cast<double>(worst));
    EXPECT_LT(worst, kTolerance);
  }
}

}  // namespace
}  // namespace pagemill
