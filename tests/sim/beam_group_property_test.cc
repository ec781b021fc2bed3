// BeamGroup against a plain re-implementation of Transformers' rules, on random distributions.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "scheduler/beam_group.h"
#include "simulate/fake_model.h"
#include "simulate/reference_beams.h"

namespace pagemill {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSearches = 400;  // some twenty times slower
#else
constexpr int kSearches = 4000;
#endif

struct Search {
  FakeModel model;
  std::shared_ptr<SamplingParams> params = std::make_shared<SamplingParams>();
  std::int32_t max_tokens = 1;
  SlotContent prompt = 1;

  std::vector<BeamCandidate> next(std::span<const TokenId> output) const {
    SlotContent last = prompt;
    for (const TokenId token : output) last = model.content(last, token);
    return model.candidates(last, *params, static_cast<std::int32_t>(output.size()));
  }
};

Search draw_search(std::mt19937_64& random) {
  const auto between = [&](std::int32_t low, std::int32_t high) {
    return low + static_cast<std::int32_t>(random() % (high - low + 1));
  };
  Search search;
  search.model.vocab_size = between(5, 60);
  search.model.eos_token_ids = {0};
  search.prompt = random() | 1;
  search.max_tokens = between(1, 30);
  SamplingParams& params = *search.params;
  params.make_greedy();
  params.use_beam_search = true;
  params.beam_width = between(1, 8);
  constexpr float kPenalties[] = {-1, 0, 0.5f, 1, 2};
  params.length_penalty = kPenalties[between(0, 4)];
  constexpr EarlyStopping kWhen[] = {
      EarlyStopping::kFalse, EarlyStopping::kTrue, EarlyStopping::kNever};
  params.early_stopping = kWhen[between(0, 2)];
  params.min_tokens = between(0, 3) == 0 ? between(0, search.max_tokens) : 0;
  params.ignore_eos = between(0, 3) == 0;
  if (between(0, 1) == 0) params.stop_token_ids = {1, 3};
  return search;
}

std::vector<ReferenceHypothesis> run_group(const Search& search, std::int32_t* num_steps) {
  BeamGroup group(search.params, search.max_tokens);
  std::vector<std::vector<TokenId>> outputs(1);
  for (*num_steps = 0; !group.done(); ++*num_steps) {
    for (std::size_t i = outputs.size(); i-- > 0;) {
      BeamCandidates candidates;
      candidates.candidates = search.next(outputs[i]);
      group.add_candidates(static_cast<std::int32_t>(i), std::move(candidates));
    }
    group.advance();
    std::vector<std::vector<TokenId>> next;
    for (const BeamGroup::Beam& beam : group.beams()) {
      next.push_back(outputs[beam.parent]);
      next.back().push_back(beam.token);
    }
    outputs = std::move(next);
  }
  std::vector<ReferenceHypothesis> found;
  for (const BeamGroup::Hypothesis& hypothesis : group.hypotheses()) {
    found.push_back({hypothesis.score, {}});
    for (const SampledToken& token : group.tokens(hypothesis)) {
      found.back().tokens.push_back(token.token);
    }
  }
  return found;
}

TEST(BeamGroupProperty, FindsWhatTransformersRulesFind) {
  std::mt19937_64 random(20261122);
  std::int32_t num_early = 0, num_ended = 0, num_few = 0, num_tied = 0;
  for (int i = 0; i < kSearches; ++i) {
    const Search search = draw_search(random);
    std::int32_t num_steps = 0;
    const auto found = run_group(search, &num_steps);
    const auto expected = reference_beam_search(*search.params,
                                                search.model.eos_token_ids,
                                                search.max_tokens,
                                                [&](std::span<const TokenId> output) {
                                                  std::vector<float> logprobs(
                                                      search.model.vocab_size,
                                                      -std::numeric_limits<float>::infinity());
                                                  for (const BeamCandidate& c : search.next(output))
                                                    logprobs[c.token] = c.logprob;
                                                  return logprobs;
                                                });
    ASSERT_EQ(found.size(), expected.size()) << "search " << i;
    for (std::size_t k = 0; k < found.size(); ++k) {
      ASSERT_EQ(found[k].tokens, expected[k].tokens) << "search " << i << ", hypothesis " << k;
      ASSERT_EQ(found[k].score, expected[k].score) << "search " << i << ", hypothesis " << k;
      num_ended += is_end_token(*search.params, search.model.eos_token_ids, found[k].tokens.back());
      num_tied += k > 0 && found[k].score == found[k - 1].score;
    }
    num_early += num_steps < search.max_tokens;
    num_few += static_cast<std::int32_t>(found.size()) < search.params->num_sequences();
  }
  EXPECT_GT(num_early, kSearches / 20);
  EXPECT_GT(num_ended, kSearches / 4);
  EXPECT_GT(num_few, kSearches / 1000);
  EXPECT_GT(num_tied, kSearches / 1000);
}

}  // namespace
}  // namespace pagemill
