#include "golden/engine_testing.h"

#include <algorithm>
#include <random>

#include "base/check.h"
#include "loading/checkpoint.h"

namespace pagemill {

Result<std::unique_ptr<TestEngine>> TestEngine::load(const std::string& path,
                                                     const TestEngineOptions& options) {
  auto engine = std::unique_ptr<TestEngine>(new TestEngine);
  PM_ASSIGN(engine->checkpoint_, Checkpoint::open(path));
  engine->pool_ = std::make_unique<ThreadPool>(options.threads);
  engine->comm_ = make_single_communicator();
  const ModelOptions model_options{.isa = options.isa,
                                   .compute = options.compute,
                                   .max_tokens = kMaxTokens,
                                   .max_logits_rows = 64};
  PM_ASSIGN(engine->model_,
            load_model(*engine->checkpoint_, model_options, *engine->pool_, *engine->comm_));
  const auto& specs = engine->model_->spec().kv_specs;
  PM_ASSIGN(KvStorage kv,
            KvStorage::create(specs, options.kv_dtype, kBlockSize, options.num_blocks));
  for (std::size_t group = 0; group < specs.size(); ++group) {
    kv.poison_block(static_cast<std::int32_t>(group), kNullBlock);
  }
  engine->runner_ =
      std::make_unique<ModelRunner>(*engine->model_,
                                    std::move(kv),
                                    *engine->pool_,
                                    options.isa,
                                    RunnerOptions{.block_size = kBlockSize,
                                                  .max_num_batched_tokens = kMaxTokens,
                                                  .max_num_seqs = 256,
                                                  .max_logits_rows = 64,
                                                  .poison_free_blocks = true,
                                                  .eos_token_ids = {}});
  for (BlockId block = 1; block < options.num_blocks; ++block)
    engine->free_blocks_.push_back(block);
  std::shuffle(engine->free_blocks_.begin(), engine->free_blocks_.end(), std::mt19937(7));
  return engine;
}

TestEngine::Sequence TestEngine::start(std::vector<TokenId> tokens,
                                       std::int32_t prompt_len,
                                       StepPlan& plan,
                                       std::int32_t num_top) {
  Sequence sequence{.id = next_id_++,
                    .tokens = std::move(tokens),
                    .prompt_len = prompt_len,
                    .num_computed = 0,
                    .tables = std::vector<std::vector<BlockId>>(spec().kv_specs.size())};
  auto params = std::make_shared<SamplingParams>();
  params->temperature = 0.0f;
  params->ignore_eos = true;
  params->logprobs = num_top;
  SequenceCreate create;
  create.seq = sequence.id;
  create.params = std::move(params);
  create.prompt_token_ids = {sequence.tokens.data(), static_cast<std::size_t>(prompt_len)};
  plan.creates.push_back(std::move(create));
  return sequence;
}

void TestEngine::append_chunk(Sequence& sequence, std::int32_t count, bool sample, StepPlan& plan) {
  const std::int32_t end = sequence.num_computed + count;
  SequenceStep step;
  step.seq = sequence.id;
  step.num_computed_tokens = sequence.num_computed;
  step.token_ids = {sequence.tokens.data() + sequence.num_computed,
                    static_cast<std::size_t>(count)};
  for (std::size_t group = 0; group < sequence.tables.size(); ++group) {
    auto& table = sequence.tables[group];
    while (static_cast<std::int32_t>(table.size()) * kBlockSize < end) {
      PM_CHECK(!free_blocks_.empty(), "the test engine has too few blocks");
      table.push_back(free_blocks_.back());
      free_blocks_.pop_back();
    }
    // The first position that the chunk's first token still sees.
    const std::int32_t window = spec().kv_specs[group].window;
    const std::int32_t first_seen =
        window > 0 ? std::max(0, sequence.num_computed - window + 1) : 0;
    for (std::int32_t block = 0; block < first_seen / kBlockSize; ++block) {
      if (table[block] == kNullBlock) continue;
      free_blocks_.push_back(table[block]);
      table[block] = kNullBlock;
    }
    step.block_tables[group] = table;
  }
  if (sample) step.sample_seqs = {&sequence.id, 1};
  plan.sequences.push_back(step);
  plan.num_tokens += count;
  sequence.num_computed = end;
}

StepResult TestEngine::execute(StepPlan& plan) {
  plan.step_id = next_step_++;
  runner_->submit(plan);
  StepResult result = std::move(runner_->wait());
  plan.clear();
  return result;
}

void TestEngine::finish(std::vector<Sequence>& sequences) {
  StepPlan plan;
  for (Sequence& sequence : sequences) {
    plan.drops.push_back(sequence.id);
    for (auto& table : sequence.tables) {
      for (BlockId block : table) {
        if (block != kNullBlock) free_blocks_.push_back(block);
      }
    }
  }
  execute(plan);
}

void TestEngine::run(std::span<const std::vector<TokenId>> sequences,
                     std::span<const std::int32_t> prompt_lens,
                     std::int32_t chunk,
                     const Observer& observer) {
  StepPlan plan;
  std::vector<Sequence> running;
  running.reserve(sequences.size());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    running.push_back(start(sequences[i], prompt_lens[i], plan, 0));
  }
  const SeqId first_id = running.front().id;
  runner_->set_logits_observer(
      [&](SeqId seq, std::int32_t predicted, std::span<const float> logits) {
        observer(seq - first_id, predicted - 1, logits);
      });
  while (true) {
    for (Sequence& sequence : running) {
      const auto size = static_cast<std::int32_t>(sequence.tokens.size());
      if (sequence.num_computed == size) continue;
      const std::int32_t left = sequence.prompt_len - sequence.num_computed;
      append_chunk(sequence, left > 0 ? std::min(left, chunk) : 1, false, plan);
    }
    if (plan.sequences.empty()) break;
    execute(plan);
  }
  runner_->set_logits_observer(nullptr);
  finish(running);
}

void TestEngine::run(std::span<const std::vector<TokenId>> prompts,
                     std::int32_t chunk,
                     const Observer& observer) {
  std::vector<std::int32_t> lens;
  for (const auto& prompt : prompts) lens.push_back(static_cast<std::int32_t>(prompt.size()));
  run(prompts, lens, chunk, observer);
}

std::vector<std::vector<SampledToken>> TestEngine::generate(
    std::span<const std::vector<TokenId>> prompts, std::int32_t count, std::int32_t num_top) {
  StepPlan plan;
  std::vector<Sequence> running;
  running.reserve(prompts.size());
  for (const auto& prompt : prompts) {
    // Room for what follows: the plan's spans must not move.
    std::vector<TokenId> tokens;
    tokens.reserve(prompt.size() + count);
    tokens = prompt;
    running.push_back(
        start(std::move(tokens), static_cast<std::int32_t>(prompt.size()), plan, num_top));
  }
  std::vector<std::vector<SampledToken>> outputs(prompts.size());
  for (std::int32_t step = 0; step < count; ++step) {
    for (Sequence& sequence : running) {
      append_chunk(sequence,
                   static_cast<std::int32_t>(sequence.tokens.size()) - sequence.num_computed,
                   true,
                   plan);
    }
    StepResult result = execute(plan);
    for (std::size_t i = 0; i < running.size(); ++i) {
      PM_CHECK(result.sequences[i].failure == StepFailure::kNone &&
                   result.sequences[i].samples.size() == 1,
               "no sample");
      outputs[i].push_back(std::move(result.sequences[i].samples.front()));
      running[i].tokens.push_back(outputs[i].back().token);
    }
  }
  finish(running);
  return outputs;
}

}  // namespace pagemill
