#include "simulate/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "simulate/prefix_replay.h"

namespace pagemill {
namespace {

using ::testing::HasSubstr;

Trace trace_of(std::vector<TraceRequest> requests) {
  Trace trace;
  trace.name = "test";
  trace.has_arrivals = true;
  trace.requests = std::move(requests);
  return trace;
}

ReplayConfig config_of(double step_s) {
  ReplayConfig config;
  config.batcher.kv_slots = 1600;
  config.batcher.max_model_len = 400;
  config.cost = LinearCost{step_s, 0, 0};
  return config;
}

TEST(CostModel, TakesTheLongerOfBytesAndOperations) {
  Roofline roofline{100, 10, 1000, 2, 0, 0.5};
  StepLoad load;
  load.add_chunk(9, 10);  // 100 + 2 * 10 bytes, 100 operations
  EXPECT_DOUBLE_EQ(step_seconds(roofline, load), 0.5 + 12);
  roofline.flops_per_s = 1;
  roofline.flops_per_pair = 5;
  EXPECT_DOUBLE_EQ(step_seconds(roofline, load), 0.5 + 100 + 5 * 10);
}

TEST(CostModel, CountsWhatAChunkSees) {
  StepLoad load;
  load.add_chunk(0, 4);
  load.add_chunk(4, 6);
  EXPECT_EQ(load.num_seqs, 2);
  EXPECT_EQ(load.num_tokens, 6);
  EXPECT_EQ(load.kv_tokens, 4 + 6);
  EXPECT_EQ(load.attention_pairs, 1 + 2 + 3 + 4 + 5 + 6);
}

TEST(CostModel, FindsTheCoefficientsOfExactSamples) {
  const LinearCost truth{2e-3, 5e-5, 3e-9};
  std::vector<CostSample> samples = {
      {40, 60, 2000, 0}, {1, 512, 131328, 0}, {32, 800, 50000, 0}, {9, 8000, 9e6, 0}};
  for (CostSample& sample : samples) sample.seconds = sample.predicted(truth);
  const auto fit = fit_cost(samples);
  ASSERT_TRUE(fit.ok()) << fit.error().message;
  EXPECT_NEAR(fit->step_s, truth.step_s, 1e-9);
  EXPECT_NEAR(fit->token_s, truth.token_s, 1e-10);
  EXPECT_NEAR(fit->pair_s, truth.pair_s, 1e-14);
  EXPECT_FALSE(fit_cost(std::span(samples).first(2)).ok());
}

TEST(CostModel, FitsNoNegativeCoefficient) {
  // Time falls with pairs: the best that makes sense has none of them.
  std::vector<CostSample> samples = {
      {10, 10, 1000, 1.0}, {10, 100, 2000, 1.9}, {10, 10, 5000, 0.9}, {10, 50, 9000, 1.3}};
  const auto fit = fit_cost(samples);
  ASSERT_TRUE(fit.ok());
  EXPECT_EQ(fit->pair_s, 0);
  EXPECT_GT(fit->step_s, 0);
  EXPECT_GT(fit->token_s, 0);
}

TEST(CostModel, KnowsItsMachines) {
  const auto machine = find_machine("opt-13b@a100-40gb");
  ASSERT_TRUE(machine.ok());
  StepLoad load;
  load.add_chunk(99, 100);
  EXPECT_NEAR(step_seconds(machine->cost, load), (26e9 + 100 * 819200) / 1555e9, 1e-9);
  EXPECT_THAT(find_machine("abacus").error().message, HasSubstr("opt-13b@a100-40gb"));
}

TEST(Replay, SumsUpWhatHappened) {
  const Trace trace = trace_of({{10, 16, 4, {}}, {10, 16, 2, {}}});
  const auto done = replay(trace, config_of(2));
  ASSERT_TRUE(done.ok());
  const ReplaySummary summary = summarize(trace, *done);
  EXPECT_EQ(summary.num_requests, 2);
  EXPECT_DOUBLE_EQ(summary.seconds, 8);
  EXPECT_DOUBLE_EQ(summary.normalized_latency_s, (8.0 / 4 + 4.0 / 2) / 2);
  EXPECT_DOUBLE_EQ(summary.ttft_s.p99, 2);
  EXPECT_DOUBLE_EQ(summary.itl_s.p50, 2);
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_s, 6.0 / 8);
  EXPECT_DOUBLE_EQ(summary.mean_batch, (2 + 2 + 1 + 1) / 4.0);
  EXPECT_EQ(summary.max_batch, 2);
  // Steps 1 and 2 hold 32 and 34 tokens in 2 and 4 blocks, steps 3 and 4 18 and 19 in 2.
  EXPECT_NEAR(summary.busy.tokens, (32 + 34 + 18 + 19) / 4.0 / 1600, 1e-12);
  EXPECT_NEAR(summary.busy.waste(), 1 - (32 + 34 + 18 + 19) / (16.0 * (2 + 4 + 2 + 2)), 1e-12);
  EXPECT_EQ(summary.full.seconds, 0);
  EXPECT_EQ(summary.queued.seconds, 0);
}

TEST(Replay, IdleTimeBelongsToNoStep) {
  const Trace trace = trace_of({{0, 16, 1, {}}, {100, 16, 1, {}}});
  const auto done = replay(trace, config_of(2));
  ASSERT_EQ(done->steps[0].size(), 2u);
  EXPECT_EQ(done->steps[0][1].begin_s, 100);
  EXPECT_EQ(done->requests[1].end_s, 102);
}

TEST(Replay, ReportsWhatItRefuses) {
  const Trace trace = trace_of({{0, 16, 1, {}}, {0, 500, 1, {}}});
  const auto done = replay(trace, config_of(1));
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->num_refused, 1);
  EXPECT_THAT(done->first_refusal, HasSubstr("max_model_len is 400"));
  EXPECT_EQ(summarize(trace, *done).num_requests, 1);
}

TEST(Replay, SplitsBetweenReplicas) {
  // A long request, then short ones: round-robin puts every other one behind the long prompt.
  ReplayConfig config = config_of(1);
  config.batcher.max_num_seqs = 1;
  config.num_replicas = 2;
  const Trace trace = trace_of({{0, 8, 9, {}}, {0, 8, 1, {}}, {2, 8, 1, {}}, {4, 8, 1, {}}});
  config.split = ReplicaSplit::kRoundRobin;
  const auto robin = replay(trace, config);
  EXPECT_EQ(robin->requests[2].end_s, 10);
  EXPECT_EQ(robin->requests[3].end_s, 5);
  config.split = ReplicaSplit::kLeastLoaded;
  const auto least = replay(trace, config);
  EXPECT_EQ(least->requests[2].end_s, 3);
  EXPECT_EQ(least->requests[3].end_s, 5);
  EXPECT_FALSE(parse_replica_split("random").ok());
}

TEST(Replay, ARequestIsUnfinishedUntilItsStepEnds) {
  ReplayConfig config = config_of(1);
  config.num_replicas = 2;
  const auto done = replay(trace_of({{0, 8, 1, {}}, {0.5, 8, 1, {}}, {1.5, 8, 1, {}}}), config);
  EXPECT_EQ(done->requests[1].end_s, 1.5) << "the first replica is in a step";
  EXPECT_EQ(done->requests[2].end_s, 2.5) << "both are idle";
  EXPECT_EQ(done->steps[0].size(), 2u);
}

TEST(SustainedRate, IsWhereTheCurveCrossesTheLimit) {
  EXPECT_DOUBLE_EQ(sustained_rate({1, 2, 4}, {0.1, 0.2, 0.6}, 0.3), 2.5);
  EXPECT_DOUBLE_EQ(sustained_rate({1, 2, 4}, {0.1, 0.2, 0.25}, 0.3), 4);
  EXPECT_DOUBLE_EQ(sustained_rate({1, 2, 4}, {0.4, 0.5, 0.6}, 0.3), 0);
}

Trace prompts(std::vector<std::vector<TokenId>> ids) {
  Trace trace;
  trace.hash_block_tokens = 512;
  for (auto& of : ids) {
    const auto tokens = static_cast<std::int32_t>(of.size()) * 512;
    trace.requests.push_back({0, tokens, 1, std::move(of)});
  }
  return trace;
}

TEST(PrefixReplay, CountsOnlyUnbrokenRuns) {
  const Trace trace = prompts({{1, 2, 3}, {1, 2, 4}, {1, 9, 3}, {7, 2}});
  const PrefixHits hits = replay_reference_lru(trace, -1);
  EXPECT_EQ(hits.blocks, 11);
  EXPECT_EQ(hits.hits, 3);  // 1 2, then 1; 3 and the last 2 follow a miss
  EXPECT_DOUBLE_EQ(hits.token_rate(), 3.0 / 11);
}

TEST(PrefixReplay, TheReferenceEvictsHeadsFirstAndTheEngineTails) {
  const Trace trace = prompts({{1, 2, 3}, {8, 9}, {1, 2, 3}});
  EXPECT_EQ(replay_reference_lru(trace, 4).hits, 0) << "1 is the block touched longest ago";
  const auto engine = replay_engine_order(trace, 4);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  EXPECT_EQ(engine->hits, 2) << "3 made room for 9";
  EXPECT_EQ(replay_engine_order(trace, 5)->hits, 3);
  EXPECT_THAT(replay_engine_order(trace, 2).error().message, HasSubstr("longer than the cache"));
}

}  // namespace
}  // namespace pagemill
