#include "scheduler/step_pacer.h"

#include <gtest/gtest.h>

#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

constexpr double kTarget = 0.1;

struct Machine {
  double decode_s = 0.02, per_prompt_token_s = 0.001;
  double seconds(std::int32_t num_prompt_tokens) const {
    return decode_s + per_prompt_token_s * num_prompt_tokens;
  }
};

// Steps that decode and compute as much of a prompt as the pacer lets them; how long the last took.
double run_mixed(StepPacer& pacer, const Machine& machine, int num_steps) {
  double seconds = 0;
  for (int i = 0; i < num_steps; ++i) {
    const std::int32_t num_prompt_tokens = std::min(pacer.prompt_tokens(), 2048);
    seconds = machine.seconds(num_prompt_tokens);
    pacer.observe(8, num_prompt_tokens, seconds);
  }
  return seconds;
}

TEST(StepPacer, FindsTheChunkThatTheTargetLeaves) {
  StepPacer pacer(kTarget);
  const Machine machine;
  pacer.observe(0, 512, machine.seconds(512) - machine.decode_s);  // a prompt alone
  pacer.observe(8, 0, machine.decode_s);
  EXPECT_NEAR(pacer.prompt_tokens(), 80, 1);
  EXPECT_NEAR(run_mixed(pacer, machine, 10), kTarget, 0.001);
}

TEST(StepPacer, FollowsDecodingThatItNeverSeesAlone) {
  StepPacer pacer(kTarget);
  Machine machine;
  pacer.observe(8, 0, machine.decode_s);
  run_mixed(pacer, machine, 20);
  machine.decode_s = 0.06;
  EXPECT_NEAR(run_mixed(pacer, machine, 50), kTarget, 0.005);
  machine.decode_s = 0.01;
  EXPECT_NEAR(run_mixed(pacer, machine, 50), kTarget, 0.005);
}

TEST(StepPacer, PromptsGetHalfOfAStepThatIsTooLongAnyway) {
  StepPacer pacer(kTarget);
  const Machine machine{.decode_s = 0.15, .per_prompt_token_s = 0.001};
  pacer.observe(8, 0, machine.decode_s);
  EXPECT_NEAR(run_mixed(pacer, machine, 30), 0.3, 0.01);
}

TEST(StepPacer, SmallChunksSayNothingAndNothingGoesBelowThem) {
  StepPacer pacer(kTarget);
  pacer.observe(8, 5, 0.02);
  EXPECT_GT(pacer.prompt_tokens(), 1 << 20) << "what it costs is not known";
  pacer.observe(0, 100, 100);
  EXPECT_EQ(pacer.prompt_tokens(), 32);
}

TEST(StepPacer, WithoutATargetThereIsNoLimit) {
  StepPacer pacer(0);
  pacer.observe(8, 512, 10);
  EXPECT_GT(pacer.prompt_tokens(), 1 << 20);
}

Request request_of(RequestId id, std::int32_t prompt_len, std::int32_t max_tokens) {
  Request request;
  request.id = id;
  request.prompt_token_ids.assign(prompt_len, static_cast<TokenId>(id));
  request.params.max_tokens = max_tokens;
  return request;
}

// Longest step of a scheduler whose streams run beside long prompts, once it knows the machine; and
// how many steps the prompts took.
struct Paced {
  double longest_s = 0;
  std::int32_t num_steps = 0;
};

Paced run_scheduler(double target_itl_s) {
  constexpr std::int32_t kStreams = 8, kPrompts = 4;
  SchedulerConfig config;
  config.kv_groups.resize(1);
  config.num_blocks = 4000;
  config.max_model_len = 4096;
  config.target_itl_s = target_itl_s;
  auto scheduler = Scheduler::create(config).value();
  const auto step = [&] {
    StepPlan plan;
    StepOutput output;
    scheduler->plan(plan);
    StepResult result{plan.step_id, {}};
    for (const SequenceStep& share : plan.sequences) {
      result.sequences.push_back({share.seq});
      result.sequences.back().samples.resize(share.num_samples());
    }
    const auto num_sequences = static_cast<std::int32_t>(plan.sequences.size());
    result.seconds = Machine().seconds(plan.num_tokens - num_sequences);
    const double seconds = result.seconds;
    scheduler->commit(std::move(result), output);
    return std::pair(seconds, output.events.size());
  };
  for (RequestId id = 1; id <= kStreams; ++id) {
    EXPECT_TRUE(scheduler->add_request(request_of(id, 40, 2000)).ok());
  }
  for (int i = 0; i < 3; ++i) step();
  for (RequestId id = kStreams + 1; id <= kStreams + kPrompts; ++id) {
    EXPECT_TRUE(scheduler->add_request(request_of(id, 2000, 1)).ok());
  }
  Paced paced;
  while (scheduler->stats().num_running_requests + scheduler->stats().num_waiting_requests >
         kStreams) {
    const auto [seconds, num_events] = step();
    EXPECT_GE(num_events, std::size_t{kStreams}) << "every stream gets a token in every step";
    paced.longest_s = std::max(paced.longest_s, seconds);
    ++paced.num_steps;
  }
  return paced;
}

TEST(Scheduler, PromptsGetSmallerChunksToHoldTheTimeBetweenTokens) {
  const Paced unpaced = run_scheduler(0), paced = run_scheduler(kTarget);
  EXPECT_GT(unpaced.longest_s, 1.5);
  EXPECT_LT(paced.longest_s, 1.1 * kTarget);
  // 8,000 tokens at 80 a step.
  EXPECT_NEAR(paced.num_steps, 100, 10);
}

}  // namespace
}  // namespace pagemill
