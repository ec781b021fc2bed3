#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>

namespace pagemill {
namespace {

constexpr TokenId kEos = 2;

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.kv_groups.resize(1);
  config.num_blocks = 101;
  config.block_size = 4;
  config.max_model_len = 100;
  config.max_num_batched_tokens = 64;
  config.max_num_seqs = 8;
  config.eos_token_ids = {kEos};
  return config;
}

// A scheduler, and the means to answer its plans with chosen tokens.
struct Bench {
  explicit Bench(SchedulerConfig config = small_config())
      : scheduler(Scheduler::create(std::move(config)).value()) {}

  static Request request(RequestId id, std::int32_t prompt_len, std::int32_t max_tokens = 50) {
    Request request;
    request.id = id;
    request.prompt_token_ids.resize(prompt_len);
    std::iota(request.prompt_token_ids.begin(), request.prompt_token_ids.end(), 10 * id);
    request.params.max_tokens = max_tokens;
    return request;
  }
  void add(Request request) {
    const Status status = scheduler->add_request(std::move(request));
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  const StepPlan& next() {
    scheduler->plan(plan);
    scheduler->check_invariants();
    return plan;
  }
  StepResult result(TokenId token) const {
    StepResult result{plan.step_id, {}};
    for (const SequenceStep& share : plan.sequences) {
      SequenceResult& r = result.sequences.emplace_back();
      r.seq = share.seq;
      r.samples.assign(share.num_samples(), SampledToken{token, {}});
      if (share.num_prompt_logprobs >= 0) {
        r.prompt_logprobs.resize(std::min<std::size_t>(
            share.token_ids.size(), prompt_len_of_logprobs - 1 - share.num_computed_tokens));
      }
    }
    return result;
  }
  const StepOutput& commit(TokenId token = 7) {
    scheduler->commit(result(token), output);
    scheduler->check_invariants();
    return output;
  }
  const StepOutput& step(TokenId token = 7) {
    next();
    return commit(token);
  }

  std::unique_ptr<Scheduler> scheduler;
  StepPlan plan;
  StepOutput output;
  std::size_t prompt_len_of_logprobs = 0;
};

Error error_of(const Status& status) { return status.ok() ? Error{} : status.error(); }

TEST(Scheduler, RefusesWhatCanNeverFitWithTheNumbers) {
  Bench b;
  EXPECT_EQ(error_of(b.scheduler->add_request(Bench::request(1, 0))).param, "prompt");
  const Error too_long = error_of(b.scheduler->add_request(Bench::request(1, 100)));
  EXPECT_EQ(too_long.code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(too_long.message, "prompt: 100 tokens leave no room for output: max_model_len is 100");
  Request wide = Bench::request(1, 10);
  wide.params.n = 9;
  EXPECT_EQ(error_of(b.scheduler->add_request(wide)).message,
            "n: 9 sequences are more than max_num_seqs, 8");
  wide = Bench::request(1, 10, 80);
  wide.params.n = 5;  // 89 slots each, 2 blocks of the prompt shared: 2 + 5 * 21 blocks
  EXPECT_EQ(b.scheduler->blocks_at_full_length(10, 80, 5), 107);
  EXPECT_EQ(error_of(b.scheduler->add_request(wide)).message,
            "max_tokens: 10 prompt tokens and up to 80 more in 5 sequence(s) need 107 KV blocks of "
            "4 tokens, but there are 100");
  EXPECT_FALSE(b.scheduler->has_work());
}

TEST(Scheduler, TheQueueIsBounded) {
  SchedulerConfig config = small_config();
  config.max_queued_requests = 2;
  Bench b(config);
  b.add(Bench::request(1, 5));
  b.add(Bench::request(2, 5));
  EXPECT_EQ(error_of(b.scheduler->add_request(Bench::request(3, 5))).code,
            ErrorCode::kResourceExhausted);
  b.step();
  b.add(Bench::request(3, 5));
}

TEST(Scheduler, RefusesConfigsThatCannotWork) {
  SchedulerConfig config = small_config();
  config.target_itl_s = -1;
  EXPECT_EQ(Scheduler::create(config).error().param, "target_itl_ms");
  config.target_itl_s = 0;
  config.max_num_batched_tokens = 0;
  EXPECT_EQ(Scheduler::create(config).error().param, "max_num_batched_tokens");
  config = small_config();
  config.kv_groups.clear();
  EXPECT_FALSE(Scheduler::create(config).ok());
  config = small_config();
  config.kv_groups[0].kind = KvKind::kRecurrentState;
  EXPECT_EQ(Scheduler::create(config).error().code, ErrorCode::kUnsupported);
  config = small_config();
  config.fair_input_weight = config.fair_output_weight = 0;
  EXPECT_EQ(Scheduler::create(config).error().param, "fair_output_weight");
  EXPECT_EQ(parse_scheduling_policy("priority").value(), SchedulingPolicy::kPriority);
  EXPECT_EQ(parse_scheduling_policy("fair").value(), SchedulingPolicy::kFair);
  EXPECT_FALSE(parse_scheduling_policy("lifo").ok());
}

TEST(Scheduler, ALongPromptGoesInChunksAndOthersDecodeBesideIt) {
  SchedulerConfig config = small_config();
  config.max_num_batched_tokens = 8;
  Bench b(config);
  b.add(Bench::request(1, 5));
  b.step();
  b.add(Bench::request(2, 20));
  std::vector<std::size_t> chunks;
  for (bool sampled = false; !sampled;) {
    const StepPlan& plan = b.next();
    ASSERT_EQ(plan.sequences.size(), 2u);
    EXPECT_EQ(plan.sequences[0].token_ids.size(), 1u);
    EXPECT_TRUE(plan.sequences[0].sample());
    chunks.push_back(plan.sequences[1].token_ids.size());
    sampled = plan.sequences[1].sample();
    b.commit();
  }
  EXPECT_EQ(chunks, (std::vector<std::size_t>{7, 7, 6}));
  EXPECT_EQ(b.scheduler->stats().chunked_prefills, 1u);
}

// What bounds the time between two tokens: while blocks suffice, every running sequence gets one in
// every step, and a step computes no more than max_num_batched_tokens, whatever prompts come.
TEST(Scheduler, EveryStepServesEveryStreamWithinTheTokenBudget) {
  for (const auto policy :
       {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority, SchedulingPolicy::kFair}) {
    SchedulerConfig config = small_config();
    config.num_blocks = 401;
    config.max_num_batched_tokens = 12;
    config.policy = policy;
    Bench b(config);
    for (RequestId id = 1; id <= 4; ++id) b.add(Bench::request(id, 3, 60));
    b.step();
    for (int i = 0; i < 50; ++i) {
      if (i % 8 == 0) {
        Request longer = Bench::request(100 + i, 90, 1);
        longer.priority = -i;
        longer.user = "another";
        b.add(longer);
      }
      EXPECT_LE(b.next().num_tokens, 12);
      b.commit();
      std::int32_t num_streams = 0;
      for (const SequenceEvent& event : b.output.events) num_streams += event.request <= 4;
      ASSERT_EQ(num_streams, 4) << "step " << i;
    }
    EXPECT_GE(b.scheduler->stats().chunked_prefills, 4u);
    EXPECT_EQ(b.scheduler->stats().preemptions, 0u);
  }
}

// Under the priority policy a resumed long prompt can stand before decoding requests.
TEST(Scheduler, AnEarlierPromptLeavesOneTokenForEachLaterSequence) {
  SchedulerConfig config = small_config();
  config.max_num_batched_tokens = 10;
  config.policy = SchedulingPolicy::kPriority;
  Bench b(config);
  b.add(Bench::request(1, 4));
  b.add(Bench::request(2, 4));
  b.step();
  Request urgent = Bench::request(3, 50);
  urgent.priority = -1;
  b.add(urgent);
  b.step();
  const StepPlan& plan = b.next();
  ASSERT_EQ(plan.sequences.size(), 3u);
  EXPECT_EQ(plan.sequences[0].token_ids.size(), 8u);
  EXPECT_EQ(plan.sequences[0].token_ids[0], 30 + 8);
}

TEST(Scheduler, SiblingsShareThePromptUntilTheyWrite) {
  Bench b;
  Request request = Bench::request(1, 10);
  request.params.n = 3;
  request.params.seed = 5;
  b.add(request);
  const StepPlan& first = b.next();
  ASSERT_EQ(first.sequences.size(), 1u);
  ASSERT_EQ(first.creates.size(), 1u);
  ASSERT_EQ(first.forks.size(), 2u);
  EXPECT_EQ(first.sequences[0].num_samples(), 3);
  EXPECT_EQ(first.sequences[0].sample_seqs[0], first.creates[0].seq);
  EXPECT_EQ(first.sequences[0].sample_seqs[2], first.forks[1].child);
  EXPECT_EQ(first.forks[1].sequence_index, 2);
  EXPECT_EQ(first.forks[1].seed, 5u);
  EXPECT_EQ(b.scheduler->stats().blocks.referenced, 3);
  ASSERT_EQ(b.commit().events.size(), 3u);
  EXPECT_EQ(b.output.events[2].sequence_index, 2);

  const StepPlan& second = b.next();
  EXPECT_EQ(second.sequences.size(), 3u);
  EXPECT_EQ(second.copies.size(), 2u);  // the last writer keeps the block
  EXPECT_TRUE(second.creates.empty());
  EXPECT_EQ(b.scheduler->stats().blocks.referenced, 5);
  EXPECT_EQ(b.scheduler->stats().copy_on_writes, 2u);
  b.commit();

  EXPECT_TRUE(b.scheduler->finish_sequence(1, 1));
  EXPECT_FALSE(b.scheduler->finish_sequence(1, 1));
  EXPECT_EQ(b.scheduler->stats().blocks.referenced, 4);
  EXPECT_EQ(b.next().drops.size(), 1u);
  b.commit();
  EXPECT_TRUE(b.scheduler->abort(1));
  EXPECT_FALSE(b.scheduler->abort(1));
  EXPECT_EQ(b.scheduler->stats().blocks.referenced, 0);
  EXPECT_TRUE(b.scheduler->has_work());
  EXPECT_EQ(b.next().drops.size(), 2u);
  b.commit();
  EXPECT_FALSE(b.scheduler->has_work());
}

TEST(Scheduler, AReservationLimitsTheBatchAsAContiguousCacheWould) {
  const auto num_running = [](Reservation reservation) {
    SchedulerConfig config = small_config();  // 100 blocks of 4, sequences of 100 tokens at most
    config.reservation = reservation;
    Bench b(config);
    for (RequestId id = 1; id <= 8; ++id) b.add(Bench::request(id, 10, 33));
    for (int i = 0; i < 3; ++i) b.step();  // the prompts take more than one
    return b.scheduler->stats().num_running_requests;
  };
  EXPECT_EQ(num_running(Reservation::kNone), 8);
  EXPECT_EQ(num_running(Reservation::kMax), 4);         // 25 blocks each
  EXPECT_EQ(num_running(Reservation::kPowerOfTwo), 5);  // 10 + 64 tokens: 19 blocks
  EXPECT_EQ(num_running(Reservation::kOracle), 8);      // 43 tokens: 11 blocks
}

TEST(Scheduler, CountsWhatTheBlocksWereUsedFor) {
  Bench b;  // 100 blocks of 4
  Request request = Bench::request(1, 10, 3);
  request.params.n = 2;
  b.add(std::move(request));
  b.step();  // 10 tokens: 3 blocks, 2 slots empty, all shared by two
  const KvUse use = b.scheduler->stats().kv_use;
  EXPECT_EQ(use.steps, 1u);
  EXPECT_EQ(use.sequences, 2u);
  EXPECT_EQ(use.referenced, 3u);
  EXPECT_EQ(use.empty_slots, 2u);
  EXPECT_EQ(use.saved, 3u);
  b.step();  // both write: one of them copies the last block
  const KvUse second = b.scheduler->stats().kv_use - use;
  EXPECT_EQ(second.referenced, 4u);
  EXPECT_EQ(second.empty_slots, 2u);
  EXPECT_EQ(second.saved, 2u);
  EXPECT_EQ(b.scheduler->stats().kv_use_full.steps, 0u);
}

TEST(Scheduler, PriorityThenArrival) {
  for (const auto policy : {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority}) {
    SchedulerConfig config = small_config();
    config.policy = policy;
    config.max_num_seqs = 1;
    Bench b(config);
    const std::int32_t priorities[] = {1, 0, 1, -1};
    for (RequestId id = 1; id <= 4; ++id) {
      Request request = Bench::request(id, 4, 1);
      request.priority = priorities[id - 1];
      b.add(request);
    }
    std::vector<RequestId> order;
    while (b.scheduler->has_requests()) {
      for (const SequenceEvent& event : b.step().events) order.push_back(event.request);
    }
    EXPECT_EQ(order,
              policy == SchedulingPolicy::kFcfs ? (std::vector<RequestId>{1, 2, 3, 4})
                                                : (std::vector<RequestId>{4, 2, 1, 3}));
  }
}

TEST(Scheduler, TheLastIsPreemptedAndResumesFirstWithItsTokens) {
  SchedulerConfig config = small_config();
  config.num_blocks = 9;
  config.max_model_len = 32;
  config.enable_prefix_caching = false;
  Bench b(config);
  b.add(Bench::request(1, 12, 9));
  b.add(Bench::request(2, 12));
  b.step();
  b.add(Bench::request(3, 12));
  const SeqId second = b.plan.creates[1].seq;
  // Each grows to 16 tokens in 4 blocks; then the first needs a fifth.
  while (b.next().drops.empty()) b.commit();
  EXPECT_EQ(b.plan.drops, std::vector<SeqId>{second});
  EXPECT_EQ(b.plan.sequences.size(), 1u);
  EXPECT_EQ(b.scheduler->stats().preemptions, 1u);
  EXPECT_EQ(b.scheduler->stats().num_waiting_requests, 2);
  b.commit();
  while (b.next().creates.empty()) b.commit();
  EXPECT_EQ(b.plan.creates[0].seq, second);
  EXPECT_EQ(b.plan.creates[0].prompt_token_ids.size(), 12u);
  ASSERT_EQ(b.plan.creates[0].output_token_ids.size(), 5u);
  EXPECT_EQ(b.plan.creates[0].output_token_ids[4], 7);
  ASSERT_EQ(b.plan.sequences.front().seq, second);
  EXPECT_EQ(b.plan.sequences.front().num_computed_tokens, 0);
  EXPECT_EQ(b.plan.sequences.front().token_ids.size(), 17u);
  EXPECT_EQ(b.commit().events.front().request, 2u);
}

// Steps and preemptions until 60 requests have had all their tokens from memory for a few.
SchedulerStats stats_of_overload(bool headroom, SchedulingPolicy policy) {
  SchedulerConfig config = small_config();
  config.num_blocks = 41;
  config.admission_headroom = headroom;
  config.policy = policy;
  Bench b(config);
  for (RequestId id = 1; id <= 60; ++id) {
    b.add(Bench::request(id, 4 + static_cast<std::int32_t>(id * 7 % 11), 20 + id * 13 % 50));
  }
  b.add(Bench::request(61, 99, 1));  // nearly all of memory: it gets in whatever is kept free
  b.add(Bench::request(62, 4, 96));
  std::size_t num_ended = 0;
  while (b.scheduler->has_requests()) {
    for (const SequenceEvent& event : b.step().events) num_ended += event.request_finished;
  }
  EXPECT_EQ(num_ended, 62u);
  return b.scheduler->stats();
}

TEST(Scheduler, HeadroomSavesPreemptionsAndSteps) {
  const SchedulerStats with = stats_of_overload(true, SchedulingPolicy::kFcfs);
  const SchedulerStats without = stats_of_overload(false, SchedulingPolicy::kFcfs);
  EXPECT_GT(without.preemptions, 30u);
  EXPECT_LT(with.preemptions * 2, without.preemptions);
  EXPECT_LT(with.scheduled_tokens, without.scheduled_tokens);
  // What it costs is bounded.
  const auto batch = [](const KvUse& use) { return double(use.sequences) / double(use.steps); };
  EXPECT_GT(batch(with.kv_use), 0.75 * batch(without.kv_use));
  EXPECT_EQ(stats_of_overload(true, SchedulingPolicy::kFair).preemptions,
            stats_of_overload(false, SchedulingPolicy::kFair).preemptions);
}

TEST(Scheduler, APrefixHitLeavesTheLastTokenToCompute) {
  Bench b;
  const auto cached_after = [&](const Request& request) {
    b.add(request);
    b.next();
    const std::int32_t cached = b.scheduler->newly_admitted()[0].num_cached_tokens;
    EXPECT_EQ(b.plan.sequences[0].num_computed_tokens, cached);
    b.prompt_len_of_logprobs = request.prompt_token_ids.size();
    b.commit();
    b.scheduler->abort(request.id);
    return cached;
  };
  const auto same_prompt = [](RequestId id, std::int32_t length) {
    Request request = Bench::request(1, length);
    request.id = id;
    return request;
  };
  EXPECT_EQ(cached_after(same_prompt(1, 16)), 0);
  EXPECT_EQ(cached_after(same_prompt(2, 16)), 15);
  EXPECT_EQ(b.plan.copies.size(), 1u);
  EXPECT_EQ(cached_after(same_prompt(3, 17)), 16);
  EXPECT_TRUE(b.plan.copies.empty());
  EXPECT_EQ(cached_after(same_prompt(4, 7)), 6);
  Request salted = same_prompt(5, 16);
  salted.cache_salt = "tenant";
  EXPECT_EQ(cached_after(salted), 0);
  salted.id = 6;
  EXPECT_EQ(cached_after(salted), 15);
  Request with_logprobs = same_prompt(7, 16);
  with_logprobs.params.prompt_logprobs = 0;
  EXPECT_EQ(cached_after(with_logprobs), 0);
  EXPECT_EQ(b.scheduler->stats().prefix_cache_hits, 15u + 16 + 6 + 15);
  EXPECT_EQ(b.scheduler->stats().copied_hits, 3u + 2 + 3);
  EXPECT_EQ(b.scheduler->stats().prefix_cache_queries, 16u * 5 + 17 + 7);
}

TEST(Scheduler, APromptThatPartsWithinABlockStartsFromACopyOfIt) {
  Bench b;
  b.add(Bench::request(1, 16));
  b.step();
  Request other = Bench::request(1, 20);
  other.id = 2;
  other.prompt_token_ids[10] = 99;
  b.add(other);
  b.next();
  EXPECT_EQ(b.scheduler->newly_admitted()[0].num_cached_tokens, 10);
  ASSERT_EQ(b.plan.copies.size(), 1u);
  const BlockCopy copy = b.plan.copies[0];
  const SequenceStep& first = b.plan.sequences[0];
  const SequenceStep& second = b.plan.sequences[1];
  EXPECT_EQ(copy.source, first.block_tables[0][2]);
  EXPECT_EQ(copy.target, second.block_tables[0][2]);
  EXPECT_EQ(second.num_computed_tokens, 10);
  EXPECT_EQ(second.token_ids.size(), 10u);
  EXPECT_EQ(second.token_ids[0], 99);
  EXPECT_TRUE(b.scheduler->abort(1));  // the source stays until the copy is made
  b.scheduler->check_invariants();
  StepResult result{b.plan.step_id, {}};
  for (const SequenceStep& share : b.plan.sequences) {
    result.sequences.push_back({share.seq, {SampledToken{7, {}}}});
  }
  b.scheduler->commit(std::move(result), b.output);
  EXPECT_EQ(b.scheduler->stats().blocks.pinned, 0);
  EXPECT_EQ(b.scheduler->stats().copied_hits, 2u);
}

TEST(Scheduler, WithoutRoomForTheSourceThereIsNoCopy) {
  SchedulerConfig config = small_config();
  config.num_blocks = 6;
  config.max_model_len = 20;
  Bench b(config);
  b.add(Bench::request(1, 16, 1));
  b.step();
  ASSERT_EQ(b.scheduler->stats().blocks.cached, 4);
  Request other = Bench::request(1, 17);  // the last of five blocks is for the output
  other.id = 2;
  other.prompt_token_ids[2] = 99;
  b.add(other);
  const StepPlan& plan = b.next();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].num_computed_tokens, 0);
  EXPECT_TRUE(plan.copies.empty());
}

TEST(Scheduler, AfterAResetNothingComputedBeforeIsFound) {
  Bench b;
  const auto cached = [&](RequestId id) {
    Request request = Bench::request(1, 30, 20);
    request.id = id;
    b.add(request);
    b.next();
    EXPECT_EQ(b.scheduler->newly_admitted().size(), 1u);
    return b.scheduler->newly_admitted()[0].num_cached_tokens;
  };
  EXPECT_EQ(cached(1), 0);
  b.commit();
  EXPECT_EQ(cached(2), 28);
  b.commit();
  b.scheduler->reset_prefix_cache();
  b.scheduler->check_invariants();
  EXPECT_EQ(b.scheduler->stats().blocks.cached, 0);
  // Both go on, and the blocks that they fill meanwhile are not found either.
  for (int i = 0; i < 8; ++i) ASSERT_EQ(b.step().events.size(), 2u);
  EXPECT_EQ(cached(3), 0);
  b.commit();
  EXPECT_EQ(cached(4), 28);
  b.commit();
  // A reset while a step is in flight: what that step computes is not found.
  b.next();
  b.scheduler->reset_prefix_cache();
  b.commit();
  EXPECT_EQ(cached(5), 0);
}

TEST(Scheduler, StopConditions) {
  struct Case {
    std::function<void(SamplingParams&)> change;
    TokenId token;
    FinishReason reason;
    std::size_t num_tokens;
    bool stop_token;
  };
  const Case cases[] = {
      {[](auto&) {}, kEos, FinishReason::kStop, 1, false},
      {[](auto& p) { p.ignore_eos = true; }, kEos, FinishReason::kLength, 6, false},
      {[](auto& p) { p.min_tokens = 3; }, kEos, FinishReason::kStop, 4, false},
      {[](auto& p) { p.stop_token_ids = {9}; }, 9, FinishReason::kStop, 1, true},
      {[](auto& p) { p.stop_token_ids = {kEos}; }, kEos, FinishReason::kStop, 1, false},
      {[](auto& p) { p.ignore_eos = true, p.stop_token_ids = {kEos}; },
       kEos,
       FinishReason::kStop,
       1,
       true},
      {[](auto& p) { p.max_tokens = 1; }, 7, FinishReason::kLength, 1, false},
      {[](auto& p) { p.max_tokens = 1000; }, 7, FinishReason::kLength, 90, false},
  };
  for (const Case& c : cases) {
    Bench b;
    Request request = Bench::request(1, 10, 6);
    c.change(request.params);
    b.add(request);
    std::size_t num_tokens = 0;
    while (b.scheduler->has_requests()) {
      ASSERT_EQ(b.step(c.token).events.size(), 1u);
      ++num_tokens;
      EXPECT_EQ(b.output.events[0].request_finished, !b.scheduler->has_requests());
    }
    EXPECT_EQ(b.output.events[0].finish_reason, c.reason);
    EXPECT_EQ(b.output.events[0].stop_token.has_value(), c.stop_token);
    EXPECT_EQ(num_tokens, c.num_tokens);
  }
}

TEST(Scheduler, AFailureEndsOneRequestOnly) {
  Bench b;
  Request pair = Bench::request(1, 5);
  pair.params.n = 2;
  b.add(pair);
  b.add(Bench::request(2, 5));
  b.step();
  b.next();
  StepResult result = b.result(7);
  result.sequences[1].failure = StepFailure::kNonFinite;
  b.scheduler->commit(std::move(result), b.output);
  // The first sequence's token, then the end of both, then the other request's token.
  ASSERT_EQ(b.output.events.size(), 4u);
  EXPECT_EQ(b.output.events[0].finish_reason, FinishReason::kNone);
  EXPECT_EQ(b.output.events[1].finish_reason, FinishReason::kError);
  EXPECT_EQ(b.output.events[2].finish_reason, FinishReason::kError);
  EXPECT_EQ(b.output.events[2].failure, StepFailure::kNonFinite);
  EXPECT_TRUE(b.output.events[2].request_finished);
  EXPECT_EQ(b.output.events[3].request, 2u);
  EXPECT_TRUE(b.output.events[3].sampled.has_value());
  b.next();
  b.scheduler->fail_step(b.plan.step_id, b.output);
  ASSERT_EQ(b.output.events.size(), 1u);
  EXPECT_EQ(b.output.events[0].finish_reason, FinishReason::kError);
  EXPECT_EQ(b.output.events[0].failure, StepFailure::kStep);
  EXPECT_FALSE(b.scheduler->has_requests());
  EXPECT_EQ(b.scheduler->stats().blocks.referenced, 0);
  b.scheduler->check_invariants();
}

TEST(Scheduler, AnAbortDuringAStepHoldsItsBlocksUntilTheCommit) {
  Bench b;
  b.add(Bench::request(1, 5));
  b.next();
  EXPECT_TRUE(b.scheduler->abort(1));
  EXPECT_EQ(b.scheduler->stats().blocks.pinned, 2);
  StepResult result{b.plan.step_id, {}};
  result.sequences.push_back({1, {SampledToken{7, {}}}});
  b.scheduler->commit(std::move(result), b.output);
  EXPECT_TRUE(b.output.events.empty());
  EXPECT_EQ(b.scheduler->stats().blocks.pinned, 0);
  b.scheduler->check_invariants();
}

}  // namespace
}  // namespace pagemill
