#include "request/sampling_params.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "request/outputs.h"
#include "request/sampling_fields.h"

namespace pagemill {
namespace {

constexpr std::int32_t kVocab = 1000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
  std::function<void(SamplingParams&)> change;
  std::string param;    // empty: valid
  std::string message;  // if not empty: all of it
};

#define PM_SET(...) [](SamplingParams& p) { __VA_ARGS__; }

const Case kCases[] = {
    {PM_SET((void)p), "", ""},
    {PM_SET(p.temperature = -1), "temperature", "temperature: expected a number >= 0, got -1"},
    {PM_SET(p.temperature = kNan), "temperature", "temperature: expected a number >= 0, got nan"},
    {PM_SET(p.temperature = kInf), "temperature", ""},
    {PM_SET(p.temperature = 0), "", ""},
    {PM_SET(p.temperature = 3.5f), "", ""},
    {PM_SET(p.top_p = 0), "top_p", "top_p: expected a number > 0 and <= 1, got 0"},
    {PM_SET(p.top_p = 1.01f), "top_p", ""},
    {PM_SET(p.top_p = 0.001f), "", ""},
    {PM_SET(p.top_k = -1), "", ""},
    {PM_SET(p.top_k = -2), "top_k", "top_k: expected an integer >= -1, got -2"},
    {PM_SET(p.min_p = 1.5f), "min_p", ""},
    {PM_SET(p.presence_penalty = 2.5f), "presence_penalty", ""},
    {PM_SET(p.frequency_penalty = -2.5f),
     "frequency_penalty",
     "frequency_penalty: expected a number >= -2 and <= 2, got -2.5"},
    {PM_SET(p.repetition_penalty = 0), "repetition_penalty", ""},
    {PM_SET(p.n = 0), "n", "n: expected an integer >= 1 and <= 128, got 0"},
    {PM_SET(p.n = 129), "n", ""},
    {PM_SET(p.n = 3, p.best_of = 2), "best_of", "best_of: expected an integer >= n (3), got 2"},
    {PM_SET(p.n = 3, p.best_of = 3), "", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.n = 3), "", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.n = 3, p.beam_width = 8), "", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.best_of = 8, p.length_penalty = -1),
     "",
     ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.n = 3, p.beam_width = 2),
     "beam_width",
     "beam_width: expected an integer >= n (3), got 2"},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.beam_width = 129), "beam_width", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.beam_width = 4, p.best_of = 5),
     "best_of",
     "best_of: expected beam_width (4) with use_beam_search, got 5"},
    {PM_SET(p.use_beam_search = true),
     "temperature",
     "temperature: expected 0 with use_beam_search, which ranks tokens and draws none, got 1"},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.top_p = 0.5f), "top_p", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.top_k = 5), "top_k", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.min_p = 0.5f), "min_p", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.stop = {"x"}), "stop", ""},
    {PM_SET(p.make_greedy(), p.use_beam_search = true, p.length_penalty = kInf),
     "length_penalty",
     "length_penalty: expected a number, got inf"},
    {PM_SET(p.beam_width = 4), "beam_width", "beam_width: only available with use_beam_search"},
    {PM_SET(p.length_penalty = 2), "length_penalty", ""},
    {PM_SET(p.early_stopping = EarlyStopping::kNever), "early_stopping", ""},
    {PM_SET(p.max_tokens = 0), "max_tokens", ""},
    {PM_SET(p.min_tokens = -1), "min_tokens", ""},
    {PM_SET(p.min_tokens = 17),
     "min_tokens",
     "min_tokens: expected an integer <= max_tokens (16), got 17"},
    {PM_SET(p.seed = std::numeric_limits<std::uint64_t>::max()), "", ""},
    {PM_SET(p.stop = {"a", ""}), "stop[1]", "stop[1]: expected a string that is not empty, got ''"},
    {PM_SET(p.stop.assign(65, "x")), "stop", "stop: expected at most 64 items, got 65"},
    {PM_SET(p.stop_token_ids = {1, kVocab}),
     "stop_token_ids[1]",
     "stop_token_ids[1]: expected a token id >= 0 and < 1000 (the vocabulary's size), got 1000"},
    {PM_SET(p.allowed_token_ids = {-1}), "allowed_token_ids[0]", ""},
    {PM_SET(p.logprobs = 0), "", ""},
    {PM_SET(p.logprobs = -1), "", ""},
    {PM_SET(p.logprobs = kVocab), "", ""},
    {PM_SET(p.logprobs = kVocab + 1),
     "logprobs",
     "logprobs: expected an integer >= -1 and <= the vocabulary's size (1000), got 1001"},
    {PM_SET(p.prompt_logprobs = -2), "prompt_logprobs", ""},
    {PM_SET(p.logit_bias = {{5, 100.0f}, {6, -100.0f}}), "", ""},
    {PM_SET(p.logit_bias = {{5, 100.5f}}), "logit_bias[5]", ""},
    {PM_SET(p.logit_bias = {{kVocab, 1.0f}}), "logit_bias[0]", ""},
    {PM_SET(p.bad_words = {""}), "bad_words[0]", ""},
    {PM_SET(p.bad_words_token_ids = {{1, 2}, {}}), "bad_words_token_ids", ""},
    {PM_SET(p.bad_words_token_ids = {{1, kVocab}}), "bad_words_token_ids", ""},
};

TEST(SamplingParams, RangesAndMessages) {
  for (std::size_t i = 0; i < std::size(kCases); ++i) {
    SamplingParams params;
    kCases[i].change(params);
    const Status status = validate(params, kVocab);
    ASSERT_EQ(status.ok(), kCases[i].param.empty()) << "case " << i;
    if (status.ok()) continue;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(status.error().param, kCases[i].param) << "case " << i;
    EXPECT_EQ(status.error().message.rfind(kCases[i].param + ":", 0), 0u) << status.error().message;
    if (kCases[i].message.empty()) continue;
    EXPECT_EQ(status.error().message, kCases[i].message);
  }
}

TEST(SamplingFields, NamesAreUniqueAndFound) {
  std::set<std::string_view> names;
  for (const SamplingField& field : sampling_fields()) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_EQ(find_sampling_field(field.name), &field);
    EXPECT_FALSE(field.doc.empty());
    EXPECT_TRUE(validate_field(field, SamplingParams(), kVocab).ok()) << field.name;
  }
  EXPECT_EQ(find_sampling_field("no_such_field"), nullptr);
}

TEST(SamplingFields, MembersCanBeSetByName) {
  SamplingParams params;
  const SamplingField* field = find_sampling_field("min_p");
  ASSERT_NE(field, nullptr);
  params.*std::get<float SamplingParams::*>(field->member) = 0.25f;
  EXPECT_EQ(params.min_p, 0.25f);
}

TEST(FinishReasonNames, AreOpenAis) {
  EXPECT_EQ(to_string(FinishReason::kNone), "");
  EXPECT_EQ(to_string(FinishReason::kStop), "stop");
  EXPECT_EQ(to_string(FinishReason::kLength), "length");
  EXPECT_EQ(to_string(FinishReason::kAbort), "abort");
  EXPECT_EQ(to_string(FinishReason::kError), "error");
}

}  // namespace
}  // namespace pagemill
