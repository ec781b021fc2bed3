#include "engine/output_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pagemill {
namespace {

std::shared_ptr<const Tokenizer> tiny_tokenizer() {
  auto tokenizer = Tokenizer::from_directory(PM_TINY_MODELS "/chat");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

SequenceEvent event(TokenId token,
                    FinishReason reason = FinishReason::kNone,
                    std::int32_t index = 0) {
  SequenceEvent result{.request = 1,
                       .sequence_index = index,
                       .seq = static_cast<SeqId>(1 + index),
                       .sampled = SampledToken{token, {}},
                       .finish_reason = reason,
                       .stop_token = {},
                       .beam_score = {},
                       .request_finished = false};
  result.sampled->logprobs.chosen = {token, -0.5f, 1, {}};
  return result;
}

// One request with id 1, all that it publishes, and the sequences that it asks the scheduler to
// end.
class OutputProcessorTest : public testing::Test {
 protected:
  void begin(const SamplingParams& params,
             std::shared_ptr<const Tokenizer> tokenizer,
             bool hide_logprobs = false) {
    processor_ = std::make_unique<OutputProcessor>(
        std::move(tokenizer), [this](RequestId, std::int32_t index) { ended_.push_back(index); });
    OutputBatch batch;
    Request request;
    request.id = 1;
    request.prompt_token_ids = {10, 11, 12};
    request.params = params;
    request.arrival_time = 1;
    batch.started.push_back({request,
                             [this](const RequestDelta& delta) {
                               deltas_.push_back(delta);
                               num_finished_ += delta.finished ? 1 : 0;
                             },
                             hide_logprobs});
    batch.admitted.push_back({1, 2});
    batch.plan_time = 2;
    batch.commit_time = 2;
    processor_->process(std::move(batch));
  }
  void step(std::vector<SequenceEvent> events) {
    OutputBatch batch;
    batch.events = std::move(events);
    batch.commit_time = ++now_;
    processor_->process(std::move(batch));
  }
  // Everything of one sequence, put together.
  CompletionDelta whole(std::int32_t index = 0) const {
    CompletionDelta all;
    for (const RequestDelta& delta : deltas_) {
      for (const CompletionDelta& part : delta.completions) {
        if (part.index != index) continue;
        EXPECT_EQ(all.finish_reason, FinishReason::kNone) << "something after the end";
        all.text += part.text;
        all.token_ids.insert(all.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
        all.logprobs.insert(all.logprobs.end(), part.logprobs.begin(), part.logprobs.end());
        all.finish_reason = part.finish_reason;
        if (part.stop_string) all.stop_string = part.stop_string;
        if (part.stop_token) all.stop_token = part.stop_token;
      }
    }
    return all;
  }
  std::vector<TokenId> encode(const Tokenizer& tokenizer, const std::string& text) {
    auto ids = tokenizer.encode(text, false);
    EXPECT_TRUE(ids.ok());
    return *ids;
  }

  std::unique_ptr<OutputProcessor> processor_;
  std::vector<RequestDelta> deltas_;
  std::vector<std::int32_t> ended_;
  int num_finished_ = 0;
  double now_ = 10;
};

TEST_F(OutputProcessorTest, WithoutATokenizerThereAreTokensAlone) {
  begin({}, nullptr);
  step({event(5)});
  step({event(6, FinishReason::kLength)});
  ASSERT_EQ(deltas_.size(), 2u);
  EXPECT_EQ(whole().token_ids, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(whole().text, "");
  EXPECT_EQ(whole().finish_reason, FinishReason::kLength);
  const RequestDelta& last = deltas_.back();
  EXPECT_TRUE(last.finished);
  EXPECT_EQ(last.usage.prompt_tokens, 3);
  EXPECT_EQ(last.usage.completion_tokens, 2);
  EXPECT_EQ(last.usage.cached_tokens, 2);
  EXPECT_EQ(last.times.arrival, 1);
  EXPECT_EQ(last.times.first_scheduled, 2);
  EXPECT_EQ(last.times.first_token, 11);
  EXPECT_EQ(last.times.finished, 12);
  EXPECT_EQ(num_finished_, 1);
}

TEST_F(OutputProcessorTest, NothingOfAnUnknownOrFinishedRequest) {
  begin({}, nullptr);
  step({event(5, FinishReason::kLength)});
  step({event(6)});
  OutputBatch batch;
  batch.ended.push_back({1, {}});
  batch.ended.push_back({99, {}});
  processor_->process(std::move(batch));
  EXPECT_EQ(deltas_.size(), 1u);
  EXPECT_EQ(num_finished_, 1);
}

TEST_F(OutputProcessorTest, AStopStringAcrossTokensEndsTheTextAndTheCount) {
  const auto tokenizer = tiny_tokenizer();
  const std::vector<TokenId> ids = encode(*tokenizer, "one, two; three");
  const std::string stop = "wo; t";
  for (bool include : {false, true}) {
    deltas_.clear(), ended_.clear();
    SamplingParams params;
    params.stop = {stop};
    params.include_stop_str_in_output = include;
    begin(params, tokenizer);
    std::size_t expected = 0;  // tokens up to the one that completes the stop string
    for (std::string text; text.find(stop) == std::string::npos;)
      text += tokenizer->token_bytes(ids[expected++]);
    ASSERT_LT(expected, ids.size());
    for (TokenId id : ids) step({event(id)});  // the scheduler goes on for a while
    EXPECT_EQ(whole().text, include ? "one, two; t" : "one, t");
    EXPECT_EQ(whole().finish_reason, FinishReason::kStop);
    EXPECT_EQ(whole().stop_string, stop);
    EXPECT_EQ(
        whole().token_ids,
        std::vector<TokenId>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(expected)));
    EXPECT_EQ(deltas_.back().usage.completion_tokens, static_cast<std::int32_t>(expected));
    EXPECT_TRUE(deltas_.back().finished);
    EXPECT_EQ(ended_, std::vector<std::int32_t>{0});
  }
}

TEST_F(OutputProcessorTest, AStopStringInTheLastTokenAsksTheSchedulerForNothing) {
  const auto tokenizer = tiny_tokenizer();
  SamplingParams params;
  params.stop = {"x"};
  begin(params, tokenizer);
  step({event(encode(*tokenizer, "x").front(), FinishReason::kLength)});
  EXPECT_EQ(whole().finish_reason, FinishReason::kStop);
  EXPECT_EQ(whole().stop_string, "x");
  EXPECT_TRUE(ended_.empty());
}

TEST_F(OutputProcessorTest, WhatWasWithheldComesAtTheEnd) {
  const auto tokenizer = tiny_tokenizer();
  SamplingParams params;
  params.stop = {"zebra"};
  begin(params, tokenizer);
  const std::vector<TokenId> ids = encode(*tokenizer, "a zeb");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    step({event(ids[i], i + 1 == ids.size() ? FinishReason::kLength : FinishReason::kNone)});
  }
  EXPECT_EQ(whole().text, "a zeb");
  EXPECT_EQ(whole().finish_reason, FinishReason::kLength);
}

TEST_F(OutputProcessorTest, TheStopTokenIsCountedButNotShown) {
  const auto tokenizer = tiny_tokenizer();
  const TokenId letter = encode(*tokenizer, "q").front();
  for (bool include : {false, true}) {
    deltas_.clear();
    SamplingParams params;
    params.stop_token_ids = {letter};
    params.include_stop_str_in_output = include;
    begin(params, tokenizer);
    SequenceEvent end = event(letter, FinishReason::kStop);
    end.stop_token = letter;
    step({event(encode(*tokenizer, "p").front()), end});
    EXPECT_EQ(whole().text, include ? "pq" : "p");
    EXPECT_EQ(whole().stop_token, letter);
    EXPECT_EQ(deltas_.back().usage.completion_tokens, 2);
  }
}

TEST_F(OutputProcessorTest, HalfACharacterWaitsForTheOther) {
  const auto tokenizer = tiny_tokenizer();
  const std::vector<TokenId> ids = encode(*tokenizer, "é");
  ASSERT_EQ(ids.size(), 2u) << "the tiny vocabulary has bytes";
  begin({}, tokenizer);
  step({event(ids[0])});
  EXPECT_EQ(whole().text, "");
  step({event(ids[1], FinishReason::kLength)});
  EXPECT_EQ(whole().text, "é");
}

TEST_F(OutputProcessorTest, BestOfShowsTheBestLastAndFirst) {
  SamplingParams params;
  params.n = 2;
  params.best_of = 3;
  params.logprobs = 0;
  for (bool hide : {false, true}) {
    deltas_.clear();
    begin(params, nullptr, hide);
    const float logprobs[] = {-3, -1, -2};
    std::vector<SequenceEvent> events;
    for (std::int32_t i = 0; i < 3; ++i) {
      events.push_back(event(20 + i, FinishReason::kNone, i));
      events.back().sampled->logprobs.chosen.logprob = logprobs[i];
    }
    step(events);
    EXPECT_TRUE(deltas_.empty()) << "shown before all were known";
    for (SequenceEvent& e : events) e.finish_reason = FinishReason::kLength;
    step(events);
    ASSERT_EQ(deltas_.size(), 1u);
    ASSERT_EQ(deltas_[0].completions.size(), 2u);
    EXPECT_EQ(whole(0).token_ids, (std::vector<TokenId>{21, 21}));
    EXPECT_EQ(whole(1).token_ids, (std::vector<TokenId>{22, 22}));
    EXPECT_EQ(whole(0).logprobs.size(), hide ? 0u : 2u);
    EXPECT_EQ(deltas_[0].usage.completion_tokens, 6);  // all that were sampled
  }
}

// The n hypotheses of a wider search come whole, with their scores, and are not ranked again.
TEST_F(OutputProcessorTest, HypothesesComeInOrderAndUsageCountsThemAlone) {
  SamplingParams params;
  params.make_greedy();
  params.use_beam_search = true;
  params.n = 2;
  params.beam_width = 4;
  params.logprobs = 0;
  begin(params, nullptr);
  std::vector<SequenceEvent> events = {event(5, FinishReason::kNone, 0),
                                       event(6, FinishReason::kStop, 0),
                                       event(7, FinishReason::kLength, 1)};
  events[0].sampled->logprobs.chosen.logprob = -9;  // the first all the same
  events[1].beam_score = -0.25f;
  events[2].beam_score = -0.5f;
  step(events);
  ASSERT_EQ(deltas_.size(), 1u);
  EXPECT_TRUE(deltas_[0].finished);
  ASSERT_EQ(deltas_[0].completions.size(), 2u);
  EXPECT_EQ(whole(0).token_ids, (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(deltas_[0].completions[0].beam_score, -0.25f);
  EXPECT_EQ(whole(1).token_ids, (std::vector<TokenId>{7}));
  EXPECT_EQ(deltas_[0].completions[1].beam_score, -0.5f);
  EXPECT_EQ(deltas_[0].usage.completion_tokens, 3);
}

// Masks may leave fewer sequences than n.
TEST_F(OutputProcessorTest, AHypothesisThatIsMissingIsEmpty) {
  SamplingParams params;
  params.make_greedy();
  params.use_beam_search = true;
  params.n = 2;
  begin(params, nullptr);
  std::vector<SequenceEvent> events = {event(5, FinishReason::kLength, 0),
                                       event(0, FinishReason::kLength, 1)};
  events[1].sampled.reset();
  step(events);
  EXPECT_TRUE(deltas_.back().finished);
  EXPECT_TRUE(whole(1).token_ids.empty());
  EXPECT_EQ(whole(1).finish_reason, FinishReason::kLength);
}

TEST_F(OutputProcessorTest, AbortEndsEverySequenceThatRuns) {
  SamplingParams params;
  params.n = 2;
  begin(params, nullptr);
  step({event(5, FinishReason::kLength, 0), event(6, FinishReason::kNone, 1)});
  OutputBatch batch;
  batch.ended.push_back({1, {}});
  processor_->process(std::move(batch));
  EXPECT_EQ(whole(0).finish_reason, FinishReason::kLength);
  EXPECT_EQ(whole(1).finish_reason, FinishReason::kAbort);
  EXPECT_TRUE(deltas_.back().finished);
  EXPECT_FALSE(deltas_.back().error.has_value());
}

TEST_F(OutputProcessorTest, AnErrorEndsTheRequest) {
  begin({}, nullptr);
  OutputBatch batch;
  batch.ended.push_back({1, Error{ErrorCode::kResourceExhausted, "no room", {}}});
  processor_->process(std::move(batch));
  ASSERT_EQ(deltas_.size(), 1u);
  EXPECT_TRUE(deltas_[0].finished);
  ASSERT_TRUE(deltas_[0].error.has_value());
  EXPECT_EQ(deltas_[0].error->code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(whole().finish_reason, FinishReason::kError);
}

TEST_F(OutputProcessorTest, AFailureSaysWhy) {
  const struct {
    StepFailure failure;
    ErrorCode code;
    const char* message;
  } cases[] = {{StepFailure::kNonFinite, ErrorCode::kInternal, "not finite"},
               {StepFailure::kNoToken, ErrorCode::kInvalidArgument, "leave no token"},
               {StepFailure::kStep, ErrorCode::kInternal, "the step"}};
  for (const auto& c : cases) {
    deltas_.clear();
    begin({}, nullptr);
    SequenceEvent failed = event(0, FinishReason::kError);
    failed.sampled.reset();
    failed.failure = c.failure;
    step({event(5)});
    step({failed});
    EXPECT_EQ(whole().token_ids, std::vector<TokenId>{5});
    ASSERT_TRUE(deltas_.back().error.has_value());
    EXPECT_EQ(deltas_.back().error->code, c.code);
    EXPECT_THAT(deltas_.back().error->message, testing::HasSubstr(c.message));
  }
}

TEST_F(OutputProcessorTest, FailAllEndsWhatIsLeft) {
  begin({}, nullptr);
  step({event(5)});
  processor_->fail_all({ErrorCode::kUnavailable, "stopped", {}}, 9.0);
  ASSERT_EQ(deltas_.size(), 2u);
  EXPECT_TRUE(deltas_[1].finished);
  EXPECT_EQ(deltas_[1].error->code, ErrorCode::kUnavailable);
  processor_->fail_all({ErrorCode::kUnavailable, "stopped", {}}, 9.0);
  EXPECT_EQ(deltas_.size(), 2u);
}

TEST_F(OutputProcessorTest, PromptLogprobsComeWholeWhateverTheChunks) {
  const auto tokenizer = tiny_tokenizer();
  SamplingParams params;
  params.prompt_logprobs = 1;
  begin(params, tokenizer);
  for (std::int32_t position : {1, 2}) {
    OutputBatch batch;
    PositionLogprobs entry;
    entry.chosen = {10 + position, -1.0f, 3, {}};
    entry.top = {{7, -0.1f, 1, {}}};
    batch.prompt_logprobs.push_back({1, position, {entry}});
    batch.commit_time = ++now_;
    processor_->process(std::move(batch));
    EXPECT_EQ(deltas_.size(), position == 2 ? 1u : 0u);
  }
  step({event(5, FinishReason::kLength)});
  const std::vector<PositionLogprobs>& logprobs = deltas_[0].prompt_logprobs;
  ASSERT_EQ(logprobs.size(), 3u);
  EXPECT_EQ(logprobs[0].chosen.token, 10);
  EXPECT_EQ(logprobs[0].chosen.rank, 0);
  EXPECT_TRUE(logprobs[0].top.empty());
  EXPECT_EQ(logprobs[2].chosen.token, 12);
  EXPECT_EQ(logprobs[2].chosen.text, tokenizer->token_bytes(12));
  EXPECT_EQ(logprobs[1].top[0].text, tokenizer->token_bytes(7));
  EXPECT_TRUE(deltas_[1].prompt_logprobs.empty());
}

}  // namespace
}  // namespace pagemill
