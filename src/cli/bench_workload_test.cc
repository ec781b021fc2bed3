// Runs of a workload: in process, and over real sockets to a server before the same fake engine.
#include "cli/bench_workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/bench_http.h"
#include "server/server.h"
#include "server/testing/fake_engine.h"
#include "simulate/workload.h"

namespace pagemill::cli {
namespace {

using ::testing::HasSubstr;

constexpr TokenId kRefused = 'x';

std::vector<WorkloadItem> items() {
  std::vector<WorkloadItem> out;
  out.reserve(6);
  for (int i = 0; i < 6; ++i) out.push_back({{'a', 'b', 'c'}, 5 + i});
  return out;
}

SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

TEST(Workload, IsTheSameForTheSameSeed) {
  const auto a = mixed_workload(50, 160, 200, 1000, 7), b = mixed_workload(50, 160, 200, 1000, 7);
  const auto c = mixed_workload(50, 160, 200, 1000, 8);
  std::int64_t input = 0, differing = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].prompt_token_ids, b[i].prompt_token_ids);
    EXPECT_EQ(a[i].output_len, b[i].output_len);
    differing += a[i].prompt_token_ids != c[i].prompt_token_ids ? 1 : 0;
    input += static_cast<std::int64_t>(a[i].prompt_token_ids.size());
  }
  EXPECT_EQ(differing, 50);
  EXPECT_NEAR(static_cast<double>(input) / 50, 160, 2);
}

TEST(RunWorkload, AFullQueueLosesNoRequest) {
  FakeEngineOptions options;
  options.max_requests = 1;
  FakeEngine engine(options);
  const RunMeasure measure = run_workload(engine, items(), greedy());
  EXPECT_EQ(measure.num_failed, 0) << measure.first_failure;
  EXPECT_EQ(measure.e2e_s.size(), 6u);
  EXPECT_EQ(measure.input_tokens, 18);
  EXPECT_EQ(measure.output_tokens, 5 + 6 + 7 + 8 + 9 + 10);
  EXPECT_GT(measure.num_put_off, 0);
  EXPECT_EQ(engine.num_submitted(), 6u);
}

TEST(RunWorkload, CountsWhatFails) {
  FakeEngineOptions options;
  options.poison_token = kRefused;
  FakeEngine engine(options);
  auto some = items();
  some[2].prompt_token_ids[1] = kRefused;
  const RunMeasure measure = run_workload(engine, some, greedy());
  EXPECT_EQ(measure.num_failed, 1);
  EXPECT_EQ(measure.first_failure, "the step failed");
  EXPECT_EQ(measure.e2e_s.size(), 5u);
}

TEST(RunWorkload, NormalizesLatencyByOutputTokens) {
  FakeEngine engine{FakeEngineOptions{}};
  const RunMeasure measure = run_workload(engine, {items()[0]}, greedy());
  ASSERT_EQ(measure.normalized_s.size(), 1u);
  EXPECT_DOUBLE_EQ(measure.normalized_s[0], measure.e2e_s[0] / 5);
  EXPECT_DOUBLE_EQ(mean({1, 2, 6}), 3);
  EXPECT_EQ(mean({}), 0);
}

TEST(Workload, CanBeRepeatedForRequestsThatShareNothing) {
  const auto out = repeated(items(), 3);
  ASSERT_EQ(out.size(), 18u);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].output_len, 5 + int(i / 3));
}

TEST(Workload, ArrivesAsInASimulation) {
  Trace trace;
  trace.requests.resize(20);
  set_poisson_arrivals(trace, 2.5, 1);
  PoissonArrivals arrivals(2.5);
  for (const TraceRequest& request : trace.requests) {
    EXPECT_DOUBLE_EQ(arrivals.next(), request.arrival_s);
  }
}

class RunHttpWorkload : public ::testing::Test {
 protected:
  void start(const FakeEngineOptions& engine_options = {}) {
    engine_ = std::make_unique<FakeEngine>(engine_options);
    ServerOptions options;
    options.port = 0;
    options.api_keys = {"secret"};
    auto server = Server::start(*engine_, options);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(server).value();
    const auto url = parse_http_url(server_->url());
    ASSERT_TRUE(url.ok()) << url.error().message;
    options_.url = *url;
    options_.model = "fake";
    options_.api_key = "secret";
    options_.timeout_s = 20;
  }

  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Server> server_;
  HttpBenchOptions options_;
};

TEST_F(RunHttpWorkload, CountsTokensAndTimes) {
  start();
  options_.max_concurrency = 2;
  const RunMeasure measure = run_http_workload(options_, items(), greedy());
  EXPECT_EQ(measure.num_failed, 0) << measure.first_failure;
  EXPECT_EQ(measure.input_tokens, 18);
  EXPECT_EQ(measure.output_tokens, 5 + 6 + 7 + 8 + 9 + 10);
  EXPECT_EQ(measure.ttft_s.size(), 6u);
  EXPECT_EQ(measure.e2e_s.size(), 6u);
  EXPECT_FALSE(measure.itl_s.empty());
  for (double seconds : measure.ttft_s) EXPECT_GT(seconds, 0);
}

TEST_F(RunHttpWorkload, CountsRefusalsAndErrorsInTheStream) {
  FakeEngineOptions engine;
  engine.late_refusal_token = kRefused;
  engine.poison_token = 'y';
  start(engine);
  auto some = items();
  some[1].prompt_token_ids[0] = kRefused;  // 429
  RunMeasure measure = run_http_workload(options_, some, greedy());
  EXPECT_EQ(measure.num_failed, 1);
  EXPECT_THAT(measure.first_failure, HasSubstr("status 429"));
  EXPECT_EQ(measure.e2e_s.size(), 5u);
  some[1].prompt_token_ids[0] = 'y';  // an error after the stream has begun
  measure = run_http_workload(options_, some, greedy());
  EXPECT_EQ(measure.num_failed, 1);
  EXPECT_THAT(measure.first_failure, HasSubstr("the step failed"));
}

TEST_F(RunHttpWorkload, SaysWhyNothingWorks) {
  start();
  options_.api_key = "wrong";
  EXPECT_THAT(run_http_workload(options_, items(), greedy()).first_failure, HasSubstr("401"));
  server_->stop();
  const RunMeasure measure = run_http_workload(options_, items(), greedy());
  EXPECT_EQ(measure.num_failed, 6);
  EXPECT_THAT(measure.first_failure, HasSubstr("Connection refused"));
}

}  // namespace
}  // namespace pagemill::cli
