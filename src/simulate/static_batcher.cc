// Static batching: one padded batch after another.
#include <algorithm>
#include <deque>

#include "base/check.h"
#include "simulate/batcher.h"

namespace pagemill {
namespace {

class StaticBatcher final : public Batcher {
 public:
  StaticBatcher(const BatcherConfig& config, const Trace& trace)
      : config_(config),
        trace_(trace),
        max_rows_(static_cast<std::size_t>(
            std::min<std::int64_t>(config.kv_slots / config.max_model_len, config.max_num_seqs))) {}

  Status add(std::int32_t index) override {
    waiting_.push_back(index);
    return ok_status();
  }

  bool plan(StepLoad& load) override {
    load = {};
    if (rows_.empty()) start();
    // Rows that have ended are computed on, as padding.
    const std::int64_t begin = length_, end = length_ == 0 ? longest_prompt_ : length_ + 1;
    for (std::size_t i = 0; i < rows_.size(); ++i) load.add_chunk(begin, end);
    length_ = end;
    return !rows_.empty();
  }

  void commit(double /*seconds*/, std::vector<TokenEvent>& events) override {
    ++num_output_;
    const bool ends = num_output_ == longest_output_;
    for (const std::int32_t index : rows_) {
      const std::int32_t wanted = trace_.requests[index].output_tokens;
      // The last token of each waits for the end of the batch.
      if (num_output_ < wanted) events.push_back({index, false});
      if (ends) events.push_back({index, true});
    }
    if (ends) rows_.clear();
  }

  std::int32_t num_running() const override { return static_cast<std::int32_t>(rows_.size()); }
  std::int32_t num_waiting() const override { return static_cast<std::int32_t>(waiting_.size()); }

  MemoryUse memory() const override {
    MemoryUse use;
    use.total = config_.kv_slots;
    for (const std::int32_t index : rows_) {
      const TraceRequest& request = trace_.requests[index];
      const bool live = num_output_ < request.output_tokens;
      const std::int64_t tokens = live ? request.input_tokens + num_output_ : 0;
      const std::int64_t to_come = live ? request.output_tokens - 1 - num_output_ : 0;
      use.tokens += tokens;
      use.reserved += to_come;
      use.internal += config_.max_model_len - tokens - to_come;
    }
    return use;
  }

  BatchCounters counters() const override { return counters_; }
  void check_invariants() const override {
    PM_CHECK(memory().free() >= 0 && rows_.size() <= max_rows_);
    PM_CHECK(rows_.empty() || num_output_ < longest_output_);
  }

 private:
  void start() {
    length_ = num_output_ = longest_prompt_ = longest_output_ = 0;
    while (!waiting_.empty() && rows_.size() < max_rows_) {
      const TraceRequest& request = trace_.requests[waiting_.front()];
      const std::int32_t prompt = std::max(longest_prompt_, request.input_tokens);
      const std::int32_t output = std::max(longest_output_, request.output_tokens);
      // Padding counts: a long prompt and a long output of two requests must fit a row together.
      if (!rows_.empty() && prompt + output > config_.max_model_len) break;
      longest_prompt_ = prompt;
      longest_output_ = output;
      counters_.prompt_tokens += request.input_tokens;
      rows_.push_back(waiting_.front());
      waiting_.pop_front();
    }
  }

  BatcherConfig config_;
  const Trace& trace_;
  std::size_t max_rows_;
  std::deque<std::int32_t> waiting_;
  std::vector<std::int32_t> rows_;  // of the batch that runs
  std::int32_t longest_prompt_ = 0, longest_output_ = 0, num_output_ = 0;
  std::int64_t length_ = 0;  // of every row, padding included
  BatchCounters counters_;
};

}  // namespace

std::unique_ptr<Batcher> make_static_batcher(const BatcherConfig& config, const Trace& trace) {
  return std::make_unique<StaticBatcher>(config, trace);
}

}  // namespace pagemill
