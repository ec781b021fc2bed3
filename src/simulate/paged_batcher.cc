// The engine's own scheduler; only the tokens are made up.
#include <limits>

#include "scheduler/scheduler.h"
#include "simulate/batcher.h"

namespace pagemill {
namespace {

class PagedBatcher final : public Batcher {
 public:
  PagedBatcher(std::unique_ptr<Scheduler> scheduler, const Trace& trace)
      : trace_(trace), scheduler_(std::move(scheduler)) {}

  Status add(std::int32_t index) override {
    const TraceRequest& from = trace_.requests[index];
    Request request;
    request.id = static_cast<RequestId>(index) + 1;
    request.prompt_token_ids.reserve(from.input_tokens);
    for (std::int32_t p = 0; p < from.input_tokens; ++p) {
      request.prompt_token_ids.push_back(trace_.token(index, p));
    }
    request.params.max_tokens = from.output_tokens;
    request.params.ignore_eos = true;
    request.params.seed = static_cast<std::uint64_t>(index);  // comes back with a create
    return scheduler_->add_request(std::move(request));
  }

  bool plan(StepLoad& load) override {
    load = {};
    scheduler_->plan(plan_);
    // A plan may hold nothing but the ends of sequences.
    while (!plan_.empty() && plan_.sequences.empty()) {
      std::vector<TokenEvent> none;
      commit(0, none);
      scheduler_->plan(plan_);
    }
    for (const SequenceStep& share : plan_.sequences) {
      const auto begin = share.num_computed_tokens;
      load.add_chunk(begin, begin + static_cast<std::int64_t>(share.token_ids.size()));
    }
    return !plan_.empty();
  }

  void commit(double seconds, std::vector<TokenEvent>& events) override {
    for (const SequenceCreate& create : plan_.creates) {
      requests_[create.seq] = static_cast<std::int32_t>(create.seed);
    }
    StepResult result{plan_.step_id, {}};
    result.seconds = seconds;
    result.sequences.reserve(plan_.sequences.size());
    for (const SequenceStep& share : plan_.sequences) {
      SequenceResult& of = result.sequences.emplace_back();
      of.seq = share.seq;
      if (!share.sample()) continue;
      const auto position =
          share.num_computed_tokens + static_cast<std::int32_t>(share.token_ids.size());
      of.samples.push_back({trace_.token(requests_.at(share.seq), position), {}});
    }
    for (const SeqId seq : plan_.drops) requests_.erase(seq);
    scheduler_->commit(std::move(result), output_);
    for (const SequenceEvent& event : output_.events) {
      events.push_back({static_cast<std::int32_t>(event.request - 1), event.request_finished});
    }
  }

  std::int32_t num_running() const override { return scheduler_->stats().num_running_requests; }
  std::int32_t num_waiting() const override { return scheduler_->stats().num_waiting_requests; }

  MemoryUse memory() const override {
    const BlockPoolStats blocks = scheduler_->stats().blocks;
    const std::int64_t block_size = scheduler_->config().block_size;
    MemoryUse use;
    use.total = (blocks.total - 1) * block_size;
    use.internal = blocks.empty_slots;
    use.tokens = blocks.referenced * block_size - blocks.empty_slots;
    use.cached = blocks.cached * block_size;
    return use;
  }

  BatchCounters counters() const override {
    const SchedulerStats stats = scheduler_->stats();
    return {stats.preemptions, stats.prompt_tokens, stats.prefix_cache_hits};
  }

  void check_invariants() const override { scheduler_->check_invariants(); }

 private:
  const Trace& trace_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unordered_map<SeqId, std::int32_t> requests_;  // sequence -> index in the trace
  StepPlan plan_;
  StepOutput output_;
};

}  // namespace

Result<std::unique_ptr<Batcher>> make_paged_batcher(const BatcherConfig& config,
                                                    const Trace& trace,
                                                    bool admission_headroom) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max() / 2;
  SchedulerConfig scheduler;
  scheduler.kv_groups.resize(1);
  scheduler.block_size = std::max(config.block_size, 1);
  scheduler.num_blocks =
      static_cast<std::int32_t>(std::min(config.kv_slots / scheduler.block_size + 1, kMax));
  scheduler.max_model_len = config.max_model_len;
  scheduler.max_num_seqs = config.max_num_seqs;
  scheduler.max_num_batched_tokens = config.max_num_batched_tokens;
  scheduler.admission_headroom = admission_headroom;
  scheduler.target_itl_s = config.target_itl_s;
  scheduler.max_queued_requests = static_cast<std::int32_t>(kMax);
  scheduler.enable_prefix_caching = config.enable_prefix_caching && trace.hash_block_tokens > 0;
  PM_ASSIGN(auto created, Scheduler::create(std::move(scheduler)));
  return std::unique_ptr<Batcher>(std::make_unique<PagedBatcher>(std::move(created), trace));
}

}  // namespace pagemill
