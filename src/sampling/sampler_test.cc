#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "sampling/random.h"

namespace pagemill {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SequenceState state_at(const SamplingParams& params,
                       std::uint64_t seed,
                       std::int32_t position,
                       std::int32_t index = 0) {
  const std::vector<TokenId> output(position, 0);
  return SequenceState(std::make_shared<SamplingParams>(params), seed, index, {}, output);
}

// What remains after min_p, top_k and top_p, by sorting everything, with the probabilities of what
// remains.
struct Reference {
  std::vector<std::pair<double, TokenId>> kept;  // in the order in which the draw walks
  bool is_borderline = false;                    // rounding decides whether a token is in

  // Nothing if rounding decides.
  std::optional<TokenId> draw(double uniform) const {
    double total = 0;
    for (const auto& [p, token] : kept) total += p;
    double cumulative = 0;
    for (const auto& [p, token] : kept) {
      cumulative += p / total;
      if (std::abs(cumulative - uniform) < 1e-5) return std::nullopt;
      if (uniform < cumulative) return token;
    }
    return std::nullopt;
  }
};

Reference reference_of(const SamplingParams& params, const std::vector<float>& logits) {
  std::vector<std::pair<double, TokenId>> all;
  const double max = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp((logits[i] - max) / params.temperature);
    all.emplace_back(p, static_cast<TokenId>(i));
    total += p;
  }
  for (auto& [p, token] : all) p /= total;
  Reference result;
  const bool truncates = params.top_p < 1 || params.top_k > 0 || params.min_p > 0;
  if (!truncates) {
    result.kept = std::move(all);
    return result;
  }
  std::stable_sort(
      all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::erase_if(all, [](const auto& entry) { return entry.first == 0; });
  const double best = all.front().first;
  if (params.min_p > 0) {
    for (const auto& [p, token] : all) {
      result.is_borderline |= p != best && std::abs(p / best / params.min_p - 1) < 1e-4;
    }
    std::erase_if(all, [&](const auto& entry) { return entry.first < params.min_p * best; });
  }
  if (params.top_k > 0 && all.size() > static_cast<std::size_t>(params.top_k))
    all.resize(params.top_k);
  if (params.top_p < 1) {
    double rest = 0, cumulative = 0;
    for (const auto& [p, token] : all) rest += p;
    std::size_t count = 0;
    while (count < all.size() && cumulative < params.top_p * rest) {
      cumulative += all[count++].first;
      result.is_borderline |= std::abs(cumulative / rest - params.top_p) < 1e-5;
    }
    all.resize(std::max<std::size_t>(count, 1));
  }
  result.kept = std::move(all);
  return result;
}

class SamplerTest : public testing::TestWithParam<Isa> {
 protected:
  std::optional<SampledToken> sample(const SequenceState& state, const std::vector<float>& logits) {
    const Sampler sampler = sampler_of(logits.size());
    const auto row = sampler.check(logits);
    if (!row) return std::nullopt;
    return sampler.sample(state, *row, scratch_);
  }
  TokenId token(const SequenceState& state, const std::vector<float>& logits) {
    const auto sampled = sample(state, logits);
    EXPECT_TRUE(sampled.has_value());
    return sampled ? sampled->token : -1;
  }
  BeamCandidates beam_candidates(const SequenceState& state, const std::vector<float>& logits) {
    const std::int32_t width = state.params().num_sequences();
    const Sampler sampler = sampler_of(logits.size());
    return sampler.beam_candidates(state, sampler.check(logits).value(), width, scratch_);
  }
  Sampler sampler_of(std::size_t vocab_size) const {
    return Sampler(elementwise_kernels(GetParam()), static_cast<std::int32_t>(vocab_size), {});
  }
  SamplerScratch scratch_;
};

INSTANTIATE_TEST_SUITE_P(Isas,
                         SamplerTest,
                         testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return std::string(to_string(info.param)); });

SamplingParams with_temperature(float temperature) {
  SamplingParams params;
  params.temperature = temperature;
  return params;
}

TEST_P(SamplerTest, GreedyTakesTheLowestIdOfATie) {
  for (std::size_t size : {1, 7, 16, 17, 1000}) {
    std::vector<float> logits(size, -3.0f);
    EXPECT_EQ(token(state_at(with_temperature(0), 1, 0), logits), 0);
    if (size < 7) continue;
    logits[5] = logits[size - 1] = 2.0f;
    EXPECT_EQ(token(state_at(with_temperature(0), 1, 0), logits), 5);
  }
}

TEST_P(SamplerTest, GreedySeesProcessedLogits) {
  SamplingParams params = with_temperature(0);
  params.logit_bias = {{2, 10.0f}};
  EXPECT_EQ(token(state_at(params, 1, 0), {5, 1, 0}), 2);
  params.allowed_token_ids = {1};
  EXPECT_EQ(token(state_at(params, 1, 0), {5, 1, 0}), 1);
}

TEST_P(SamplerTest, ATinyTemperatureIsGreedy) {
  const std::vector<float> logits = {3.0f, 3.5f, -80.0f, 3.4f};
  for (float temperature : {1e-38f, 1e-20f, 1e-6f, 1e-5f, 1e-4f}) {
    for (std::int32_t position = 0; position < 50; ++position) {
      SamplingParams params = with_temperature(temperature);
      EXPECT_EQ(token(state_at(params, 9, position), logits), 1) << temperature;
      params.top_p = 0.9f;
      params.top_k = 3;
      EXPECT_EQ(token(state_at(params, 9, position), logits), 1) << temperature;
    }
  }
}

// Whatever would mask the value afterwards: the row is refused before.
TEST_P(SamplerTest, ARowThatIsNotFiniteIsRefused) {
  for (std::size_t size : {1, 3, 16, 33, 1025, 3000}) {
    for (std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
      for (float bad : {kNan, std::numeric_limits<float>::infinity()}) {
        std::vector<float> logits(size, 1.0f);
        logits[at] = bad;
        EXPECT_FALSE(sampler_of(size).check(logits).has_value()) << size << ' ' << at << ' ' << bad;
        logits[at] = kMasked;
        EXPECT_EQ(sampler_of(size).check(logits).has_value(), size > 1);
      }
    }
  }
}

TEST_P(SamplerTest, AllMaskedIsNoToken) {
  const std::vector<float> logits(100, 0.0f);
  for (float temperature : {0.0f, 1.0f}) {
    SamplingParams params = with_temperature(temperature);
    params.allowed_token_ids = {4};
    EXPECT_EQ(token(state_at(params, 1, 0), logits), 4);
    params.bad_words_token_ids = {{4}};
    EXPECT_FALSE(sample(state_at(params, 1, 0), logits).has_value());
  }
}

// The draw is a known function of the kept tokens and of uniform_draw(): the token is compared, not
// a histogram.
TEST_P(SamplerTest, TruncationIsThatOfAFullSort) {
  std::mt19937 random(20261122);
  const auto pick = [&](auto... values) {
    const std::array options = {values...};
    return options[random() % options.size()];
  };
  int num_compared = 0, num_skipped = 0;
  for (int round = 0; round < 1500; ++round) {
    const std::size_t size = pick(1, 2, 5, 16, 40, 333, 1024, 2500);
    std::vector<float> logits(size);
    std::normal_distribution<float> normal(0, pick(0.0f, 0.1f, 1.0f, 3.0f, 10.0f, 60.0f));
    const float grid = pick(0.0f, 0.5f);  // a grid makes ties
    for (float& logit : logits) {
      logit = normal(random);
      if (grid > 0) logit = std::round(logit / grid) * grid;
      if (random() % 8 == 0) logit = kMasked;
    }
    logits[random() % size] = 1.0f;  // at least one token is possible
    SamplingParams params = with_temperature(pick(0.01f, 0.3f, 1.0f, 2.0f, 30.0f));
    params.top_k = pick(-1, 0, 1, 2, 7, 50, 5000);
    params.top_p = pick(1.0f, 1.0f, 0.999f, 0.9f, 0.37f, 1e-6f);
    params.min_p = pick(0.0f, 0.0f, 1e-4f, 0.07f, 0.6f, 1.0f);
    const Reference reference = reference_of(params, logits);
    if (reference.is_borderline) {
      ++num_skipped;
      continue;
    }
    const std::uint64_t seed = random();
    std::int32_t largest = 0;  // the draw nearest to 1 shows where the kept tokens end
    for (std::int32_t position = 0; position < 1000; ++position) {
      if (uniform_draw(seed, 3, position) > uniform_draw(seed, 3, largest)) largest = position;
    }
    for (std::int32_t position : {0, 1, 2, 3, 4, 5, 6, 7, largest}) {
      const auto expected = reference.draw(uniform_draw(seed, 3, position));
      const TokenId drawn = token(state_at(params, seed, position, 3), logits);
      if (!expected) {
        ++num_skipped;
        continue;
      }
      ++num_compared;
      ASSERT_EQ(drawn, *expected) << "round " << round << ", position " << position << ", size "
                                  << size << ", temperature " << params.temperature << ", top_k "
                                  << params.top_k << ", top_p " << params.top_p << ", min_p "
                                  << params.min_p;
    }
  }
  EXPECT_GT(num_compared, 10000);
  EXPECT_LT(num_skipped, num_compared / 10);
}

TEST_P(SamplerTest, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, kMasked, 0.5f, -0.5f, 1.5f};
  constexpr int kDraws = 20000;
  for (bool truncates : {false, true}) {
    SamplingParams params = with_temperature(1.3f);
    if (truncates) params.top_k = 5;
    const Reference reference = reference_of(params, logits);
    double total = 0;
    for (const auto& [p, id] : reference.kept) total += p;
    SequenceState state = state_at(params, 77, 0);
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) {
      const TokenId drawn = token(state, logits);
      ++counts[drawn];
      state.accept(drawn);
    }
    double chi_square = 0;
    int seen = 0;
    for (const auto& [p, id] : reference.kept) {
      const double expected = p / total * kDraws;
      seen += counts[id];
      if (expected > 0) chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
    }
    EXPECT_EQ(seen, kDraws);      // nothing outside the kept tokens
    EXPECT_LT(chi_square, 22.5);  // at most 6 degrees of freedom, p = 0.001
  }
}

TEST_P(SamplerTest, DrawsDependOnSeedIndexAndPositionAlone) {
  std::vector<float> logits(1000);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const SamplingParams params = with_temperature(1);
  const auto history = [&](std::vector<TokenId> prompt,
                           std::vector<TokenId> output,
                           std::uint64_t seed,
                           std::int32_t index) {
    return token(
        SequenceState(std::make_shared<SamplingParams>(params), seed, index, prompt, output),
        logits);
  };
  EXPECT_EQ(history({1, 2, 3}, {4, 5}, 8, 1), history({9}, {7, 7}, 8, 1));
  int differ_by_seed = 0, differ_by_index = 0, differ_by_position = 0;
  for (std::int32_t i = 0; i < 20; ++i) {
    const TokenId drawn = token(state_at(params, 8, i, 1), logits);
    EXPECT_EQ(drawn, token(state_at(params, 8, i, 1), logits));
    differ_by_seed += drawn != token(state_at(params, 9, i, 1), logits);
    differ_by_index += drawn != token(state_at(params, 8, i, 2), logits);
    differ_by_position += drawn != token(state_at(params, 8, i + 100, 1), logits);
  }
  for (int count : {differ_by_seed, differ_by_index, differ_by_position}) EXPECT_GT(count, 15);
}

TEST_P(SamplerTest, LogprobsAreThoseOfTheRawDistribution) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(1500);
  for (float& logit : logits) logit = std::round(normal(random) * 4) / 4;  // with ties
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(
      order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });

  SamplingParams params = with_temperature(0.5f);
  params.top_k = 40;
  params.logit_bias = {{order[900], 100.0f}};  // an unlikely token is drawn
  for (std::int32_t num_top : {0, 1, 5, 1500, -1}) {
    params.logprobs = num_top;
    const auto sampled = sample(state_at(params, 3, 0), logits);
    ASSERT_TRUE(sampled.has_value());
    const TokenLogprob& chosen = sampled->logprobs.chosen;
    EXPECT_EQ(sampled->token, order[900]);
    EXPECT_EQ(chosen.token, sampled->token);
    EXPECT_NEAR(chosen.logprob, logits[chosen.token] - std::log(sum), 1e-4);
    const auto above = std::count_if(
        logits.begin(), logits.end(), [&](float logit) { return logit > logits[chosen.token]; });
    EXPECT_EQ(chosen.rank, above + 1);
    const std::size_t expected = num_top < 0 ? logits.size() : static_cast<std::size_t>(num_top);
    ASSERT_EQ(sampled->logprobs.top.size(), expected);
    for (std::size_t i = 0; i < expected; ++i) {
      const TokenLogprob& top = sampled->logprobs.top[i];
      ASSERT_EQ(top.token, order[i]);
      ASSERT_EQ(top.rank, static_cast<std::int32_t>(i + 1));
      ASSERT_NEAR(top.logprob, logits[top.token] - std::log(sum), 1e-4);
    }
  }
}

SamplingParams beam_params(std::int32_t width) {
  SamplingParams params = with_temperature(0);
  params.use_beam_search = true;
  params.beam_width = width;
  return params;
}

// The most likely tokens down to the width-th that ends nothing, by a full sort.
TEST_P(SamplerTest, BeamCandidatesAreTheFirstOfAFullSort) {
  std::mt19937 random(20261122);
  for (int round = 0; round < 300; ++round) {
    const std::size_t size = 3 + random() % 700;
    const auto width = static_cast<std::int32_t>(1 + random() % 9);
    std::vector<float> logits(size);
    std::normal_distribution<float> normal(0, 3);
    for (float& logit : logits) logit = std::round(normal(random) * 8) / 8;  // ties
    SamplingParams params = beam_params(width);
    for (int i = random() % 4; i > 0; --i) params.stop_token_ids.push_back(random() % size);
    params.stop_token_ids.push_back(
        static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    const auto found = beam_candidates(state_at(params, 0, 0), logits);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::vector<TokenId> order(size);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(
        order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
    std::size_t count = 0;
    for (std::int32_t going_on = 0; going_on < width && count < size; ++count) {
      ASSERT_LT(count, found.candidates.size());
      const BeamCandidate& candidate = found.candidates[count];
      ASSERT_EQ(candidate.token, order[count]);
      ASSERT_NEAR(candidate.logprob, logits[candidate.token] - std::log(sum), 1e-4);
      ASSERT_EQ(candidate.raw_logprob, candidate.logprob);
      const auto& ends = params.stop_token_ids;
      ASSERT_EQ(candidate.ends, std::find(ends.begin(), ends.end(), order[count]) != ends.end());
      going_on += !candidate.ends;
    }
    ASSERT_EQ(found.candidates.size(), count);
    EXPECT_TRUE(found.top.empty());
  }
}

TEST_P(SamplerTest, BeamCandidatesAreProcessedAsLogProbabilities) {
  const std::vector<float> logits = {1, 3, 2, 0};
  const float lse = std::log(std::exp(1.0f) + std::exp(3.0f) + std::exp(2.0f) + std::exp(0.0f));
  SamplingParams params = beam_params(2);
  params.allowed_token_ids = {1, 3};
  params.logit_bias = {{3, 5.0f}};
  params.logprobs = 1;
  const auto found = beam_candidates(state_at(params, 0, 0), logits);
  ASSERT_EQ(found.candidates.size(), 2u);  // masked tokens are none
  EXPECT_EQ(found.candidates[0].token, 3);
  EXPECT_NEAR(found.candidates[0].logprob, 5 - lse, 1e-5);
  EXPECT_NEAR(found.candidates[0].raw_logprob, -lse, 1e-5);
  EXPECT_EQ(found.candidates[0].rank, 4);
  EXPECT_NEAR(found.candidates[1].logprob, 3 - lse, 1e-5);  // not normalized again
  ASSERT_EQ(found.top.size(), 1u);
  EXPECT_EQ(found.top[0].token, 1);

  // Transformers' repetition penalty multiplies log-probabilities, which are negative.
  SamplingParams repeating = beam_params(1);
  repeating.repetition_penalty = 2;
  const auto penalized = beam_candidates(state_at(repeating, 0, 1), {9, 8, 0, 0});
  EXPECT_EQ(penalized.candidates[0].token, 0);
  EXPECT_NEAR(penalized.candidates[0].logprob, 2 * penalized.candidates[0].raw_logprob, 1e-5);
}

TEST_P(SamplerTest, BeamCandidatesWithoutTokens) {
  SamplingParams params = beam_params(2);
  params.allowed_token_ids = {1};
  params.bad_words_token_ids = {{1}};
  const auto none = beam_candidates(state_at(params, 0, 0), {1, 2, 3});
  EXPECT_TRUE(none.candidates.empty());
}

TEST_P(SamplerTest, NoLogprobsUnlessAskedFor) {
  const auto sampled = sample(state_at(with_temperature(1), 1, 0), {1, 2, 3});
  ASSERT_TRUE(sampled.has_value());
  EXPECT_TRUE(sampled->logprobs.top.empty());
  EXPECT_EQ(sampled->logprobs.chosen.rank, 0);
}

}  // namespace
}  // namespace pagemill
