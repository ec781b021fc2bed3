#include "cli/sampling_json.h"

#include <gtest/gtest.h>

#include "request/sampling_fields.h"

namespace pagemill::cli {
namespace {

using json = nlohmann::ordered_json;

TEST(SamplingJson, ReadsEveryKindOfField) {
  SamplingParams params;
  const json object = {{"n", 2},
                       {"best_of", 3},
                       {"temperature", 0.5},
                       {"seed", 18446744073709551615u},
                       {"stop", "END"},
                       {"stop_token_ids", {7}},
                       {"ignore_eos", true},
                       {"logprobs", -1},
                       {"bad_words", {"a", "b"}},
                       {"logit_bias", {{"15", -2.5}}},
                       {"max_tokens", nullptr},
                       {"other", {}}};
  ASSERT_TRUE(read_sampling_params(object, &params).ok());
  EXPECT_EQ(params.n, 2);
  EXPECT_EQ(params.best_of, 3);
  EXPECT_EQ(params.temperature, 0.5f);
  EXPECT_EQ(params.seed, 18446744073709551615u);
  EXPECT_EQ(params.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(params.stop_token_ids, std::vector<TokenId>{7});
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_EQ(params.logprobs, -1);
  EXPECT_EQ(params.bad_words, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(params.logit_bias, (std::vector<std::pair<TokenId, float>>{{15, -2.5f}}));
  EXPECT_EQ(params.max_tokens, SamplingParams().max_tokens);
}

TEST(SamplingJson, BeamSearchStartsFromGreedyDefaults) {
  SamplingParams params;
  params.top_p = 0.5f;
  const json object = {{"use_beam_search", true}, {"beam_width", 3}, {"early_stopping", "never"}};
  ASSERT_TRUE(read_sampling_params(object, &params).ok());
  EXPECT_EQ(params.temperature, 0);
  EXPECT_EQ(params.top_p, 1);
  EXPECT_EQ(params.num_sequences(), 3);
  EXPECT_EQ(params.early_stopping, EarlyStopping::kNever);
  ASSERT_TRUE(read_sampling_params({{"early_stopping", true}}, &params).ok());
  EXPECT_EQ(params.early_stopping, EarlyStopping::kTrue);
  EXPECT_FALSE(read_sampling_params({{"early_stopping", "always"}}, &params).ok());
}

TEST(SamplingJson, EveryFieldRefusesWhatItIsNot) {
  for (const SamplingField& field : sampling_fields()) {
    SamplingParams params;
    const Status status = read_sampling_params({{std::string(field.name), {{"x", "y"}}}}, &params);
    ASSERT_FALSE(status.ok()) << field.name;
    EXPECT_EQ(status.error().param, field.name);
  }
}

TEST(SamplingJson, IntegersAreWholeAndFit) {
  for (const json& value :
       {json(1.5), json(true), json("1"), json(std::int64_t{1} << 40), json(~std::uint64_t{0})}) {
    SamplingParams params;
    EXPECT_FALSE(read_sampling_params({{"max_tokens", value}}, &params).ok()) << value;
  }
}

}  // namespace
}  // namespace pagemill::cli
