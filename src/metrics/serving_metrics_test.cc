#include "metrics/serving_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pagemill {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::unique_ptr<ServingMetrics> make(std::string prefix = "pagemill") {
  ServingMetricsOptions options;
  options.prefix = std::move(prefix);
  options.model_name = "tiny";
  options.max_model_len = 100;
  options.cache_config = {{"block_size", "16"}};
  auto metrics = ServingMetrics::create(options);
  EXPECT_TRUE(metrics.ok());
  return std::move(metrics).value();
}

TEST(ServingMetrics, BucketsFollowOneTwoFive) {
  EXPECT_THAT(buckets_1_2_5(100), ElementsAre(1, 2, 5, 10, 20, 50, 100));
  EXPECT_THAT(buckets_1_2_5(99), ElementsAre(1, 2, 5, 10, 20, 50));
  EXPECT_THAT(buckets_1_2_5(0), ElementsAre());
}

TEST(ServingMetrics, RendersTheEngineWithLabelsAndPrefix) {
  auto metrics = make("vllm");
  EngineSnapshot snapshot;
  snapshot.num_requests_running = 3;
  snapshot.kv_cache_usage = 0.5;
  snapshot.blocks_cached = 7;
  snapshot.prompt_tokens = 11;
  metrics->render(snapshot);
  snapshot.prompt_tokens = 20;  // a counter shows the total, however often it is read
  const std::string text = metrics->render(snapshot);
  const std::string labels = R"({engine="0",model_name="tiny"})";
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running" + labels + " 3"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc" + labels + " 0.5"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total" + labels + " 20"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:kv_blocks{engine="0",model_name="tiny",state="cached"} 7)"));
  EXPECT_THAT(text, HasSubstr(R"(block_size="16")"));
  EXPECT_THAT(text, Not(HasSubstr("pagemill:")));
}

TEST(ServingMetrics, MirrorsTheTokensOfSteps) {
  auto metrics = make();
  EngineSnapshot snapshot;
  snapshot.iteration_tokens.add_step(1);
  snapshot.iteration_tokens.add_step(9);
  metrics->render(snapshot);
  snapshot.iteration_tokens.add_step(16);
  snapshot.iteration_tokens.add_step(20000);
  snapshot.corrupted_requests = 2;
  metrics->render(snapshot);
  const std::string text = metrics->render(snapshot);  // however often it is read
  const auto has = [&](const std::string& bound, int count) {
    const std::string line = R"(iteration_tokens_total_bucket{engine="0",model_name="tiny",le=")";
    EXPECT_THAT(text, HasSubstr(line + bound + "\"} " + std::to_string(count) + "\n"));
  };
  has("1", 1);
  has("8", 1);
  has("16", 3);
  has("16384", 3);
  has("+Inf", 4);
  EXPECT_THAT(text, HasSubstr(R"(iteration_tokens_total_sum{engine="0",model_name="tiny"} 20026)"));
  EXPECT_THAT(text, HasSubstr(R"(corrupted_requests_total{engine="0",model_name="tiny"} 2)"));
}

TEST(ServingMetrics, ObservesAFinishedRequest) {
  auto metrics = make();
  FinishedRequest request;
  request.finished_reason = "stop";
  request.e2e_s = 0.4;
  request.ttft_s = 0.03;
  request.decode_s = 0.3;
  request.prefill_s = 0.02;
  request.prompt_tokens = 8;
  request.cached_tokens = 5;
  request.generation_tokens = 11;
  request.max_generation_tokens = 11;
  request.max_tokens = 16;
  metrics->observe_finished(request);
  metrics->observe_inter_token(0.02);
  metrics->count_http("/v1/models", "GET", 200);
  const std::string text = metrics->render({});
  EXPECT_THAT(
      text,
      HasSubstr(R"(request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(R"(time_to_first_token_seconds_bucket{engine="0",model_name="tiny",le="0.04"} 1)"));
  EXPECT_THAT(
      text,
      HasSubstr(R"(time_to_first_token_seconds_bucket{engine="0",model_name="tiny",le="0.02"} 0)"));
  EXPECT_THAT(text,
              HasSubstr(R"(request_queue_time_seconds_count{engine="0",model_name="tiny"} 0)"))
      << "an unknown time is not observed";
  EXPECT_THAT(text, HasSubstr(R"(request_prompt_tokens_sum{engine="0",model_name="tiny"} 8)"));
  EXPECT_THAT(
      text, HasSubstr(R"(request_prefill_kv_computed_tokens_sum{engine="0",model_name="tiny"} 3)"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"(request_time_per_output_token_seconds_bucket{engine="0",model_name="tiny",le="0.05"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(route="/v1/models",status="200"} 1)"));
}

TEST(ServingMetrics, RefusesABadPrefix) {
  for (const char* prefix : {"", "9x", "a-b", "a:b"}) {
    ServingMetricsOptions options;
    options.prefix = prefix;
    const auto metrics = ServingMetrics::create(options);
    ASSERT_FALSE(metrics.ok()) << prefix;
    EXPECT_EQ(metrics.error().param, "metrics_prefix");
  }
}

}  // namespace
}  // namespace pagemill
