// LocalEngine: an EngineClient over a model in this process.
#pragma once

#include <atomic>
#include <memory>

#include "engine/engine_client.h"
#include "engine/engine_core.h"
#include "engine/loaded_model.h"
#include "engine/memory_budget.h"

namespace pagemill {

class LocalEngine final : public EngineClient {
 public:
  static Result<std::unique_ptr<LocalEngine>> create(const EngineOptions& options);

  const ModelInfo& model() const override { return loaded_.info; }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return loaded_.tokenizer; }
  std::shared_ptr<const ChatTemplate> chat_template() const override {
    return loaded_.chat_template;
  }
  Result<RequestId> submit(Request request, OnDelta on_delta) override;
  void abort(RequestId id) override { core_->abort(id); }
  bool drain(double timeout_s) override { return core_->drain(timeout_s); }
  void reset_prefix_cache() override { core_->reset_prefix_cache(); }
  EngineStats stats() const override;

  const MemoryBudget& memory() const { return memory_; }

 private:
  LocalEngine(EngineOptions options, LoadedModel loaded);
  Status init();
  Result<SchedulerConfig> scheduler_config() const;
  Status prepare(Request& request) const;
  Status tokenize_bad_words(SamplingParams& params) const;

  EngineOptions options_;
  LoadedModel loaded_;
  MemoryBudget memory_;
  const Scheduler* scheduler_ = nullptr;  // for its constant questions only; core_ owns it
  std::atomic<RequestId> next_id_{1};
  std::atomic<std::uint64_t> next_seed_{0};
  std::unique_ptr<EngineCore> core_;  // last: its threads use the rest
};

}  // namespace pagemill
