// What a plan says is what the model gets, and what the model answers is what the result says; on
// a model that records.
#include "runner/model_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace pagemill {
namespace {

constexpr std::int32_t kBlockSize = 16, kVocabSize = 40, kNumBlocks = 32, kMaxLogitsRows = 3;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<KvSpec> two_groups() {
  KvSpec full{.layers = {0}, .num_kv_heads = 1, .head_size = 8, .bytes_per_token = 32};
  KvSpec windowed = full;
  windowed.kind = KvKind::kWindowed;
  windowed.layers = {1};
  windowed.window = 20;
  return {full, windowed};
}

// A row's hidden state is its token, and its logits prefer that token + 1 by 10; where a sequence
// passes by a token of `logits`, that row has those logits.
class RecordingModel final : public Model {
 public:
  struct Group {
    std::vector<std::int64_t> slot_mapping;
    std::vector<AttentionSequence> sequences;
    std::vector<std::vector<BlockId>> tables;
  };
  struct Batch {
    std::vector<TokenId> token_ids;
    std::vector<std::int32_t> positions, prompt_lens, logits_rows;
    std::vector<Group> groups;
  };

  RecordingModel() {
    spec_.hidden_size = 1;
    spec_.vocab_size = kVocabSize;
    spec_.kv_specs = two_groups();
  }
  const ModelSpec& spec() const override { return spec_; }

  void forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) override {
    Batch& seen = batches.emplace_back();
    seen.token_ids.assign(batch.token_ids.begin(), batch.token_ids.end());
    seen.positions.assign(batch.positions.begin(), batch.positions.end());
    seen.prompt_lens.assign(batch.prompt_lens.begin(), batch.prompt_lens.end());
    seen.logits_rows.assign(batch.logits_rows.begin(), batch.logits_rows.end());
    for (const KvGroupBatch& group : batch.groups) {
      Group& copy = seen.groups.emplace_back();
      copy.slot_mapping.assign(group.slot_mapping.begin(), group.slot_mapping.end());
      copy.sequences.assign(group.sequences.begin(), group.sequences.end());
      for (const AttentionSequence& sequence : group.sequences) {
        const std::int32_t num_blocks = (sequence.context_len + kBlockSize - 1) / kBlockSize;
        copy.tables.emplace_back(sequence.block_table, sequence.block_table + num_blocks);
      }
    }
    if (before_forward) before_forward(kv);
    for (std::size_t i = 0; i < batch.logits_rows.size(); ++i) {
      hidden[i] = static_cast<float>(batch.token_ids[batch.logits_rows[i]]);
    }
  }

  void logits(const float* hidden, std::int64_t num_rows, float* out) override {
    slices.push_back(num_rows);
    for (std::int64_t row = 0; row < num_rows; ++row) {
      const auto token = static_cast<TokenId>(hidden[row]);
      std::span<float> values(out + row * kVocabSize, kVocabSize);
      std::fill(values.begin(), values.end(), 0.0f);
      values[(token + 1) % kVocabSize] = 10.0f;
      for (const auto& [id, value] : logits_after[token]) values[id] = value;
    }
  }

  std::map<TokenId, std::map<TokenId, float>> logits_after;
  std::function<void(KvStorage&)> before_forward;
  std::vector<Batch> batches;
  std::vector<std::int64_t> slices;

 private:
  ModelSpec spec_;
};

class ModelRunnerTest : public testing::Test {
 protected:
  // A sequence as a test writes it down: its tokens and its tables live as long as the test.
  struct Sequence {
    std::vector<TokenId> tokens;
    std::vector<BlockId> full, windowed;
    std::vector<SeqId> samplers;
  };

  Sequence& sequence(SeqId id,
                     std::vector<TokenId> prompt,
                     const SamplingParams& params = greedy(),
                     std::vector<BlockId> full = {1, 2, 3},
                     std::vector<BlockId> windowed = {4, 5, 6}) {
    Sequence& made = sequences_[id];
    made = {std::move(prompt), std::move(full), std::move(windowed), {id}};
    SequenceCreate create;
    create.seq = id;
    create.params = std::make_shared<SamplingParams>(params);
    create.prompt_token_ids = made.tokens;
    plan_.creates.push_back(std::move(create));
    return made;
  }

  // Tokens [begin, end) of the sequence.
  SequenceStep& chunk(SeqId id, std::int32_t begin, std::int32_t end, bool sample) {
    const Sequence& of = sequences_.at(id);
    SequenceStep& step = plan_.sequences.emplace_back();
    step.seq = id;
    step.num_computed_tokens = begin;
    step.token_ids = std::span(of.tokens).subspan(begin, end - begin);
    const auto num_blocks = static_cast<std::size_t>((end + kBlockSize - 1) / kBlockSize);
    step.block_tables[0] = std::span(of.full).first(num_blocks);
    step.block_tables[1] = std::span(of.windowed).first(num_blocks);
    if (sample) step.sample_seqs = of.samplers;
    plan_.num_tokens += end - begin;
    return step;
  }

  StepResult& run() {
    plan_.step_id = ++step_id_;
    runner_.submit(plan_);
    plan_.clear();
    EXPECT_EQ(runner_.wait().step_id, step_id_);
    return runner_.wait();
  }
  const RecordingModel::Batch& batch() const { return model_.batches.back(); }

  static SamplingParams greedy() {
    SamplingParams params;
    params.temperature = 0;
    return params;
  }
  static SamplingParams with_prompt_logprobs(SamplingParams params = greedy()) {
    params.prompt_logprobs = 1;  // the chunk says how many
    return params;
  }

  RecordingModel model_;
  ThreadPool pool_{2};
  ModelRunner runner_{model_,
                      KvStorage::create(two_groups(), DType::kF32, kBlockSize, kNumBlocks).value(),
                      pool_,
                      Isa::kScalar,
                      RunnerOptions{.block_size = kBlockSize,
                                    .max_num_batched_tokens = 256,
                                    .max_num_seqs = 16,
                                    .max_logits_rows = kMaxLogitsRows,
                                    .eos_token_ids = {39}}};
  StepPlan plan_;
  std::uint64_t step_id_ = 0;
  std::map<SeqId, Sequence> sequences_;
};

std::vector<TokenId> counting(std::int32_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(count);
  for (std::int32_t i = 0; i < count; ++i) tokens[i] = (first + i) % kVocabSize;
  return tokens;
}

TEST_F(ModelRunnerTest, ThePlanIsTheBatch) {
  // A chunk in the middle of a prompt, across a block's end, its first block out of the window; and
  // a whole prompt.
  sequence(1, counting(40), greedy(), {9, 7, 8}, {kNullBlock, 3, 2});
  sequence(2, counting(3, 20), greedy(), {5}, {6});
  chunk(1, 30, 36, false);
  chunk(2, 0, 3, true);
  const StepResult& result = run();

  EXPECT_EQ(batch().token_ids, (std::vector<TokenId>{30, 31, 32, 33, 34, 35, 20, 21, 22}));
  EXPECT_EQ(batch().positions, (std::vector<std::int32_t>{30, 31, 32, 33, 34, 35, 0, 1, 2}));
  EXPECT_EQ(batch().prompt_lens, (std::vector<std::int32_t>{40, 40, 40, 40, 40, 40, 3, 3, 3}));
  EXPECT_EQ(batch().logits_rows, std::vector<std::int32_t>{8}) << "of what is sampled alone";
  ASSERT_EQ(batch().groups.size(), 2u);
  const auto& full = batch().groups[0];
  const auto& windowed = batch().groups[1];
  EXPECT_EQ(full.slot_mapping,
            (std::vector<std::int64_t>{
                7 * 16 + 14, 7 * 16 + 15, 8 * 16, 8 * 16 + 1, 8 * 16 + 2, 8 * 16 + 3, 80, 81, 82}));
  EXPECT_EQ(windowed.slot_mapping,
            (std::vector<std::int64_t>{
                3 * 16 + 14, 3 * 16 + 15, 2 * 16, 2 * 16 + 1, 2 * 16 + 2, 2 * 16 + 3, 96, 97, 98}));
  EXPECT_EQ(full.tables, (std::vector<std::vector<BlockId>>{{9, 7, 8}, {5}}));
  EXPECT_EQ(windowed.tables, (std::vector<std::vector<BlockId>>{{kNullBlock, 3, 2}, {6}}));
  for (const auto& group : batch().groups) {
    EXPECT_EQ(group.sequences[0].query_start, 0);
    EXPECT_EQ(group.sequences[0].query_len, 6);
    EXPECT_EQ(group.sequences[0].context_len, 36);
    EXPECT_EQ(group.sequences[1].query_start, 6);
    EXPECT_EQ(group.sequences[1].query_len, 3);
    EXPECT_EQ(group.sequences[1].context_len, 3);
  }
  ASSERT_EQ(result.sequences.size(), 2u);
  EXPECT_EQ(result.sequences[0].seq, 1u);
  EXPECT_TRUE(result.sequences[0].samples.empty());
  EXPECT_EQ(result.sequences[1].seq, 2u);
  ASSERT_EQ(result.sequences[1].samples.size(), 1u);
  EXPECT_EQ(result.sequences[1].samples[0].token, 23);
}

TEST_F(ModelRunnerTest, ADecodedTokenFollowsItsPrompt) {
  Sequence& of = sequence(1, counting(16));
  chunk(1, 0, 16, true);
  const TokenId sampled = run().sequences[0].samples[0].token;
  EXPECT_EQ(sampled, 16);
  of.tokens.push_back(sampled);
  chunk(1, 16, 17, true);
  EXPECT_EQ(run().sequences[0].samples[0].token, 17);
  EXPECT_EQ(batch().token_ids, std::vector<TokenId>{16});
  EXPECT_EQ(batch().positions, std::vector<std::int32_t>{16});
  EXPECT_EQ(batch().prompt_lens, std::vector<std::int32_t>{16});
  EXPECT_EQ(batch().groups[0].slot_mapping, std::vector<std::int64_t>{2 * 16});
  EXPECT_EQ(batch().groups[0].sequences[0].context_len, 17);

  // A token that a step in flight samples: the runner knows it.
  of.tokens.push_back(kPendingToken);
  chunk(1, 17, 18, true);
  EXPECT_EQ(run().sequences[0].samples[0].token, 18);
  EXPECT_EQ(batch().token_ids, std::vector<TokenId>{17});

  plan_.drops.push_back(1);
  EXPECT_TRUE(run().sequences.empty());
  EXPECT_EQ(model_.batches.size(), 3u) << "a plan without sequences runs no model";
}

// Those of tokens begin + 1 .. of the prompt, however the rows fall into slices.
TEST_F(ModelRunnerTest, PromptLogprobsAreOfThePromptsNextTokens) {
  sequence(1, {3, 4, 9, 10, 20, 21}, with_prompt_logprobs());
  sequence(2, {30, 31}, with_prompt_logprobs(), {7}, {8});
  chunk(1, 1, 5, false).num_prompt_logprobs = 2;
  chunk(2, 0, 2, true).num_prompt_logprobs = 0;
  const StepResult& result = run();
  EXPECT_EQ(batch().logits_rows, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(model_.slices, (std::vector<std::int64_t>{kMaxLogitsRows, kMaxLogitsRows}));
  const double lse = std::log(std::exp(10.0) + kVocabSize - 1);
  const auto& logprobs = result.sequences[0].prompt_logprobs;
  ASSERT_EQ(logprobs.size(), 4u);
  const TokenId expected[] = {9, 10, 20, 21};
  const bool is_likely[] = {false, true, false, true};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(logprobs[i].chosen.token, expected[i]);
    EXPECT_NEAR(logprobs[i].chosen.logprob, (is_likely[i] ? 10 : 0) - lse, 1e-4);
    EXPECT_EQ(logprobs[i].chosen.rank, is_likely[i] ? 1 : 2);
    ASSERT_EQ(logprobs[i].top.size(), 2u);
    EXPECT_NEAR(logprobs[i].top[0].logprob, 10 - lse, 1e-4);
  }
  // The last row of a prompt predicts none of it: it is sampled from.
  ASSERT_EQ(result.sequences[1].prompt_logprobs.size(), 1u);
  EXPECT_EQ(result.sequences[1].prompt_logprobs[0].chosen.token, 31);
  EXPECT_TRUE(result.sequences[1].prompt_logprobs[0].top.empty());
  EXPECT_EQ(result.sequences[1].samples[0].token, 32);
}

TEST_F(ModelRunnerTest, BlocksAreCopiedInOrderBeforeTheForward) {
  std::vector<std::byte> found;
  const auto fill = [](KvStorage& kv, BlockId block, int value) {
    const std::vector<std::byte> bytes(kv.block_bytes(1), std::byte(value));
    kv.write_block(1, block, bytes);
  };
  model_.before_forward = [&](KvStorage& kv) {
    for (BlockId block = 10; block < 13; ++block) fill(kv, block, block);
  };
  sequence(1, counting(20));
  chunk(1, 0, 4, false);
  run();
  model_.before_forward = [&](KvStorage& kv) {
    for (BlockId block = 10; block < 14; ++block) {
      std::vector<std::byte> bytes(kv.block_bytes(1));
      kv.read_block(1, block, bytes);
      EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), bytes[0])) << "half a copy";
      found.push_back(bytes[0]);
    }
  };
  plan_.copies = {{1, 10, 13}, {1, 11, 10}, {1, 13, 12}, {0, 11, 13}};
  chunk(1, 4, 8, false);
  run();
  EXPECT_EQ(found,
            (std::vector<std::byte>{std::byte(11), std::byte(11), std::byte(10), std::byte(10)}));
}

// Siblings draw from their parent's row with the random numbers that they have alone.
TEST_F(ModelRunnerTest, ForksSampleFromTheirParentsRow) {
  SamplingParams params;
  params.temperature = 100;
  Sequence& of = sequence(1, counting(5), params);
  of.samplers = {1, 2, 3};
  plan_.creates[0].seed = 77;
  plan_.forks = {{1, 2, 1, 77}, {1, 3, 2, 77}};
  chunk(1, 0, 5, true);
  std::vector<TokenId> together;
  for (const SampledToken& sample : run().sequences[0].samples) together.push_back(sample.token);
  EXPECT_EQ(batch().logits_rows, std::vector<std::int32_t>{4});
  plan_.drops = {1, 2, 3};
  run();

  std::vector<TokenId> alone;
  for (std::int32_t index = 0; index < 3; ++index) {
    sequence(1, counting(5), params);
    plan_.creates[0].seed = 77;
    plan_.creates[0].sequence_index = index;
    chunk(1, 0, 5, true);
    plan_.drops = {1};
    alone.push_back(run().sequences[0].samples[0].token);
  }
  EXPECT_EQ(together, alone);
  EXPECT_NE(together, std::vector<TokenId>(3, together[0]));
}

// Whatever hides the value from the draw: a mask, the truncation, another token that is asked for.
TEST_F(ModelRunnerTest, ARowThatIsNotFiniteEndsItsRequestAlone) {
  SamplingParams allowed = greedy();
  allowed.allowed_token_ids = {5, 6};
  SamplingParams random;
  random.logprobs = 3;
  SamplingParams beams = greedy();
  beams.use_beam_search = true;
  for (const SamplingParams& params : {greedy(), allowed, random, beams}) {
    for (const float bad : {kNan, std::numeric_limits<float>::infinity()}) {
      model_.logits_after = {{30, {{7, bad}}}};
      sequence(1, counting(4));
      sequence(2, {3, 30}, params, {7}, {8});
      sequence(3, counting(4, 8), params, {9}, {10});
      chunk(1, 0, 4, true);
      chunk(2, 0, 2, true).beam_width = params.use_beam_search ? 1 : 0;
      chunk(3, 0, 4, true).beam_width = params.use_beam_search ? 1 : 0;
      const StepResult& result = run();
      EXPECT_EQ(result.sequences[0].failure, StepFailure::kNone);
      EXPECT_EQ(result.sequences[0].samples[0].token, 4);
      EXPECT_EQ(result.sequences[1].failure, StepFailure::kNonFinite);
      EXPECT_EQ(result.sequences[2].failure, StepFailure::kNone);
      plan_.drops = {1, 2, 3};
      run();
    }
  }
}

TEST_F(ModelRunnerTest, APromptsRowThatIsNotFiniteEndsItsRequestAlone) {
  model_.logits_after = {{30, {{7, kNan}}}};
  sequence(1, {1, 30, 2, 3, 4, 5}, with_prompt_logprobs());
  sequence(2, {1, 2, 3}, with_prompt_logprobs(), {7}, {8});
  chunk(1, 0, 6, true).num_prompt_logprobs = 1;
  chunk(2, 0, 3, true).num_prompt_logprobs = 1;
  const StepResult& result = run();
  EXPECT_EQ(result.sequences[0].failure, StepFailure::kNonFinite);
  EXPECT_EQ(result.sequences[1].failure, StepFailure::kNone);
  for (const PositionLogprobs& logprobs : result.sequences[1].prompt_logprobs) {
    EXPECT_TRUE(std::isfinite(logprobs.chosen.logprob));
  }
}

TEST_F(ModelRunnerTest, MasksThatLeaveNoTokenAreNotTheModelsFault) {
  SamplingParams params = greedy();
  params.allowed_token_ids = {39};
  params.min_tokens = 1;
  sequence(1, counting(4), params);
  chunk(1, 0, 4, true);
  EXPECT_EQ(run().sequences[0].failure, StepFailure::kNoToken);
}

// Nothing of a step's result is left in the next one's, whose memory it is.
TEST_F(ModelRunnerTest, AResultHoldsOneStep) {
  SamplingParams allowed = greedy();
  allowed.allowed_token_ids = {39};
  allowed.min_tokens = 1;
  sequence(1, counting(4), with_prompt_logprobs(allowed));
  sequence(2, counting(4), greedy(), {7}, {8});
  chunk(1, 0, 4, true).num_prompt_logprobs = 1;
  chunk(2, 0, 4, true).beam_width = 2;
  const StepResult& first = run();
  EXPECT_NE(first.sequences[0].failure, StepFailure::kNone);
  EXPECT_EQ(first.sequences[0].prompt_logprobs.size(), 3u);
  EXPECT_EQ(first.sequences[1].beam.candidates.size(), 2u);

  sequence(3, counting(6), greedy(), {9}, {10});
  chunk(3, 0, 6, true);
  const StepResult& second = run();
  ASSERT_EQ(second.sequences.size(), 1u);
  EXPECT_EQ(second.sequences[0].failure, StepFailure::kNone);
  EXPECT_TRUE(second.sequences[0].prompt_logprobs.empty());
  ASSERT_EQ(second.sequences[0].samples.size(), 1u);
  EXPECT_EQ(second.sequences[0].samples[0].token, 6);
  chunk(3, 0, 3, false);
  chunk(3, 3, 5, false);
  const StepResult& third = run();
  EXPECT_TRUE(third.sequences[0].samples.empty());
  EXPECT_TRUE(third.sequences[1].beam.candidates.empty());
}

}  // namespace
}  // namespace pagemill
