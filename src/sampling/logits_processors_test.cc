#include "sampling/logits_processors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pagemill {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

SequenceState state_of(const SamplingParams& params,
                       std::vector<TokenId> prompt = {},
                       std::vector<TokenId> output = {}) {
  return SequenceState(std::make_shared<SamplingParams>(params), 1, 0, prompt, output);
}

std::vector<float> processed(const SequenceState& state,
                             const std::vector<float>& logits,
                             std::vector<TokenId> eos = {}) {
  std::vector<float> row;
  copy_allowed(state.params(), logits, row);
  apply_logits_processors(state, eos, row);
  return row;
}

TEST(LogitsProcessors, NothingAskedForChangesNothing) {
  const SequenceState state = state_of({}, {0, 1}, {2, 2});
  EXPECT_FALSE(has_logits_processors(state));
  EXPECT_EQ(processed(state, {1, -2, 3}, {0}), (std::vector<float>{1, -2, 3}));
}

TEST(LogitsProcessors, AllowedTokensAreAllThatIsLeft) {
  SamplingParams params;
  params.allowed_token_ids = {3, 1, 3};
  EXPECT_TRUE(has_logits_processors(state_of(params)));
  EXPECT_EQ(processed(state_of(params), {9, 1, 8, 3, 7}),
            (std::vector<float>{kMasked, 1, kMasked, 3, kMasked}));
}

TEST(LogitsProcessors, BadWordsLoseTheirLastTokenWhereTheRestWasSaid) {
  SamplingParams params;
  params.bad_words_token_ids = {{4}, {1, 2}, {0, 1, 3}};
  const std::vector<float> logits = {0, 0, 0, 0, 0};
  EXPECT_EQ(processed(state_of(params), logits), (std::vector<float>{0, 0, 0, 0, kMasked}));
  EXPECT_EQ(processed(state_of(params, {}, {1}), logits),
            (std::vector<float>{0, 0, kMasked, 0, kMasked}));
  EXPECT_EQ(processed(state_of(params, {}, {0, 1}), logits),
            (std::vector<float>{0, 0, kMasked, kMasked, kMasked}));
  EXPECT_EQ(processed(state_of(params, {}, {0, 1, 0}), logits),
            (std::vector<float>{0, 0, 0, 0, kMasked}));
  // The prompt is not part of what was said.
  EXPECT_EQ(processed(state_of(params, {1}, {}), logits),
            (std::vector<float>{0, 0, 0, 0, kMasked}));
}

TEST(LogitsProcessors, MinTokensMasksEveryStopTokenUntilThen) {
  SamplingParams params;
  params.min_tokens = 2;
  params.stop_token_ids = {3};
  const std::vector<float> before = {0, kMasked, 0, kMasked};
  EXPECT_EQ(processed(state_of(params), {0, 0, 0, 0}, {1}), before);
  EXPECT_EQ(processed(state_of(params, {}, {0}), {0, 0, 0, 0}, {1}), before);
  const SequenceState after = state_of(params, {}, {0, 0});
  EXPECT_FALSE(has_logits_processors(after));
  EXPECT_EQ(processed(after, {0, 0, 0, 0}, {1}), (std::vector<float>{0, 0, 0, 0}));
}

TEST(LogitsProcessors, LogitBiasIsAdded) {
  SamplingParams params;
  params.logit_bias = {{0, 2.5f}, {2, -100.0f}};
  EXPECT_EQ(processed(state_of(params), {1, 1, 1}), (std::vector<float>{3.5f, 1, -99}));
}

TEST(LogitsProcessors, RepetitionPenaltyCountsPromptAndOutputOnce) {
  SamplingParams params;
  params.repetition_penalty = 2;
  EXPECT_EQ(processed(state_of(params, {0, 1}, {1, 2, 2}), {4, -4, 0, 4}),
            (std::vector<float>{2, -8, 0, 4}));
}

TEST(LogitsProcessors, FrequencyAndPresencePenaltiesCountTheOutputAlone) {
  SamplingParams params;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = 1;
  EXPECT_EQ(processed(state_of(params, {0, 1}, {1, 2, 2, 2}), {4, 4, 4, 4}),
            (std::vector<float>{4, 2.5f, 1.5f, 4}));
}

TEST(LogitsProcessors, RepetitionComesBeforeTheSubtractedPenalties) {
  SamplingParams params;
  params.repetition_penalty = 2;
  params.frequency_penalty = 1;
  params.presence_penalty = 0.5f;
  EXPECT_EQ(processed(state_of(params, {}, {0, 0}), {8, 8}), (std::vector<float>{1.5f, 8}));
}

TEST(LogitsProcessors, BiasComesBeforeThePenalties) {
  SamplingParams params;
  params.logit_bias = {{0, 3}};
  params.repetition_penalty = 2;
  EXPECT_EQ(processed(state_of(params, {0}), {1}), (std::vector<float>{2}));
}

TEST(LogitsProcessors, AMaskedTokenStaysMasked) {
  SamplingParams params;
  params.allowed_token_ids = {1};
  params.logit_bias = {{0, 100}};
  params.repetition_penalty = 0.5f;
  params.frequency_penalty = -2;
  EXPECT_EQ(processed(state_of(params, {0}, {0}), {5, 1}), (std::vector<float>{kMasked, 1}));
}

TEST(SequenceState, AForkCountsOnItsOwn) {
  SamplingParams params;
  params.frequency_penalty = 1;
  SequenceState parent = state_of(params, {}, {0});
  SequenceState child = parent;
  child.become_fork(parent, 9, 1);
  parent.accept(0);
  child.accept(1);
  EXPECT_EQ(processed(parent, {0, 0}), (std::vector<float>{-2, 0}));
  EXPECT_EQ(processed(child, {0, 0}), (std::vector<float>{-1, -1}));
  EXPECT_EQ(child.seed(), 9u);
  EXPECT_EQ(child.sequence_index(), 1);
}

TEST(SequenceState, ResumingGivesTheStateThatGenerationGave) {
  SamplingParams params;
  params.frequency_penalty = 0.25f;
  params.repetition_penalty = 1.5f;
  SequenceState grown = state_of(params, {3, 0});
  for (TokenId token : {1, 1, 2}) grown.accept(token);
  const SequenceState resumed = state_of(params, {3, 0}, {1, 1, 2});
  const std::vector<float> logits = {1, 2, 3, 4, 5};
  EXPECT_EQ(processed(grown, logits), processed(resumed, logits));
  EXPECT_EQ(grown.prompt_len(), resumed.prompt_len());
}

}  // namespace
}  // namespace pagemill
