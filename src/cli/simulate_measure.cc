#include "cli/simulate_measure.h"

#include <algorithm>
#include <cmath>

#include "cli/bench_workload.h"
#include "engine/engine_client.h"

namespace pagemill::cli {
namespace {

struct Batch {
  std::int32_t num_seqs, prompt, output;
};

// Small and large batches, short and long contexts, prompts and decoding.
constexpr Batch kBatches[] = {
    {1, 16, 32}, {8, 16, 24}, {32, 16, 16}, {1, 512, 2}, {4, 128, 2}, {1, 1200, 24}, {4, 400, 16}};
constexpr int kRepeats = 3;

std::vector<WorkloadItem> items_of(const Batch& batch, std::int32_t vocab_size) {
  std::vector<WorkloadItem> items(batch.num_seqs);
  for (std::int32_t i = 0; i < batch.num_seqs; ++i) {
    items[i].output_len = batch.output;
    for (std::int32_t t = 0; t < batch.prompt; ++t) {
      items[i].prompt_token_ids.push_back((i * 7919 + t * 104729 + 1) % vocab_size);
    }
  }
  return items;
}

// However the engine cuts the prompts into steps, tokens and pairs come to the same.
Result<CostSample> measure(EngineClient& engine, const Batch& batch) {
  SamplingParams params;
  params.temperature = 0;
  const EngineStats before = engine.stats();
  const RunMeasure run = run_workload(engine, items_of(batch, engine.model().vocab_size), params);
  const EngineStats after = engine.stats();
  if (run.num_failed > 0) return io_error("--measure: a request failed: " + run.first_failure);
  const double length = batch.prompt + batch.output - 1;
  return CostSample{static_cast<double>(after.steps - before.steps),
                    batch.num_seqs * length,
                    batch.num_seqs * length * (length + 1) / 2,
                    after.step_seconds - before.step_seconds};
}

}  // namespace

Result<MeasuredMachine> measure_machine(EngineOptions options) {
  options.enable_prefix_caching = false;
  PM_ASSIGN(const auto engine, EngineClient::start(options));
  PM_TRY(measure(*engine, kBatches[0]));  // warm: pages of the KV cache and of the scratch
  MeasuredMachine measured;
  for (const Batch& batch : kBatches) {
    if (batch.prompt + batch.output > engine->model().max_model_len) continue;
    // The fastest: what else the machine does only adds time.
    CostSample best;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      PM_ASSIGN(const CostSample sample, measure(*engine, batch));
      if (repeat == 0 || sample.seconds < best.seconds) best = sample;
    }
    measured.samples.push_back(best);
  }
  PM_ASSIGN(const LinearCost cost, fit_cost(measured.samples));
  for (const CostSample& sample : measured.samples) {
    measured.worst_error =
        std::max(measured.worst_error, std::abs(sample.predicted(cost) / sample.seconds - 1));
  }
  const EngineStats stats = engine->stats();
  measured.machine = {options.model,
                      cost,
                      std::int64_t{stats.num_blocks - 1} * options.block_size,
                      engine->model().max_model_len};
  return measured;
}

}  // namespace pagemill::cli
