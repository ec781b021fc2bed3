// The control plane's cost: planning and committing decode steps, admission, prefix hashes.
#include <benchmark/benchmark.h>

#include <chrono>
#include <numeric>

#include "kv/prefix_hash.h"
#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

// num_seqs that run, of 100 tenants, and under the fair policy num_waiting behind them.
std::unique_ptr<Scheduler> make_scheduler(std::int32_t num_seqs,
                                          std::int32_t context,
                                          SchedulingPolicy policy = SchedulingPolicy::kFcfs,
                                          std::int32_t num_waiting = 0) {
  SchedulerConfig config;
  config.kv_groups.resize(1);
  config.max_model_len = 1 << 24;
  config.num_blocks = num_seqs * (context / 16 + 600) + 1;
  config.max_num_batched_tokens = 1 << 28;
  config.max_num_seqs = num_seqs;
  config.max_queued_requests = num_seqs + num_waiting;
  config.policy = policy;
  auto scheduler = Scheduler::create(config).value();
  for (std::int32_t i = 1; i <= num_seqs + num_waiting; ++i) {
    const auto id = static_cast<RequestId>(i);
    Request request;
    request.id = id;
    request.user = std::to_string(id % 100);
    request.prompt_token_ids.assign(context, static_cast<TokenId>(id));
    request.params.max_tokens = 9000;
    if (!scheduler->add_request(std::move(request)).ok()) std::abort();
  }
  return scheduler;
}

StepResult answer(const StepPlan& plan) {
  StepResult result{plan.step_id, {}};
  result.sequences.reserve(plan.sequences.size());
  for (const SequenceStep& share : plan.sequences) {
    result.sequences.push_back({share.seq, {SampledToken{5, {}}}});
  }
  return result;
}

// The runner's StepResult is made outside the measured time.
void measure_steps(benchmark::State& state, std::unique_ptr<Scheduler> scheduler) {
  StepPlan plan;
  StepOutput output;
  scheduler->plan(plan);
  scheduler->commit(answer(plan), output);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    scheduler->plan(plan);
    const auto planned = std::chrono::steady_clock::now();
    StepResult result = answer(plan);
    const auto answered = std::chrono::steady_clock::now();
    scheduler->commit(std::move(result), output);
    const auto end = std::chrono::steady_clock::now();
    state.SetIterationTime(
        std::chrono::duration<double>(end - answered + (planned - start)).count());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// Args: sequences, context tokens.
void decode_step(benchmark::State& state) {
  measure_steps(state, make_scheduler(state.range(0), state.range(1)));
}
BENCHMARK(decode_step)
    ->Args({1, 1000})
    ->Args({256, 100})
    ->Args({256, 4000})
    ->UseManualTime()
    ->Iterations(4000)
    ->Unit(benchmark::kMicrosecond);

// Args: sequences, requests that wait for a place.
void fair_decode_step(benchmark::State& state) {
  measure_steps(state,
                make_scheduler(state.range(0), 100, SchedulingPolicy::kFair, state.range(1)));
}
BENCHMARK(fair_decode_step)
    ->Args({256, 1})
    ->Args({256, 10000})
    ->UseManualTime()
    ->Iterations(4000)
    ->Unit(benchmark::kMicrosecond);

void hash_block_of_tokens(benchmark::State& state) {
  std::vector<TokenId> tokens(state.range(0));
  std::iota(tokens.begin(), tokens.end(), 0);
  Digest digest;
  for (auto _ : state) benchmark::DoNotOptimize(digest = hash_block(digest, tokens));
}
BENCHMARK(hash_block_of_tokens)->Arg(16)->Arg(32);

}  // namespace
}  // namespace pagemill

BENCHMARK_MAIN();
