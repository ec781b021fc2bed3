// A steady step allocates nothing in proportion to sequences or context.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "scheduler/scheduler.h"

namespace {
std::atomic<std::size_t> num_allocations{0};
}  // namespace

// gcc does not see that the replaced pair matches once one of them is inlined.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace pagemill {
namespace {

TEST(SchedulerAllocations, ASteadyStepAllocatesAlmostNothing) {
  constexpr std::int32_t kSeqs = 128;
  SchedulerConfig config;
  config.kv_groups.resize(1);
  config.num_blocks = kSeqs * 128 + 1;
  config.max_model_len = 2048;
  config.max_num_batched_tokens = 1 << 18;
  config.max_num_seqs = kSeqs;
  auto scheduler = Scheduler::create(config).value();
  for (RequestId id = 1; id <= kSeqs; ++id) {
    Request request;
    request.id = id;
    request.prompt_token_ids.assign(1000, static_cast<TokenId>(id));
    request.params.max_tokens = 1000;
    ASSERT_TRUE(scheduler->add_request(request).ok());
  }
  StepPlan plan;
  StepOutput output;
  std::size_t allocated = 0;
  constexpr int kSteps = 400, kWarmup = 50;
  for (int i = 0; i < kSteps + kWarmup; ++i) {
    const std::size_t before_plan = num_allocations;
    scheduler->plan(plan);
    const std::size_t after_plan = num_allocations;
    StepResult result{plan.step_id, {}};
    for (const SequenceStep& share : plan.sequences) {
      result.sequences.push_back({share.seq, {SampledToken{static_cast<TokenId>(i), {}}}});
    }
    const std::size_t before_commit = num_allocations;
    scheduler->commit(std::move(result), output);
    ASSERT_EQ(output.events.size(), static_cast<std::size_t>(kSeqs));
    if (i >= kWarmup) allocated += num_allocations - before_commit + after_plan - before_plan;
  }
  // Vectors of tokens, blocks and hashes that double now and then: far below one a sequence.
  EXPECT_LT(allocated, static_cast<std::size_t>(kSeqs * 3));
}

// Beams change places, fork and end in every step.
TEST(SchedulerAllocations, ASteadyStepOfBeamsAllocatesAlmostNothing) {
  constexpr std::int32_t kRequests = 32, kWidth = 4, kSeqs = kRequests * kWidth;
  SchedulerConfig config;
  config.kv_groups.resize(1);
  config.num_blocks = kSeqs * 128 + 1;
  config.max_model_len = 2048;
  config.max_num_batched_tokens = 1 << 18;
  config.max_num_seqs = kSeqs;
  auto scheduler = Scheduler::create(config).value();
  for (RequestId id = 1; id <= kRequests; ++id) {
    Request request;
    request.id = id;
    request.prompt_token_ids.assign(1000, static_cast<TokenId>(id));
    request.params.max_tokens = 1000;
    request.params.make_greedy();
    request.params.use_beam_search = true;
    request.params.n = kWidth;
    ASSERT_TRUE(scheduler->add_request(request).ok());
  }
  StepPlan plan;
  StepOutput output;
  std::size_t allocated = 0;
  constexpr int kSteps = 400, kWarmup = 50;
  std::uint32_t random = 1;
  for (int i = 0; i < kSteps + kWarmup; ++i) {
    const std::size_t before_plan = num_allocations;
    scheduler->plan(plan);
    const std::size_t after_plan = num_allocations;
    StepResult result{plan.step_id, {}};
    for (const SequenceStep& share : plan.sequences) {
      SequenceResult& of_beam = result.sequences.emplace_back();
      of_beam.seq = share.seq;
      random = random * 1664525 + 1013904223;
      const float best = -1e-4f * static_cast<float>(random >> 20);
      for (TokenId token = 0; token < kWidth; ++token) {
        of_beam.beam.candidates.push_back({token, false, best - 0.01f * token, 0, 0});
      }
    }
    const std::size_t before_commit = num_allocations;
    scheduler->commit(std::move(result), output);
    if (i >= kWarmup) allocated += num_allocations - before_commit + after_plan - before_plan;
  }
  EXPECT_GT(scheduler->stats().forks, static_cast<std::uint64_t>(kSteps * kRequests));
  EXPECT_GT(scheduler->stats().copy_on_writes, static_cast<std::uint64_t>(kSteps * kRequests / 2));
  EXPECT_LT(allocated, static_cast<std::size_t>(kSeqs * 12));
}

}  // namespace
}  // namespace pagemill
