// Beam searches through the whole engine against those of Transformers (make_beam_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "pagemill/llm.h"

namespace pagemill {
namespace {

using nlohmann::json;

// Of the sum of up to 24 log-probabilities of float32 logits, divided or multiplied by a power of
// its length.
double tolerance(double score) { return 1e-4 + 1e-6 * std::abs(score); }

const json& golden() {
  static const json kGolden =
      json::parse(std::ifstream(std::string(PM_GOLDEN_DIR) + "/beams/cases.json"));
  return kGolden;
}

EngineOptions engine_options() {
  EngineOptions options;
  options.model = std::string(PM_GOLDEN_DIR) + "/tiny/" + golden()["model"].get<std::string>();
  options.dtype = "float32";
  options.kv_cache_dtype = "float32";
  options.threads = 2;
  options.kv_cache_memory_bytes = 64 << 20;
  options.poison_free_blocks = true;
  return options;
}

std::unique_ptr<LLM> start(const EngineOptions& options) {
  auto llm = LLM::create(options);
  EXPECT_TRUE(llm.ok()) << llm.error().message;
  return std::move(llm).value();
}

Prompt prompt_of(const json& item) { return item["prompt"].get<std::vector<TokenId>>(); }

SamplingParams params_of(const json& item) {
  SamplingParams params;
  params.make_greedy();
  params.use_beam_search = true;
  params.beam_width = item["width"].get<std::int32_t>();
  params.n = item["n"].get<std::int32_t>();
  params.length_penalty = item["length_penalty"].get<float>();
  const json& early = item["early_stopping"];
  params.early_stopping = early == "never" ? EarlyStopping::kNever
                          : early == true  ? EarlyStopping::kTrue
                                           : EarlyStopping::kFalse;
  params.max_tokens = item["max_tokens"].get<std::int32_t>();
  params.min_tokens = item["min_tokens"].get<std::int32_t>();
  params.repetition_penalty = item["repetition_penalty"].get<float>();
  params.ignore_eos = true;  // the golden names all end tokens
  params.stop_token_ids = item["end_token_ids"].get<std::vector<TokenId>>();
  return params;
}

void expect_golden(const json& item, const RequestOutput& output) {
  SCOPED_TRACE(item.dump().substr(0, 300));
  ASSERT_FALSE(output.error.has_value()) << output.error->message;
  const json& expected = item["hypotheses"];
  ASSERT_EQ(output.outputs.size(), expected.size());
  std::size_t num_tokens = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const CompletionOutput& found = output.outputs[i];
    const auto tokens = expected[i]["tokens"].get<std::vector<TokenId>>();
    EXPECT_EQ(found.token_ids, tokens) << "hypothesis " << i;
    ASSERT_TRUE(found.beam_score.has_value());
    const double score = expected[i]["score"].get<double>();
    EXPECT_NEAR(*found.beam_score, score, tolerance(score));
    const auto ends = item["end_token_ids"].get<std::vector<TokenId>>();
    const bool ended = std::find(ends.begin(), ends.end(), tokens.back()) != ends.end();
    EXPECT_EQ(found.finish_reason, ended ? FinishReason::kStop : FinishReason::kLength);
    EXPECT_EQ(found.stop_reason.has_value(), ended);
    num_tokens += tokens.size();
  }
  EXPECT_EQ(output.usage.completion_tokens, static_cast<std::int32_t>(num_tokens));
}

std::vector<RequestOutput> run_all(LLM& llm) {
  std::vector<Prompt> prompts;
  std::vector<SamplingParams> params;
  for (const json& item : golden()["cases"]) {
    prompts.push_back(prompt_of(item));
    params.push_back(params_of(item));
  }
  return llm.generate(prompts, params);
}

TEST(BeamGolden, AllAtOnce) {
  const auto llm = start(engine_options());
  const auto outputs = run_all(*llm);
  for (std::size_t i = 0; i < outputs.size(); ++i) expect_golden(golden()["cases"][i], outputs[i]);
  EXPECT_GT(llm->engine().stats().copy_on_writes, 500u);
  EXPECT_EQ(llm->engine().stats().num_blocks_referenced, 0);
}

// A pool that holds a fraction of the beams, and steps of a few tokens.
TEST(BeamGolden, PreemptedAndInChunks) {
  EngineOptions options = engine_options();
  options.num_blocks_override = 28;
  options.max_model_len = 64;
  options.max_num_batched_tokens = 24;
  const auto llm = start(options);
  const auto outputs = run_all(*llm);
  for (std::size_t i = 0; i < outputs.size(); ++i) expect_golden(golden()["cases"][i], outputs[i]);
  EXPECT_GT(llm->engine().stats().num_preemptions, 10u);
  EXPECT_GT(llm->engine().stats().chunked_prefills, 10u);
}

// What a hypothesis is made of: raw log-probabilities that add up to its score.
TEST(BeamGolden, LogprobsAddUpToTheScore) {
  const auto llm = start(engine_options());
  for (const json& item : golden()["cases"]) {
    if (item["repetition_penalty"] != 1.0 || item["width"] != 4) continue;
    SamplingParams params = params_of(item);
    params.logprobs = 3;
    const RequestOutput output = llm->generate({prompt_of(item)}, params).front();
    expect_golden(item, output);
    for (const CompletionOutput& found : output.outputs) {
      ASSERT_EQ(found.logprobs.size(), found.token_ids.size());
      for (std::size_t i = 0; i < found.token_ids.size(); ++i) {
        const PositionLogprobs& at = found.logprobs[i];
        EXPECT_EQ(at.chosen.token, found.token_ids[i]);
        ASSERT_EQ(at.top.size(), 3u);
        if (at.chosen.rank <= 3) {
          EXPECT_EQ(at.top[at.chosen.rank - 1].token, at.chosen.token);
          EXPECT_EQ(at.top[at.chosen.rank - 1].logprob, at.chosen.logprob);
        }
      }
      const double length = std::pow(found.token_ids.size(), params.length_penalty);
      EXPECT_NEAR(found.cumulative_logprob.value() / length,
                  *found.beam_score,
                  tolerance(*found.beam_score));
    }
  }
}

// The same bits alone, and among requests that sample, fork and search as well.
TEST(BeamGolden, OthersDoNotChangeABit) {
  const json& cases = golden()["cases"];
  std::vector<Prompt> prompts;
  std::vector<SamplingParams> params;
  for (std::size_t i = 0; i < 8; ++i) {  // widths 1 to 8
    prompts.push_back(prompt_of(cases[32 + i]));
    params.push_back(params_of(cases[32 + i]));
    params.back().ignore_eos = false;
    params.back().stop_token_ids.clear();
    params.back().max_tokens = 20;
  }
  const std::size_t num_beams = prompts.size();
  for (std::int32_t i = 0; i < 20; ++i) {
    prompts.push_back(prompt_of(cases[i]));
    SamplingParams& other = params.emplace_back();
    other.seed = i;
    other.n = 1 + i % 4;
    other.max_tokens = 15 + i;
  }
  const auto crowd = start(engine_options());
  const auto together = crowd->generate(prompts, params);
  EngineOptions options = engine_options();
  options.threads = 1;
  options.enable_prefix_caching = false;
  const auto quiet = start(options);
  for (std::size_t i = 0; i < num_beams; ++i) {
    const RequestOutput alone = quiet->generate({prompts[i]}, params[i]).front();
    ASSERT_EQ(alone.outputs.size(), together[i].outputs.size());
    for (std::size_t k = 0; k < alone.outputs.size(); ++k) {
      EXPECT_EQ(alone.outputs[k].token_ids, together[i].outputs[k].token_ids);
      EXPECT_EQ(alone.outputs[k].beam_score, together[i].outputs[k].beam_score);
    }
  }
}

}  // namespace
}  // namespace pagemill
