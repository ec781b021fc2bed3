#include "pagemill/llm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <thread>

namespace pagemill {
namespace {

EngineOptions tiny_options() {
  EngineOptions options;
  options.model = PM_TINY_MODELS "/chat";
  options.threads = 2;
  options.kv_cache_memory_bytes = 8 << 20;
  return options;
}

std::unique_ptr<LLM> make(const EngineOptions& options = tiny_options()) {
  auto llm = LLM::create(options);
  EXPECT_TRUE(llm.ok()) << llm.error().message;
  return std::move(llm).value();
}

SamplingParams greedy(std::int32_t max_tokens) {
  SamplingParams params;
  params.temperature = 0;
  params.max_tokens = max_tokens;
  params.ignore_eos = true;
  return params;
}

TEST(Llm, AMissingModelIsAnError) {
  EngineOptions options;
  options.model = "no-such-model.gguf";  // never a name of the Hub
  const auto llm = LLM::create(options);
  ASSERT_FALSE(llm.ok());
  EXPECT_EQ(llm.error().code, ErrorCode::kNotFound);
}

TEST(Llm, OutputsComeInTheOrderOfThePrompts) {
  const auto llm = make();
  std::vector<Prompt> prompts = {"a first text", std::vector<TokenId>{40, 41, 42}, "b"};
  std::vector<SamplingParams> params = {greedy(9), greedy(1), greedy(5)};
  const std::vector<RequestOutput> outputs = llm->generate(prompts, params);
  ASSERT_EQ(outputs.size(), 3u);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    ASSERT_FALSE(outputs[i].error.has_value()) << outputs[i].error->message;
    EXPECT_TRUE(outputs[i].finished);
    EXPECT_NE(outputs[i].request_id, 0u);
    ASSERT_EQ(outputs[i].outputs.size(), 1u);
    const CompletionOutput& completion = outputs[i].outputs[0];
    EXPECT_EQ(completion.token_ids.size(), static_cast<std::size_t>(params[i].max_tokens));
    EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
    EXPECT_FALSE(completion.stop_reason.has_value());
    EXPECT_FALSE(completion.cumulative_logprob.has_value());
    EXPECT_EQ(outputs[i].usage.prompt_tokens,
              static_cast<std::int32_t>(outputs[i].prompt_token_ids.size()));
    EXPECT_EQ(completion.text, *llm->engine().tokenizer()->decode(completion.token_ids, true));
  }
  EXPECT_EQ(outputs[0].prompt, "a first text");
  EXPECT_EQ(outputs[0].prompt_token_ids, *llm->encode("a first text"));
  EXPECT_EQ(outputs[1].prompt, "");
  EXPECT_EQ(outputs[1].prompt_token_ids, (std::vector<TokenId>{40, 41, 42}));
}

TEST(Llm, MorePromptsThanTheQueueHolds) {
  EngineOptions options = tiny_options();
  options.max_queued_requests = 2;
  options.max_num_seqs = 2;
  const auto llm = make(options);
  std::vector<Prompt> prompts;
  prompts.reserve(60);
  for (int i = 0; i < 60; ++i) prompts.push_back(std::vector<TokenId>{10 + i, 20, 30});
  std::vector<BatchProgress> reports;
  const auto outputs = llm->generate(prompts, greedy(6), [&](const BatchProgress& now) {
    reports.push_back(now);
    return true;
  });
  ASSERT_EQ(outputs.size(), prompts.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    ASSERT_FALSE(outputs[i].error.has_value()) << outputs[i].error->message;
    EXPECT_EQ(outputs[i].prompt_token_ids[0], 10 + static_cast<TokenId>(i));
    EXPECT_EQ(outputs[i].outputs[0].token_ids.size(), 6u);
  }
  ASSERT_FALSE(reports.empty());
  for (std::size_t i = 1; i < reports.size(); ++i) {
    EXPECT_GE(reports[i].num_finished, reports[i - 1].num_finished);
    EXPECT_GE(reports[i].num_generated_tokens, reports[i - 1].num_generated_tokens);
  }
  EXPECT_EQ(reports.back().num_finished, 60u);
  EXPECT_EQ(reports.back().num_prompts, 60u);
  EXPECT_EQ(reports.back().num_generated_tokens, 360);
}

TEST(Llm, OneBadPromptLeavesTheOthers) {
  const auto llm = make();
  const auto outputs = llm->generate(
      {"good", std::vector<TokenId>{}, std::vector<TokenId>{100000}, "fine"}, greedy(3));
  ASSERT_EQ(outputs.size(), 4u);
  for (std::size_t i : {1, 2}) {
    ASSERT_TRUE(outputs[i].error.has_value());
    EXPECT_EQ(outputs[i].error->code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(outputs[i].error->param, "prompt");
    EXPECT_TRUE(outputs[i].finished);
    EXPECT_TRUE(outputs[i].outputs.empty());
    EXPECT_EQ(outputs[i].request_id, 0u);
  }
  for (std::size_t i : {0, 3}) EXPECT_EQ(outputs[i].outputs[0].token_ids.size(), 3u);
}

TEST(Llm, NoPromptsAndTheWrongNumberOfParams) {
  const auto llm = make();
  EXPECT_TRUE(llm->generate({}, greedy(3)).empty());
  const auto outputs = llm->generate({"a", "b"}, std::vector{greedy(3)});
  ASSERT_EQ(outputs.size(), 2u);
  for (const RequestOutput& output : outputs) EXPECT_EQ(output.error->param, "params");
}

TEST(Llm, LogprobsAndSeveralOutputs) {
  const auto llm = make();
  SamplingParams params = greedy(4);
  params.temperature = 1.2f;
  params.n = 3;
  params.seed = 11;
  params.logprobs = 2;
  params.prompt_logprobs = 1;
  const auto outputs = llm->generate({"some text"}, params);
  ASSERT_EQ(outputs[0].outputs.size(), 3u);
  for (std::int32_t i = 0; i < 3; ++i) {
    const CompletionOutput& output = outputs[0].outputs[i];
    EXPECT_EQ(output.index, i);
    ASSERT_EQ(output.logprobs.size(), 4u);
    double sum = 0;
    for (std::size_t t = 0; t < 4; ++t) {
      EXPECT_EQ(output.logprobs[t].chosen.token, output.token_ids[t]);
      EXPECT_EQ(output.logprobs[t].top.size(), 2u);
      sum += output.logprobs[t].chosen.logprob;
    }
    EXPECT_DOUBLE_EQ(output.cumulative_logprob.value(), sum);
  }
  EXPECT_EQ(outputs[0].prompt_logprobs.size(), outputs[0].prompt_token_ids.size());
  EXPECT_EQ(outputs[0].usage.completion_tokens, 12);
}

TEST(Llm, StopReasons) {
  const auto llm = make();
  const auto plain = llm->generate({"some text"}, greedy(6));
  const std::vector<TokenId>& ids = plain[0].outputs[0].token_ids;
  SamplingParams params = greedy(6);
  params.stop_token_ids = {ids[2]};
  const auto by_token = llm->generate({"some text"}, params);
  EXPECT_EQ(by_token[0].outputs[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(std::get<TokenId>(by_token[0].outputs[0].stop_reason.value()), ids[2]);
}

TEST(Llm, Chat) {
  const auto llm = make();
  const std::vector<Conversation> conversations = {{{"user", "hi"}},
                                                   {{"system", "be"}, {"user", "so"}}};
  const auto outputs = llm->chat(conversations, greedy(4));
  ASSERT_EQ(outputs.size(), 2u);
  const auto text = llm->engine().tokenizer()->decode(outputs[0].prompt_token_ids, false);
  EXPECT_EQ(*text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(outputs[1].outputs[0].token_ids.size(), 4u);

  ChatOptions options;
  options.add_generation_prompt = false;
  const auto open = llm->chat({{{"user", "hi"}}}, greedy(1), options);
  EXPECT_EQ(*llm->engine().tokenizer()->decode(open[0].prompt_token_ids, false),
            "<|im_start|>user\nhi<|im_end|>\n");
  options.chat_template_kwargs = "[1]";
  EXPECT_EQ(llm->chat({{{"user", "hi"}}}, greedy(1), options)[0].error->param,
            "chat_template_kwargs");
  options = {
      .add_generation_prompt = true, .continue_final_message = true, .chat_template_kwargs = {}};
  EXPECT_EQ(llm->chat({{{"user", "hi"}}}, greedy(1), options)[0].error->param,
            "continue_final_message");
}

TEST(Llm, AModelWithoutATokenizerTakesTokenIds) {
  EngineOptions options = tiny_options();
  options.model = PM_TINY_MODELS "/gqa";
  const auto llm = make(options);
  const auto outputs = llm->generate({"text", std::vector<TokenId>{5, 6, 7}}, greedy(4));
  ASSERT_TRUE(outputs[0].error.has_value());
  EXPECT_EQ(outputs[0].error->param, "prompt");
  ASSERT_FALSE(outputs[1].error.has_value());
  EXPECT_EQ(outputs[1].outputs[0].token_ids.size(), 4u);
  EXPECT_EQ(outputs[1].outputs[0].text, "");
  EXPECT_TRUE(llm->chat({{{"user", "hi"}}}, greedy(1))[0].error.has_value());
}

TEST(Llm, AnExceptionFromProgressAbortsTheBatch) {
  const auto llm = make();
  std::vector<Prompt> prompts(8, std::vector<TokenId>{9, 9, 9});
  std::vector<SamplingParams> params(8, greedy(1900));
  params[0] = greedy(1);
  EXPECT_THROW(
      llm->generate(prompts,
                    params,
                    [](const BatchProgress&) -> bool { throw std::runtime_error("enough"); }),
      std::runtime_error);
  ASSERT_TRUE(llm->engine().drain(60));
  EXPECT_LT(llm->engine().stats().generation_tokens, 7u * 1900);
}

TEST(Llm, StoppedEarlyItReturnsWhatThereIs) {
  EngineOptions options = tiny_options();
  options.max_queued_requests = 2;
  options.max_num_seqs = 2;
  const auto llm = make(options);
  const std::vector<Prompt> prompts(8, std::vector<TokenId>{9, 9, 9});
  std::vector<SamplingParams> params(8, greedy(1900));
  params[0] = greedy(1);
  std::size_t finished = 0;
  const auto outputs = llm->generate(prompts, params, [&](const BatchProgress& now) {
    finished = now.num_finished;
    return finished == 0;
  });
  ASSERT_EQ(outputs.size(), 8u);
  EXPECT_EQ(outputs[0].outputs[0].finish_reason, FinishReason::kLength);
  std::size_t aborted = 0, waiting = 0;
  for (std::size_t i = 1; i < 8; ++i) {
    EXPECT_TRUE(outputs[i].finished);
    if (outputs[i].error) {
      EXPECT_EQ(outputs[i].error->code, ErrorCode::kCancelled);
      ++waiting;
    } else {
      EXPECT_EQ(outputs[i].outputs[0].finish_reason, FinishReason::kAbort);
      ++aborted;
    }
  }
  EXPECT_GE(aborted, 1u);
  EXPECT_GE(waiting, 1u);
  ASSERT_TRUE(llm->engine().drain(60));
  EXPECT_EQ(llm->engine().stats().num_blocks_referenced, 0);
}

TEST(Llm, ThreadsShareIt) {
  const auto llm = make();
  const auto alone = llm->generate({"shared"}, greedy(12));
  std::vector<std::thread> threads(3);
  for (std::thread& thread : threads) {
    thread = std::thread([&] {
      for (const auto& output : llm->generate({"shared", "shared", "shared"}, greedy(12))) {
        EXPECT_EQ(output.outputs[0].token_ids, alone[0].outputs[0].token_ids);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace pagemill
