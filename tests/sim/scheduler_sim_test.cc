// Random workloads on the scheduler with a fake model: tens of thousands of steps, each checked.
//
// PM_SIM_SCALE multiplies the number of scenarios (default 1); PM_SIM_SEED runs one scenario alone.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "simulate/simulation.h"

namespace pagemill {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kScenarios = 50;  // some twenty times slower
#else
constexpr std::uint64_t kScenarios = 400;
#endif

std::uint64_t current_seed = 0;

// A failed check aborts: say where to look.
void print_seed(int) {
  char text[64];
  const int length = std::snprintf(
      text, sizeof text, "PM_SIM_SEED=%llu\n", static_cast<unsigned long long>(current_seed));
  if (write(STDERR_FILENO, text, length) < 0) _exit(1);
}

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  // low..high, both included.
  std::int32_t between(std::int32_t low, std::int32_t high) {
    return low + static_cast<std::int32_t>(engine_() % (std::uint64_t(high) - low + 1));
  }
  bool chance(double probability) { return engine_() % 1000000 < probability * 1000000; }
  template <typename T>
  const T& pick(const std::vector<T>& choices) {
    return choices[engine_() % choices.size()];
  }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

KvSpec group_of(std::int32_t window) {
  KvSpec group;
  group.kind = window > 0 ? KvKind::kWindowed : KvKind::kFull;
  group.window = window;
  return group;
}

struct Scenario {
  Simulation::Options options;
  double arrival_rate = 0.5, abort_rate = 0, finish_rate = 0, fail_rate = 0, beam_rate = 0,
         reset_rate = 0;
  std::int32_t num_requests = 40, max_prompt = 60, max_output = 40, max_n = 1;
  std::vector<std::vector<TokenId>> shared_prefixes;
};

Scenario draw_scenario(Dice& dice) {
  Scenario s;
  SchedulerConfig& config = s.options.scheduler;
  config.block_size = dice.pick<std::int32_t>({1, 2, 4, 8, 16});
  config.max_model_len = dice.between(20, 200);
  config.max_num_batched_tokens = dice.pick<std::int32_t>({1, 2, 3, 7, 16, 64, 256, 2048});
  config.max_num_seqs = dice.pick<std::int32_t>({1, 2, 4, 8, 32});
  config.enable_prefix_caching = dice.chance(0.7);
  config.policy = dice.pick<SchedulingPolicy>(
      {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority, SchedulingPolicy::kFair});
  config.max_queued_requests = dice.chance(0.1) ? 3 : 1000;
  config.eos_token_ids = {0, 1};
  config.kv_groups = {group_of(0)};
  if (dice.chance(0.35)) config.kv_groups.push_back(group_of(dice.between(1, 40)));
  if (dice.chance(0.1)) config.kv_groups.push_back(group_of(dice.between(1, 100)));
  s.options.vocab_size = dice.pick<std::int32_t>({20, 50, 1000});
  s.options.depth = dice.chance(0.4) ? 2 : 1;
  s.max_prompt = dice.between(1, config.max_model_len - 1);
  s.max_output = dice.between(1, config.max_model_len);
  s.max_n = dice.chance(0.5) ? dice.between(1, std::min(8, config.max_num_seqs)) : 1;
  // From just enough for the largest request up to plenty.
  const std::int32_t per_sequence = config.max_model_len / config.block_size + 1;
  const auto num_groups = static_cast<std::int32_t>(config.kv_groups.size());
  config.num_blocks =
      2 + static_cast<std::int32_t>(num_groups * per_sequence *
                                    dice.pick<double>({0.7, 1.0, 1.3, 2.0, 4.0, 16.0}));
  if (config.enable_prefix_caching && dice.chance(0.6)) {
    for (std::int32_t i = 0; i < num_groups; ++i) config.tier_block_bytes.push_back(10 + i);
    config.tier_bytes = dice.pick<std::int64_t>({15, 100, 1000, 100000});
    config.preemption = dice.pick<PreemptionMode>(
        {PreemptionMode::kRecompute, PreemptionMode::kSwap, PreemptionMode::kAuto});
    if (dice.chance(0.3)) s.options.tier_lost = 0.2;
    if (dice.chance(0.3)) s.options.tier_broken = 0.2;
  }
  if (dice.chance(0.2)) {
    config.reservation =
        dice.pick<Reservation>({Reservation::kMax, Reservation::kPowerOfTwo, Reservation::kOracle});
  }
  if (dice.chance(0.3)) config.target_itl_s = dice.pick<double>({1e-4, 4e-3, 1e-1});
  s.arrival_rate = dice.pick<double>({0.05, 0.3, 1.0, 3.0});
  if (dice.chance(0.5)) s.abort_rate = 0.03;
  if (dice.chance(0.5)) s.finish_rate = 0.03;
  if (dice.chance(0.3)) s.fail_rate = 0.01;
  s.beam_rate = dice.pick<double>({0, 0.1, 0.5, 1});
  if (dice.chance(0.2)) s.reset_rate = 0.02;
  for (int i = 0; i < 3; ++i) {
    auto& prefix = s.shared_prefixes.emplace_back();
    const std::int32_t length = dice.between(0, s.max_prompt);
    for (std::int32_t k = 0; k < length; ++k) {
      prefix.push_back(dice.between(0, s.options.vocab_size - 1));
    }
  }
  return s;
}

void draw_beam_search(Dice& dice, const Scenario& s, SamplingParams& params) {
  params.use_beam_search = true;
  params.make_greedy();
  params.best_of.reset();
  if (dice.chance(0.7)) params.beam_width = dice.between(params.n, std::max(params.n, s.max_n));
  params.length_penalty = dice.pick<float>({1.0f, 1.0f, 0.0f, 2.0f, -1.0f, 0.5f});
  params.early_stopping = dice.pick<EarlyStopping>(
      {EarlyStopping::kFalse, EarlyStopping::kTrue, EarlyStopping::kNever});
}

Request draw_request(Dice& dice, const Scenario& s, RequestId id) {
  Request request;
  request.id = id;
  auto& prompt = request.prompt_token_ids;
  const std::int32_t length = dice.between(1, s.max_prompt);
  if (dice.chance(0.6)) prompt = dice.pick(s.shared_prefixes);
  if (dice.chance(0.7) || prompt.empty()) {
    prompt.resize(std::min<std::size_t>(prompt.size(), length));
    while (static_cast<std::int32_t>(prompt.size()) < length) {
      prompt.push_back(dice.between(0, s.options.vocab_size - 1));
    }
  }
  SamplingParams& params = request.params;
  params.seed = dice.between(0, 3);
  params.max_tokens = dice.between(1, s.max_output);
  params.n = dice.between(1, s.max_n);
  if (dice.chance(0.2)) params.best_of = std::min(s.max_n, params.n + 1);
  if (params.best_of && *params.best_of < params.n) params.best_of.reset();
  if (dice.chance(s.beam_rate)) draw_beam_search(dice, s, params);
  params.ignore_eos = dice.chance(0.5);
  params.min_tokens = dice.chance(0.3) ? dice.between(0, params.max_tokens) : 0;
  if (dice.chance(0.3)) params.stop_token_ids = {1, 5};
  if (dice.chance(0.15)) params.prompt_logprobs = dice.between(0, 5);
  request.priority = dice.between(-2, 2);
  request.user = std::to_string(dice.between(0, 3));
  if (dice.chance(0.2)) request.cache_salt = "other tenant";
  return request;
}

struct Totals {
  std::uint64_t scenarios = 0, steps = 0, preemptions = 0, hits = 0, resumed_hits = 0,
                copied_hits = 0, chunked = 0, copies = 0, forks = 0, evictions = 0, refused = 0,
                queue_full = 0, finished = 0, aborted = 0, failed = 0, stopped = 0,
                depth2_preemptions = 0, saves = 0, loads = 0, failed_loads = 0, resumed_loads = 0,
                flushed = 0;
  // Of scenarios with beam searches alone.
  std::uint64_t beam_preemptions = 0, beam_hits = 0, beam_copies = 0, beam_aborted = 0;
  std::uint64_t hypotheses = 0;

  void add(const Simulation& simulation, const Scenario& s) {
    const SchedulerStats stats = simulation.scheduler().stats();
    ++scenarios;
    steps += stats.steps;
    preemptions += stats.preemptions;
    if (s.options.depth > 1) depth2_preemptions += stats.preemptions;
    hits += stats.prefix_cache_hits;
    resumed_hits += stats.resumed_hits;
    copied_hits += stats.copied_hits;
    chunked += stats.chunked_prefills;
    copies += stats.copy_on_writes;
    forks += stats.forks;
    evictions += stats.blocks.evictions;
    saves += stats.tier_saves;
    loads += stats.tier_loads;
    failed_loads += stats.tier_failed_loads;
    resumed_loads += stats.resumed_loads;
    const bool only_beams = s.beam_rate == 1;
    if (only_beams) {
      beam_preemptions += stats.preemptions;
      beam_hits += stats.prefix_cache_hits + stats.resumed_hits;
      beam_copies += stats.copy_on_writes;
    }
    for (const auto& [id, sequences] : simulation.finished()) {
      for (const auto& sequence : sequences) {
        hypotheses += !sequence.beam_tokens.empty();
        beam_aborted += only_beams && sequence.reason == FinishReason::kAbort;
        aborted += sequence.reason == FinishReason::kAbort;
        failed += sequence.reason == FinishReason::kError;
        stopped += sequence.reason == FinishReason::kStop;
        finished += sequence.reason == FinishReason::kLength;
      }
    }
  }
};

void disturb(Dice& dice, const Scenario& s, Simulation& simulation) {
  if (dice.chance(s.reset_rate)) simulation.reset_prefix_cache();
  const auto ids = simulation.alive_requests();
  if (ids.empty()) return;
  if (dice.chance(s.abort_rate)) simulation.abort(dice.pick(ids));
  if (dice.chance(s.finish_rate)) {
    const RequestId id = dice.pick(ids);
    const auto indices = simulation.alive_sequences(id);
    if (!indices.empty()) simulation.finish_sequence(id, dice.pick(indices));
  }
  if (dice.chance(s.fail_rate)) simulation.fail_next(dice.pick(ids));
}

void run_scenario(std::uint64_t seed, Totals& totals) {
  current_seed = seed;
  Dice dice(seed);
  const Scenario s = draw_scenario(dice);
  Simulation simulation(s.options);
  RequestId next_id = 1;
  double due = 0;
  while (next_id <= static_cast<RequestId>(s.num_requests)) {
    due += s.arrival_rate;
    while (due >= 1 && next_id <= static_cast<RequestId>(s.num_requests)) {
      --due;
      const Status status = simulation.add(draw_request(dice, s, next_id++));
      if (status.ok()) continue;
      const bool full = status.error().code == ErrorCode::kResourceExhausted;
      ASSERT_TRUE(full || status.error().code == ErrorCode::kInvalidArgument);
      ++(full ? totals.queue_full : totals.refused);
    }
    simulation.step();
    disturb(dice, s, simulation);
  }
  // No starvation: even one token a step, everything recomputed often, ends in bounded time.
  simulation.run(2000000);
  simulation.check_all_freed();
  const std::uint64_t num_saved = simulation.scheduler().stats().tier_saves;
  simulation.flush();
  simulation.check_all_freed();
  totals.flushed += simulation.scheduler().stats().tier_saves - num_saved;
  totals.add(simulation, s);
}

TEST(SchedulerSimulation, RandomWorkloads) {
  signal(SIGABRT, print_seed);
  const char* scale = std::getenv("PM_SIM_SCALE");
  const char* only = std::getenv("PM_SIM_SEED");
  const std::uint64_t num_scenarios =
      kScenarios * (scale != nullptr ? std::strtoull(scale, nullptr, 10) : 1);
  Totals totals;
  for (std::uint64_t i = 0; i < num_scenarios; ++i) {
    const std::uint64_t seed = only != nullptr ? std::strtoull(only, nullptr, 10) : 20261122 + i;
    try {
      run_scenario(seed, totals);
    } catch (const SimulationError& error) {
      FAIL() << error.what() << "  PM_SIM_SEED=" << seed;
    }
    if (only != nullptr) return;
  }
  std::printf(
      "%llu scenarios, %llu steps: %llu preemptions (%llu with two steps in flight), %llu tokens "
      "hit, %llu after preemption, %llu of both by copy, %llu chunked prefills, %llu copies on "
      "write, %llu forks, %llu "
      "evictions, %llu refused, %llu queue full; sequences: %llu length, %llu stop, %llu aborted, "
      "%llu failed; second tier: %llu saves (%llu at the end), %llu loads, %llu failed, %llu "
      "tokens after preemption; %llu hypotheses of beam searches, alone with %llu preemptions, "
      "%llu "
      "tokens hit, %llu copies on write, %llu aborted\n",
      static_cast<unsigned long long>(totals.scenarios),
      static_cast<unsigned long long>(totals.steps),
      static_cast<unsigned long long>(totals.preemptions),
      static_cast<unsigned long long>(totals.depth2_preemptions),
      static_cast<unsigned long long>(totals.hits),
      static_cast<unsigned long long>(totals.resumed_hits),
      static_cast<unsigned long long>(totals.copied_hits),
      static_cast<unsigned long long>(totals.chunked),
      static_cast<unsigned long long>(totals.copies),
      static_cast<unsigned long long>(totals.forks),
      static_cast<unsigned long long>(totals.evictions),
      static_cast<unsigned long long>(totals.refused),
      static_cast<unsigned long long>(totals.queue_full),
      static_cast<unsigned long long>(totals.finished),
      static_cast<unsigned long long>(totals.stopped),
      static_cast<unsigned long long>(totals.aborted),
      static_cast<unsigned long long>(totals.failed),
      static_cast<unsigned long long>(totals.saves),
      static_cast<unsigned long long>(totals.flushed),
      static_cast<unsigned long long>(totals.loads),
      static_cast<unsigned long long>(totals.failed_loads),
      static_cast<unsigned long long>(totals.resumed_loads),
      static_cast<unsigned long long>(totals.hypotheses),
      static_cast<unsigned long long>(totals.beam_preemptions),
      static_cast<unsigned long long>(totals.beam_hits),
      static_cast<unsigned long long>(totals.beam_copies),
      static_cast<unsigned long long>(totals.beam_aborted));
  EXPECT_GT(totals.hypotheses, 2000u * kScenarios / 400);
  EXPECT_GT(totals.beam_preemptions, 100u * kScenarios / 400);
  EXPECT_GT(totals.beam_hits, 1000u * kScenarios / 400);
  EXPECT_GT(totals.beam_copies, 50u * kScenarios / 400);  // most come from a few scenarios
  EXPECT_GT(totals.beam_aborted, 30u * kScenarios / 400);
  EXPECT_GT(totals.steps, 40000u * kScenarios / 400);
  EXPECT_GT(totals.preemptions, 500u * kScenarios / 400);
  EXPECT_GT(totals.depth2_preemptions, 100u * kScenarios / 400);
  EXPECT_GT(totals.hits, 1000u * kScenarios / 400);
  EXPECT_GT(totals.resumed_hits, 1000u * kScenarios / 400);
  EXPECT_GT(totals.copied_hits, 1000u * kScenarios / 400);
  EXPECT_GT(totals.chunked, 1000u * kScenarios / 400);
  EXPECT_GT(totals.copies, 500u * kScenarios / 400);
  EXPECT_GT(totals.forks, 500u * kScenarios / 400);
  EXPECT_GT(totals.evictions, 1000u * kScenarios / 400);
  EXPECT_GT(totals.refused, 10u * kScenarios / 400);
  EXPECT_GT(totals.queue_full, 10u * kScenarios / 400);
  EXPECT_GT(totals.finished, 1000u * kScenarios / 400);
  EXPECT_GT(totals.stopped, 1000u * kScenarios / 400);
  EXPECT_GT(totals.aborted, 100u * kScenarios / 400);
  EXPECT_GT(totals.failed, 10u * kScenarios / 400);
  EXPECT_GT(totals.flushed, 100u * kScenarios / 400);
  EXPECT_GT(totals.loads, 500u * kScenarios / 400);
  EXPECT_GT(totals.failed_loads, 50u * kScenarios / 400);
  EXPECT_GT(totals.resumed_loads, 250u * kScenarios / 400);
}

}  // namespace
}  // namespace pagemill
