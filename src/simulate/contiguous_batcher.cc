// Continuous batching over contiguous reservations.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <deque>

#include "base/check.h"
#include "simulate/batcher.h"
#include "simulate/buddy_allocator.h"

namespace pagemill {
namespace {

class ContiguousBatcher final : public Batcher {
 public:
  ContiguousBatcher(BatchPolicy policy, const BatcherConfig& config, const Trace& trace)
      : policy_(policy), config_(config), trace_(trace), slots_(config.kv_slots) {}

  Status add(std::int32_t index) override {
    const std::int64_t wanted = reservation(trace_.requests[index]);
    if (wanted > slots_.largest()) {
      return invalid_argument(fmt::format(
          "a reservation of {} slots is over the largest range, {}", wanted, slots_.largest()));
    }
    waiting_.push_back(index);
    return ok_status();
  }

  bool plan(StepLoad& load) override {
    load = {};
    budget_ = config_.max_num_batched_tokens;
    auto owed = static_cast<std::int32_t>(running_.size());
    for (Running& request : running_) {
      --owed;
      // One token is kept for each running request that comes later, as the paged scheduler does.
      compute(request, std::max(std::min(budget_, 1), budget_ - owed), load);
    }
    while (budget_ > 0 && !waiting_.empty() && num_running() < config_.max_num_seqs) {
      const TraceRequest& next = trace_.requests[waiting_.front()];
      const std::int64_t wanted = reservation(next);
      const auto range = slots_.allocate(wanted);
      if (!range) break;  // first come, first served
      running_.push_back({waiting_.front(), *range, wanted});
      waiting_.pop_front();
      tokens_.prompt_tokens += next.input_tokens;
      held_.reserved += stored(next);
      held_.internal += wanted - stored(next);
      held_.rounding += range->size - wanted;
      compute(running_.back(), budget_, load);
    }
    return load.num_tokens > 0;
  }

  void commit(double /*seconds*/, std::vector<TokenEvent>& events) override {
    std::erase_if(running_, [&](Running& request) {
      const TraceRequest& of = trace_.requests[request.index];
      if (!request.samples) return false;
      request.samples = false;
      const bool finished = ++request.num_output == of.output_tokens;
      events.push_back({request.index, finished});
      if (finished) release(request);
      return finished;
    });
  }

  std::int32_t num_running() const override { return static_cast<std::int32_t>(running_.size()); }
  std::int32_t num_waiting() const override { return static_cast<std::int32_t>(waiting_.size()); }
  MemoryUse memory() const override {
    MemoryUse use = held_;
    use.total = slots_.capacity();
    return use;
  }
  BatchCounters counters() const override { return tokens_; }

  void check_invariants() const override {
    slots_.check_invariants();
    std::int64_t computed = 0;
    for (const Running& request : running_) {
      PM_CHECK(request.num_computed <= request.reserved && request.reserved <= request.range.size);
      computed += request.num_computed;
    }
    PM_CHECK(computed == held_.tokens && held_.reserved >= 0 && held_.internal >= 0);
    PM_CHECK(slots_.num_free() == slots_.capacity() - held_.held());
  }

 private:
  struct Running {
    std::int32_t index;
    BuddyAllocator::Range range;
    std::int64_t reserved;  // slots asked for
    std::int32_t num_computed = 0, num_output = 0;
    bool samples = false;  // in the step that is planned
  };

  // The last token is sampled, but its keys and values are never needed.
  static std::int64_t stored(const TraceRequest& request) {
    return std::int64_t{request.input_tokens} + request.output_tokens - 1;
  }

  std::int64_t reservation(const TraceRequest& request) const {
    if (policy_ == BatchPolicy::kOrcaMax) return config_.max_model_len;
    if (policy_ == BatchPolicy::kOrcaOracle) return stored(request);
    const std::int64_t rounded = std::bit_ceil(static_cast<std::uint32_t>(request.output_tokens));
    return std::min<std::int64_t>(config_.max_model_len, request.input_tokens + rounded);
  }

  void compute(Running& request, std::int32_t limit, StepLoad& load) {
    const std::int32_t known = trace_.requests[request.index].input_tokens + request.num_output;
    const std::int32_t num_new = std::min(limit, known - request.num_computed);
    if (num_new <= 0) return;
    load.add_chunk(request.num_computed, request.num_computed + num_new);
    request.num_computed += num_new;
    request.samples = request.num_computed == known;
    budget_ -= num_new;
    held_.tokens += num_new;
    held_.reserved -= num_new;
  }

  void release(const Running& request) {
    held_.tokens -= request.num_computed;
    held_.internal -= request.reserved - request.num_computed;
    held_.rounding -= request.range.size - request.reserved;
    slots_.free(request.range);
  }

  BatchPolicy policy_;
  BatcherConfig config_;
  const Trace& trace_;
  BuddyAllocator slots_;
  std::deque<std::int32_t> waiting_;
  std::vector<Running> running_;  // by arrival
  MemoryUse held_;
  BatchCounters tokens_;
  std::int32_t budget_ = 0;  // tokens left in the step
};

}  // namespace

std::unique_ptr<Batcher> make_contiguous_batcher(BatchPolicy policy,
                                                 const BatcherConfig& config,
                                                 const Trace& trace) {
  return std::make_unique<ContiguousBatcher>(policy, config, trace);
}

}  // namespace pagemill
