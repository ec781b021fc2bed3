#include "scheduler/beam_group.h"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>

namespace pagemill {
namespace {

constexpr TokenId kEnd = 0;

std::shared_ptr<SamplingParams> params_of(std::int32_t width) {
  auto params = std::make_shared<SamplingParams>();
  params->make_greedy();
  params->use_beam_search = true;
  params->beam_width = width;
  params->length_penalty = 0;
  return params;
}

BeamCandidates candidates(std::initializer_list<std::pair<TokenId, float>> list) {
  BeamCandidates result;
  for (const auto& [token, logprob] : list) {
    const auto rank = static_cast<std::int32_t>(result.candidates.size() + 1);
    result.candidates.push_back({token, token == kEnd, logprob, logprob, rank});
  }
  return result;
}

std::vector<TokenId> tokens_of(const BeamGroup& group, std::size_t hypothesis) {
  std::vector<TokenId> tokens;
  for (const SampledToken& token : group.tokens(group.hypotheses()[hypothesis])) {
    tokens.push_back(token.token);
  }
  return tokens;
}

void expect_beams(const BeamGroup& group, std::vector<BeamGroup::Beam> expected) {
  ASSERT_EQ(group.beams().size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(group.beams()[i].parent, expected[i].parent) << "beam " << i;
    EXPECT_EQ(group.beams()[i].token, expected[i].token) << "beam " << i;
    EXPECT_EQ(group.beams()[i].score, expected[i].score) << "beam " << i;
  }
}

TEST(BeamGroup, TheBestContinuationsOfAllBeamsGoOn) {
  BeamGroup group(params_of(2), 3);
  ASSERT_EQ(group.beams().size(), 1u);
  EXPECT_FALSE(group.ready());
  group.add_candidates(0, candidates({{5, -1}, {6, -2}, {7, -3}}));
  ASSERT_TRUE(group.ready());
  group.advance();
  expect_beams(group, {{0, 5, -1}, {0, 6, -2}});
  EXPECT_FALSE(group.ready());

  group.add_candidates(1, candidates({{8, -0.5f}, {9, -0.75f}}));
  EXPECT_FALSE(group.ready());
  group.add_candidates(0, candidates({{5, -2}, {4, -3}}));
  group.advance();
  expect_beams(group, {{1, 8, -2.5f}, {1, 9, -2.75f}});  // the second beam overtakes
  EXPECT_FALSE(group.done());

  group.add_candidates(0, candidates({{1, -3}, {2, -4}}));
  group.add_candidates(1, candidates({{3, -1}, {4, -9}}));
  group.advance();
  ASSERT_TRUE(group.done());  // max_tokens
  ASSERT_EQ(group.hypotheses().size(), 2u);
  EXPECT_EQ(tokens_of(group, 0), (std::vector<TokenId>{6, 9, 3}));
  EXPECT_EQ(group.hypotheses()[0].score, -3.75f);
  EXPECT_FALSE(group.hypotheses()[0].ends);
  EXPECT_EQ(tokens_of(group, 1), (std::vector<TokenId>{6, 8, 1}));
}

TEST(BeamGroup, TiesGoToTheBetterBeamAndKeepTheOrderOfItsCandidates) {
  BeamGroup group(params_of(2), 9);
  group.add_candidates(0, candidates({{5, -1}, {6, -1}, {7, -1}}));
  group.advance();
  expect_beams(group, {{0, 5, -1}, {0, 6, -1}});
  group.add_candidates(0, candidates({{3, -2}}));
  group.add_candidates(1, candidates({{2, -2}}));
  group.advance();
  expect_beams(group, {{0, 3, -3}, {1, 2, -3}});
}

// An end among the best `width` is a hypothesis; one behind them is nothing, and takes no place.
TEST(BeamGroup, OnlyTheBestEnd) {
  BeamGroup group(params_of(2), 9);
  group.add_candidates(0, candidates({{5, -1}, {6, -2}, {kEnd, -3}, {7, -4}}));
  group.advance();
  EXPECT_TRUE(group.hypotheses().empty());
  group.add_candidates(0, candidates({{kEnd, -1}, {5, -2}, {6, -5}}));
  group.add_candidates(1, candidates({{5, -9}}));
  group.advance();
  ASSERT_EQ(group.hypotheses().size(), 1u);
  EXPECT_EQ(group.hypotheses()[0].score, -2);
  EXPECT_TRUE(group.hypotheses()[0].ends);
  EXPECT_EQ(tokens_of(group, 0), (std::vector<TokenId>{5, kEnd}));
  expect_beams(group, {{0, 5, -3}, {0, 6, -6}});
  EXPECT_FALSE(group.done());
}

// Two hypotheses of scores -1 and -2 are complete; the best beam has -2.5 at length 2 of 10.
BeamGroup with_two_hypotheses(EarlyStopping early_stopping, float length_penalty) {
  auto params = params_of(2);
  params->early_stopping = early_stopping;
  params->length_penalty = length_penalty;
  BeamGroup group(params, 10);
  group.add_candidates(0, candidates({{kEnd, -1}, {5, -1.5f}, {6, -3}}));
  group.advance();
  group.add_candidates(0, candidates({{kEnd, -0.5f}, {7, -1}, {8, -9}}));
  group.add_candidates(1, candidates({{5, -9}}));
  group.advance();
  EXPECT_EQ(group.hypotheses().size(), 2u);
  return group;
}

TEST(BeamGroup, EndsWhenNothingBetterCanCome) {
  // -2.5 against -2.
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kFalse, 0).done());
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kTrue, 0).done());
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kNever, 0).done());
  // Divided by lengths: -2.5 / 2 against -2 / 2 now, or -2.5 / 10 at the longest.
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kFalse, 1).done());
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kTrue, 1).done());
  EXPECT_FALSE(with_two_hypotheses(EarlyStopping::kNever, 1).done());
  // -2.5 * 2 against -2 * 2: a negative penalty takes the length so far even for "never".
  EXPECT_TRUE(with_two_hypotheses(EarlyStopping::kNever, -1).done());
}

TEST(BeamGroup, GoesOnWhileABeamIsBetterThanTheWorstHypothesis) {
  for (const EarlyStopping early : {EarlyStopping::kFalse, EarlyStopping::kTrue}) {
    auto params = params_of(2);
    params->early_stopping = early;
    BeamGroup group(params, 10);
    group.add_candidates(0, candidates({{5, -1}, {kEnd, -4}, {6, -5}}));
    group.advance();
    group.add_candidates(0, candidates({{7, -1}, {kEnd, -3}, {8, -4}}));
    group.add_candidates(1, candidates({{5, -9}}));
    group.advance();
    ASSERT_EQ(group.hypotheses().size(), 2u);  // -4 and -4
    EXPECT_EQ(group.done(), early == EarlyStopping::kTrue);
    if (group.done()) continue;
    // A better one displaces the later of the two.
    group.add_candidates(0, candidates({{kEnd, -1}, {5, -9}, {6, -9}}));
    group.add_candidates(1, candidates({{5, -9}}));
    group.advance();
    ASSERT_TRUE(group.done());
    EXPECT_EQ(tokens_of(group, 0), (std::vector<TokenId>{5, 7, kEnd}));
    EXPECT_EQ(tokens_of(group, 1), (std::vector<TokenId>{kEnd}));
  }
}

TEST(BeamGroup, LengthPenaltyOrdersHypotheses) {
  for (const float penalty : {0.0f, 2.0f}) {
    auto params = params_of(2);
    params->length_penalty = penalty;
    params->early_stopping = EarlyStopping::kTrue;
    BeamGroup group(params, 2);
    group.add_candidates(0, candidates({{kEnd, -1}, {5, -1.5f}, {6, -3}}));
    group.advance();
    group.add_candidates(0, candidates({{kEnd, -1.5f}, {7, -3}}));
    group.add_candidates(1, candidates({{5, -9}}));
    group.advance();
    ASSERT_TRUE(group.done());
    // -1 and -3 without, -1 and -3/4 with it.
    EXPECT_EQ(tokens_of(group, 0).size(), penalty == 0 ? 1u : 2u);
    EXPECT_EQ(group.hypotheses()[0].score, penalty == 0 ? -1.0f : -0.75f);
  }
}

TEST(BeamGroup, MasksMayLeaveFewerBeamsOrNone) {
  BeamGroup group(params_of(3), 9);
  group.add_candidates(0, candidates({{5, -1}}));
  group.advance();
  expect_beams(group, {{0, 5, -1}});
  group.add_candidates(0, candidates({{6, -1}, {kEnd, -2}}));
  group.advance();
  expect_beams(group, {{0, 6, -2}});
  group.add_candidates(0, candidates({}));
  group.advance();
  EXPECT_TRUE(group.done());
  ASSERT_EQ(group.hypotheses().size(), 1u);
  EXPECT_EQ(tokens_of(group, 0), (std::vector<TokenId>{5, kEnd}));
}

TEST(BeamGroup, DroppedCandidatesComeAgain) {
  BeamGroup group(params_of(2), 9);
  group.add_candidates(0, candidates({{5, -1}, {6, -2}}));
  group.advance();
  group.add_candidates(0, candidates({{9, 0}}));
  group.drop_candidates();
  group.add_candidates(1, candidates({{7, -1}}));
  EXPECT_FALSE(group.ready());
  group.add_candidates(0, candidates({{8, -1}}));
  group.advance();
  expect_beams(group, {{0, 8, -2}, {1, 7, -3}});
}

TEST(BeamGroup, KeepsLogprobsOfEachHypothesis) {
  auto params = params_of(2);
  params->logprobs = 1;
  BeamGroup group(params, 2);
  BeamCandidates first = candidates({{5, -1}, {6, -2}});
  first.candidates[1].raw_logprob = -7;
  first.top.push_back({5, -1, 1, {}});
  group.add_candidates(0, std::move(first));
  group.advance();
  group.add_candidates(0, candidates({{1, -5}}));
  group.add_candidates(1, candidates({{2, -1}}));
  group.advance();
  const auto tokens = group.tokens(group.hypotheses()[0]);
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].token, 6);
  EXPECT_EQ(tokens[0].logprobs.chosen.logprob, -7);
  EXPECT_EQ(tokens[0].logprobs.chosen.rank, 2);
  ASSERT_EQ(tokens[0].logprobs.top.size(), 1u);
  EXPECT_EQ(tokens[0].logprobs.top[0].token, 5);
  EXPECT_EQ(tokens[1].token, 2);
  EXPECT_TRUE(tokens[1].logprobs.top.empty());
}

}  // namespace
}  // namespace pagemill
