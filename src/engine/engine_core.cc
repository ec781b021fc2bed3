#include "engine/engine_core.h"

#include <pthread.h>

#include <chrono>
#include <exception>

#include "base/clock.h"
#include "base/logging.h"

namespace pagemill {
namespace {

// Steps that the output thread may lag behind before the engine waits for it.
constexpr std::size_t kMaxQueuedOutputs = 256;

void name_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

}  // namespace

EngineCore::EngineCore(std::unique_ptr<Scheduler> scheduler,
                       std::unique_ptr<ModelRunner> runner,
                       std::shared_ptr<const Tokenizer> tokenizer,
                       std::unique_ptr<Tracer> tracer)
    : scheduler_(std::move(scheduler)),
      runner_(std::move(runner)),
      output_(std::move(tokenizer),
              [this](RequestId request, std::int32_t index) {
                push_command({Command::Kind::kFinishSequence, request, index, {}});
              }),
      max_queued_requests_(scheduler_->config().max_queued_requests),
      outputs_(kMaxQueuedOutputs),
      tracer_(std::move(tracer)) {
  update_stats(0);
}

EngineCore::~EngineCore() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (engine_thread_.joinable()) engine_thread_.join();
  outputs_.close();
  if (output_thread_.joinable()) output_thread_.join();
  if (tracer_) spdlog::info("profile {}", tracer_->finish());
}

void EngineCore::start() {
  engine_thread_ = std::thread([this] { engine_loop(); });
  output_thread_ = std::thread([this] { output_loop(); });
}

void EngineCore::push_command(Command command) {
  {
    std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
}

Status EngineCore::submit(Request request, EngineClient::OnDelta on_delta, bool hide_logprobs) {
  Command command{Command::Kind::kSubmit, request.id, 0, {}};
  command.submission.request = std::move(request);
  command.submission.hide_logprobs = hide_logprobs;
  command.submission.on_delta = [this, on_delta = std::move(on_delta)](const RequestDelta& delta) {
    on_delta(delta);
    if (!delta.finished) return;
    std::lock_guard lock(active_mutex_);
    if (--num_active_ == 0) idle_.notify_all();
  };
  {
    std::lock_guard lock(mutex_);
    if (draining_ || stopping_) {
      return Error{
          ErrorCode::kUnavailable, "the engine is shutting down and takes no new requests", {}};
    }
    if (stats_.num_requests_waiting + num_submitted_ >= max_queued_requests_) {
      return Error{
          ErrorCode::kResourceExhausted,
          fmt::format("{} requests are waiting already (--max-queued-requests); try again later",
                      max_queued_requests_),
          {}};
    }
    {
      std::lock_guard active_lock(active_mutex_);
      ++num_active_;
    }
    ++num_submitted_;
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
  return ok_status();
}

void EngineCore::abort(RequestId id) { push_command({Command::Kind::kAbort, id, 0, {}}); }

void EngineCore::reset_prefix_cache() {
  push_command({Command::Kind::kResetPrefixCache, 0, 0, {}});
}

bool EngineCore::drain(double timeout_s) {
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  std::unique_lock lock(active_mutex_);
  return idle_.wait_for(
      lock, std::chrono::duration<double>(timeout_s), [this] { return num_active_ == 0; });
}

EngineStats EngineCore::stats() const {
  std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.num_requests_waiting += num_submitted_;
  return stats;
}

bool EngineCore::wait_for_work(std::vector<Command>& commands) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !inbox_.empty() || scheduler_->has_work(); });
  commands.swap(inbox_);
  return !stopping_;
}

void EngineCore::engine_loop() {
  name_thread("pm-engine");
  const ActiveTracer active(tracer_.get());
  std::vector<Command> commands;
  while (wait_for_work(commands)) {
    if (tracer_) tracer_->begin_step();
    trace_phase("take_in");
    trace_args_.clear();
    OutputBatch batch;
    apply(commands, batch);
    commands.clear();
    if (scheduler_->has_work()) {
      run_step(batch);
    } else {
      update_stats(0);
    }
    trace_phase("publish");
    push_output(std::move(batch));
    if (!tracer_) continue;
    tracer_->end_step(trace_args_);
    if (!scheduler_->has_work()) tracer_->flush();
  }
  // What came too late for a step is made known as well, so that the output thread can end it.
  OutputBatch late;
  apply(commands, late);
  push_output(std::move(late));
  flush_tier();
}

void EngineCore::apply(std::vector<Command>& commands, OutputBatch& batch) {
  for (Command& command : commands) {
    switch (command.kind) {
      case Command::Kind::kSubmit:
        apply_submit(command, batch);
        break;
      case Command::Kind::kAbort:
        if (scheduler_->abort(command.request)) batch.ended.push_back({command.request, {}});
        break;
      case Command::Kind::kFinishSequence:
        scheduler_->finish_sequence(command.request, command.sequence_index);
        break;
      case Command::Kind::kResetPrefixCache:
        scheduler_->reset_prefix_cache();
        break;
    }
  }
}

void EngineCore::apply_submit(Command& command, OutputBatch& batch) {
  {
    std::lock_guard lock(mutex_);
    --num_submitted_;
    ++stats_.num_requests_waiting;  // until the next snapshot
  }
  const Status added = scheduler_->add_request(command.submission.request);
  batch.started.push_back(std::move(command.submission));
  if (!added.ok()) batch.ended.push_back({command.request, added.error()});
}

void EngineCore::run_step(OutputBatch& batch) {
  trace_phase("plan");
  const double begin = monotonic_seconds();
  scheduler_->plan(plan_);
  if (tracer_) describe_step();
  batch.plan_time = begin;
  if (plan_.empty()) return;
  for (const Admission& admission : scheduler_->newly_admitted()) {
    batch.admitted.push_back({admission.request, admission.num_cached_tokens});
  }
  const double loaded_before = runner_->tier() ? runner_->tier()->stats().load_seconds : 0;
  execute();
  trace_phase("publish");
  batch.commit_time = monotonic_seconds();
  if (runner_->tier()) {
    update_costs(batch.commit_time - begin, runner_->tier()->stats().load_seconds - loaded_before);
  }
  for (const Admission& loaded : step_output_.loaded) {
    batch.loaded.push_back({loaded.request, loaded.num_cached_tokens});
  }
  for (const SequenceEvent& event : step_output_.events) {
    num_generated_ += event.sampled ? 1 : 0;
    const bool corrupted = event.failure == StepFailure::kNonFinite && event.request_finished;
    num_corrupted_ += corrupted ? 1 : 0;
  }
  if (plan_.num_tokens > 0) iteration_tokens_.add_step(plan_.num_tokens);
  batch.prompt_logprobs.swap(step_output_.prompt_logprobs);
  batch.events.swap(step_output_.events);
  update_stats(batch.commit_time - begin);
}

void EngineCore::describe_step() {
  std::size_t num_prefill_tokens = 0;  // those that come several at a time
  for (const SequenceStep& step : plan_.sequences) {
    if (step.token_ids.size() > 1) num_prefill_tokens += step.token_ids.size();
  }
  const std::uint64_t preemptions = scheduler_->stats().preemptions;
  trace_args_ = {{"step", static_cast<std::int64_t>(plan_.step_id)},
                 {"sequences", static_cast<std::int64_t>(plan_.sequences.size())},
                 {"tokens", plan_.num_tokens},
                 {"prefill_tokens", static_cast<std::int64_t>(num_prefill_tokens)},
                 {"preemptions", static_cast<std::int64_t>(preemptions - traced_preemptions_)}};
  traced_preemptions_ = preemptions;
}

// What --preemption-mode auto compares. Small steps are left out: their time is that of reading the
// weights.
void EngineCore::update_costs(double step_seconds, double load_seconds) {
  constexpr std::int32_t kMinTokens = 64;
  constexpr double kWeight = 0.2;  // of the newest
  const auto smooth = [](double& value, double newest) {
    value = value == 0 ? newest : value + kWeight * (newest - value);
  };
  if (plan_.num_tokens >= kMinTokens) {
    smooth(seconds_per_token_, (step_seconds - load_seconds) / plan_.num_tokens);
  }
  std::size_t num_blocks = 0;
  for (const SequenceLoad& load : plan_.loads) num_blocks += load.keys.size();
  if (num_blocks > 0) smooth(seconds_per_block_, load_seconds / static_cast<double>(num_blocks));
  scheduler_->set_costs(seconds_per_token_, seconds_per_block_);
}

// What is cached when the engine ends is there when it starts again.
void EngineCore::flush_tier() {
  constexpr std::int32_t kBlocks = 64;  // at once: less than the tier's queue holds
  if (!runner_->tier()) return;
  for (;;) {
    scheduler_->plan_flush(plan_, kBlocks);
    if (plan_.empty()) return;
    execute();
    runner_->tier()->flush();
  }
}

// A step that cannot be run (memory) ends its own requests; the engine goes on.
void EngineCore::execute() {
  try {
    const double begin = monotonic_seconds();
    runner_->submit(plan_);
    StepResult& result = runner_->wait();
    result.seconds = monotonic_seconds() - begin;
    trace_phase("commit");
    scheduler_->commit(std::move(result), step_output_);
  } catch (const std::exception& error) {
    spdlog::error("step {} failed: {}", plan_.step_id, error.what());
    scheduler_->fail_step(plan_.step_id, step_output_);
  }
}

void EngineCore::push_output(OutputBatch batch) {
  const bool is_empty = batch.started.empty() && batch.admitted.empty() &&
                        batch.prompt_logprobs.empty() && batch.events.empty() &&
                        batch.ended.empty();
  if (is_empty) return;
  if (batch.commit_time == 0) batch.commit_time = monotonic_seconds();
  // NOLINTNEXTLINE(bugprone-use-after-move): a refused batch is left as it was
  while (!outputs_.try_push(std::move(batch))) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the output thread is far behind
  }
}

void EngineCore::output_loop() {
  name_thread("pm-output");
  while (auto batch = outputs_.pop_wait()) output_.process(std::move(*batch));
  output_.fail_all({ErrorCode::kUnavailable, "the engine was stopped", {}}, monotonic_seconds());
}

void EngineCore::update_stats(double step_seconds) {
  const SchedulerStats now = scheduler_->stats();
  std::lock_guard lock(mutex_);
  const double total_seconds = stats_.step_seconds + step_seconds;
  stats_.num_requests_running = now.num_running_requests;
  stats_.num_requests_waiting = now.num_waiting_requests;
  stats_.kv_cache_usage = now.kv_cache_usage;
  stats_.kv_cache_waste = now.kv_cache_waste;
  stats_.num_blocks = now.blocks.total;
  stats_.num_blocks_free = now.blocks.free;
  stats_.num_blocks_cached = now.blocks.cached;
  stats_.num_blocks_referenced = now.blocks.referenced;
  stats_.num_blocks_pinned = now.blocks.pinned;
  stats_.num_blocks_saved = now.blocks.saved;
  stats_.num_empty_slots = now.blocks.empty_slots;
  stats_.num_preemptions = now.preemptions;
  stats_.prefix_cache_queries = now.prefix_cache_queries;
  stats_.prefix_cache_hits = now.prefix_cache_hits;
  stats_.prompt_tokens = now.prompt_tokens;
  stats_.generation_tokens = num_generated_;
  stats_.steps = now.steps;
  stats_.iteration_tokens = iteration_tokens_;
  stats_.corrupted_requests = num_corrupted_;
  stats_.step_seconds = total_seconds;
  stats_.chunked_prefills = now.chunked_prefills;
  stats_.copy_on_writes = now.copy_on_writes;
  stats_.kv_use = now.kv_use;
  stats_.kv_use_full = now.kv_use_full;
  stats_.prefix_cache_copied = now.copied_hits;
  if (!runner_->tier()) return;
  const KvDiskTierStats tier = runner_->tier()->stats();
  stats_.tier_queries = now.tier_queries;
  stats_.tier_hits = now.tier_hits;
  stats_.tier_failed_loads = now.tier_failed_loads;
  stats_.tier_saved_bytes = tier.saved_bytes;
  stats_.tier_loaded_bytes = tier.loaded_bytes;
}

}  // namespace pagemill
