// Each policy on a machine whose every step takes a second.
#include "simulate/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "simulate/replay.h"

namespace pagemill {
namespace {

using ::testing::HasSubstr;

constexpr BatchPolicy kAllPolicies[] = {BatchPolicy::kPaged,
                                        BatchPolicy::kPagedFull,
                                        BatchPolicy::kOrcaMax,
                                        BatchPolicy::kOrcaPow2,
                                        BatchPolicy::kOrcaOracle,
                                        BatchPolicy::kStatic};

Trace trace_of(std::vector<TraceRequest> requests) {
  Trace trace;
  trace.name = "test";
  trace.has_arrivals = true;
  trace.requests = std::move(requests);
  return trace;
}

BatcherConfig config_of(std::int64_t kv_slots, std::int32_t max_model_len) {
  BatcherConfig config;
  config.kv_slots = kv_slots;
  config.max_model_len = max_model_len;
  config.block_size = 4;
  return config;
}

// The batcher after the first step is planned, with all requests there.
std::unique_ptr<Batcher> planned(BatchPolicy policy, const BatcherConfig& config, const Trace& t) {
  auto batcher = make_batcher(policy, config, t).value();
  for (std::size_t i = 0; i < t.requests.size(); ++i) {
    EXPECT_TRUE(batcher->add(static_cast<std::int32_t>(i)).ok());
  }
  StepLoad load;
  EXPECT_TRUE(batcher->plan(load));
  batcher->check_invariants();
  return batcher;
}

void expect_memory(const Batcher& batcher,
                   std::int64_t tokens,
                   std::int64_t reserved,
                   std::int64_t internal,
                   std::int64_t rounding) {
  const MemoryUse use = batcher.memory();
  EXPECT_EQ(use.tokens, tokens);
  EXPECT_EQ(use.reserved, reserved);
  EXPECT_EQ(use.internal, internal);
  EXPECT_EQ(use.rounding, rounding);
  EXPECT_EQ(use.free(), use.total - tokens - reserved - internal - rounding);
}

// A prompt of 5 and an output of 6: 10 tokens are stored at the end.
TEST(Batcher, AccountsForEverySlotOfAPolicy) {
  const Trace trace = trace_of({{0, 5, 6, {}}});
  const BatcherConfig config = config_of(128, 50);
  expect_memory(*planned(BatchPolicy::kPaged, config, trace), 5, 0, 3, 0);
  expect_memory(*planned(BatchPolicy::kOrcaMax, config, trace), 5, 5, 40, 14);   // 50 -> 64
  expect_memory(*planned(BatchPolicy::kOrcaPow2, config, trace), 5, 5, 3, 3);    // 5 + 8 -> 16
  expect_memory(*planned(BatchPolicy::kOrcaOracle, config, trace), 5, 5, 0, 6);  // 10 -> 16
  expect_memory(*planned(BatchPolicy::kStatic, config, trace), 5, 5, 40, 0);
}

TEST(Batcher, RunsAsManyAsItsReservationsLeaveRoomFor) {
  const Trace trace = trace_of(std::vector<TraceRequest>(40, TraceRequest{0, 5, 6, {}}));
  const BatcherConfig config = config_of(128, 50);
  EXPECT_EQ(planned(BatchPolicy::kPaged, config, trace)->num_running(), 16);  // 2 blocks of 4 each
  EXPECT_EQ(planned(BatchPolicy::kOrcaMax, config, trace)->num_running(), 2);
  EXPECT_EQ(planned(BatchPolicy::kOrcaPow2, config, trace)->num_running(), 8);
  EXPECT_EQ(planned(BatchPolicy::kOrcaOracle, config, trace)->num_running(), 8);
  EXPECT_EQ(planned(BatchPolicy::kStatic, config, trace)->num_running(), 2);
}

TEST(Batcher, RefusesWhatCanNeverRun) {
  const Trace trace = trace_of({{0, 60, 50, {}}});
  const BatcherConfig config = config_of(96, 200);  // ranges of 64 and 32
  for (const BatchPolicy policy : {BatchPolicy::kPaged,
                                   BatchPolicy::kOrcaMax,
                                   BatchPolicy::kOrcaPow2,
                                   BatchPolicy::kOrcaOracle}) {
    EXPECT_FALSE(make_batcher(policy, config, trace).value()->add(0).ok()) << to_string(policy);
  }
  const auto no_row = make_batcher(BatchPolicy::kStatic, config, trace);
  ASSERT_FALSE(no_row.ok());
  EXPECT_THAT(no_row.error().message, HasSubstr("one row of max_model_len"));
}

TEST(Batcher, NamesItsPolicies) {
  for (const BatchPolicy policy : kAllPolicies) {
    EXPECT_EQ(parse_batch_policy(to_string(policy)).value(), policy);
  }
  EXPECT_FALSE(parse_batch_policy("orca").ok());
}

ReplayConfig replay_config(BatchPolicy policy, const BatcherConfig& batcher) {
  ReplayConfig config;
  config.policy = policy;
  config.batcher = batcher;
  config.cost = LinearCost{1, 0, 0};
  config.check_every_step = true;
  return config;
}

TEST(StaticBatching, AnswersAllWhenTheLongestEnds) {
  const Trace trace = trace_of({{0, 5, 2, {}}, {0, 5, 6, {}}, {1, 5, 1, {}}});
  const auto done = replay(trace, replay_config(BatchPolicy::kStatic, config_of(100, 50)));
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->requests[0].first_token_s, 1);
  EXPECT_EQ(done->requests[0].end_s, 6);
  EXPECT_EQ(done->requests[1].end_s, 6);
  EXPECT_EQ(done->requests[2].end_s, 7) << "it waits for the batch, then runs alone";
}

TEST(StaticBatching, PadsToTheLongestPrompt) {
  const Trace trace = trace_of({{0, 3, 2, {}}, {0, 9, 2, {}}});
  auto batcher = make_batcher(BatchPolicy::kStatic, config_of(100, 50), trace).value();
  ASSERT_TRUE(batcher->add(0).ok() && batcher->add(1).ok());
  StepLoad load;
  ASSERT_TRUE(batcher->plan(load));
  EXPECT_EQ(load.num_tokens, 18);
  EXPECT_EQ(load.attention_pairs, 2 * 45);
}

TEST(ContinuousBatching, ARequestStartsWhileOthersRun) {
  const Trace trace = trace_of({{0, 5, 6, {}}, {1.5, 5, 1, {}}});
  for (const BatchPolicy policy :
       {BatchPolicy::kPaged, BatchPolicy::kOrcaMax, BatchPolicy::kOrcaPow2}) {
    const auto done = replay(trace, replay_config(policy, config_of(128, 50)));
    ASSERT_TRUE(done.ok()) << done.error().message;
    EXPECT_EQ(done->requests[0].end_s, 6) << to_string(policy);
    EXPECT_EQ(done->requests[1].end_s, 3) << "the step from 1 to 2 is under way at 1.5";
    EXPECT_EQ(done->token_gaps_s, std::vector<float>(5, 1)) << to_string(policy);
  }
}

// Every request gets all its tokens, whatever the policy, the lengths and the memory.
RC_GTEST_PROP(Batcher, ServesEveryRequestOfARandomTrace, ()) {
  const auto num_requests = *rc::gen::inRange(1, 40);
  std::vector<TraceRequest> requests;
  double now = 0;
  for (int i = 0; i < num_requests; ++i) {
    now += *rc::gen::inRange(0, 4);
    requests.push_back({now, *rc::gen::inRange(1, 40), *rc::gen::inRange(1, 24), {}});
  }
  const Trace trace = trace_of(std::move(requests));
  BatcherConfig batcher = config_of(*rc::gen::inRange<std::int64_t>(64, 400), 64);
  batcher.block_size = *rc::gen::inRange(1, 9);
  batcher.max_num_seqs = *rc::gen::inRange(1, 12);
  batcher.max_num_batched_tokens = *rc::gen::inRange(1, 80);
  for (const BatchPolicy policy : kAllPolicies) {
    ReplayConfig config = replay_config(policy, batcher);
    config.num_replicas = *rc::gen::inRange(1, 4);
    const auto done = replay(trace, config);
    RC_ASSERT(done.ok());
    RC_ASSERT(done->num_refused == 0);
    std::size_t num_tokens = 0;
    for (std::size_t i = 0; i < trace.requests.size(); ++i) {
      const RequestTimes& times = done->requests[i];
      num_tokens += trace.requests[i].output_tokens;
      RC_ASSERT(times.first_token_s >= times.arrival_s + 1);
      RC_ASSERT(times.end_s >= times.first_token_s + trace.requests[i].output_tokens - 1);
    }
    RC_ASSERT(done->token_gaps_s.size() + trace.requests.size() == num_tokens);
    for (const auto& steps : done->steps) {
      for (const StepSample& step : steps) {
        RC_ASSERT(step.memory.free() >= 0);
        RC_ASSERT(step.num_running <= batcher.max_num_seqs);
        RC_ASSERT(step.memory.tokens > 0);
      }
    }
  }
}

}  // namespace
}  // namespace pagemill
