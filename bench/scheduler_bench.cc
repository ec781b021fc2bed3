// The cost of a decode step beside the model: planning, committing, and what the runner keeps for
// each sequence; prefix hashes.
#include <benchmark/benchmark.h>

#include <chrono>
#include <numeric>

#include "kv/prefix_hash.h"
#include "runner/model_runner.h"
#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

// num_seqs that run, of 100 tenants, and num_waiting behind them.
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
    request.params.make_greedy();
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

// Args: sequences, requests that wait for a place, policy.
void decode_step_with_queue(benchmark::State& state) {
  const auto policy = static_cast<SchedulingPolicy>(state.range(2));
  measure_steps(state, make_scheduler(state.range(0), 100, policy, state.range(1)));
}
BENCHMARK(decode_step_with_queue)
    ->ArgNames({"seqs", "waiting", "policy"})
    ->ArgsProduct({{256},
                   {1, 10000},
                   {static_cast<int>(SchedulingPolicy::kFcfs),
                    static_cast<int>(SchedulingPolicy::kPriority),
                    static_cast<int>(SchedulingPolicy::kFair)}})
    ->UseManualTime()
    ->Iterations(4000)
    ->Unit(benchmark::kMicrosecond);

// Computes nothing: what is left of a step is overhead.
class NoModel final : public Model {
 public:
  explicit NoModel(const KvSpec& kv) {
    spec_.hidden_size = 1;
    spec_.vocab_size = 16;
    spec_.kv_specs = {kv};
  }
  const ModelSpec& spec() const override { return spec_; }
  void forward(const ForwardBatch& batch, KvStorage&, float*) override {
    benchmark::DoNotOptimize(batch.token_ids.data());
  }
  void logits(const float*, std::int64_t num_rows, float* logits) override {
    std::fill_n(logits, num_rows * spec_.vocab_size, 0.0f);
  }

 private:
  ModelSpec spec_;
};

// The whole step of greedy sequences: plan, batch, sampling from 16 tokens, commit.
// Args: sequences, requests that wait for a place.
void whole_step(benchmark::State& state) {
  const auto num_seqs = static_cast<std::int32_t>(state.range(0));
  auto scheduler = make_scheduler(
      num_seqs, 100, SchedulingPolicy::kFcfs, static_cast<std::int32_t>(state.range(1)));
  const KvSpec kv{.kind = KvKind::kFull,
                  .layers = {0},
                  .num_kv_heads = 1,
                  .head_size = 2,
                  .window = 0,
                  .bytes_per_token = 8};
  NoModel model(kv);
  ThreadPool pool(1);
  ModelRunner runner(
      model,
      KvStorage::create(model.spec().kv_specs, DType::kBF16, 16, num_seqs * 607 + 1).value(),
      pool,
      choose_isa().value(),
      {.max_num_batched_tokens = num_seqs * 100, .max_num_seqs = num_seqs, .eos_token_ids = {}});
  StepPlan plan;
  StepOutput output;
  const auto step = [&] {
    scheduler->plan(plan);
    runner.submit(plan);
    scheduler->commit(std::move(runner.wait()), output);
  };
  step();
  for (auto _ : state) step();
  state.SetItemsProcessed(state.iterations() * num_seqs);
}
BENCHMARK(whole_step)
    ->ArgNames({"seqs", "waiting"})
    ->Args({1, 0})
    ->Args({256, 0})
    ->Args({256, 10000})
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
