// ModelRunner: executes StepPlans. StepPlan -> ForwardBatch -> model -> sampler -> StepResult.
//
// Owns the KV bytes and the per-sequence sampling state. The engine thread alone calls it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "layers/kv_disk_tier.h"
#include "layers/kv_storage.h"
#include "models/model.h"
#include "plan/step_plan.h"
#include "sampling/sampler.h"
#include "sampling/sequence_state.h"

namespace pagemill {

struct RunnerOptions {
  std::int32_t block_size = 16;
  std::int32_t max_num_batched_tokens = 2048;
  std::int32_t max_num_seqs = 256;
  std::int32_t max_logits_rows = 64;  // as the model's
  bool poison_free_blocks = false;    // NaN in every slot before it is written (tests)
  std::vector<TokenId> eos_token_ids;
};

// Sees raw logits rows as they are computed: (sequence, position of the token that the row
// predicts, logits [vocab_size]). For tests and for `pagemill inspect`-like tools.
using LogitsObserver = std::function<void(SeqId, std::int32_t, std::span<const float>)>;

class ModelRunner {
 public:
  // `tier`: where evicted blocks are kept, or null.
  ModelRunner(Model& model,
              KvStorage kv,
              ThreadPool& pool,
              Isa isa,
              RunnerOptions options,
              std::unique_ptr<KvDiskTier> tier = nullptr);

  // Starts a step; on a CPU it runs to its end here. wait() lends its result until the next
  // submit(): what is in it may be moved from, its vectors are used again.
  void submit(const StepPlan& plan);
  StepResult& wait() { return result_; }

  KvDiskTier* tier() const { return tier_.get(); }

  // `every_row`: logits of every position of every chunk are computed and seen, not only of those
  // that a request needs.
  void set_logits_observer(LogitsObserver observer, bool every_row = true) {
    observer_ = std::move(observer);
    observe_every_row_ = every_row && observer_ != nullptr;
  }

 private:
  // A row of logits that somebody needs, and where in the plan it belongs.
  struct LogitsRow {
    std::int32_t sequence = 0;         // index in StepPlan::sequences
    std::int32_t offset = 0;           // index of the row's token in the chunk
    std::int32_t prompt_logprob = -1;  // index in SequenceResult::prompt_logprobs, or -1
    TokenId prompt_token = 0;          // the token whose logprob that is
    bool sample = false;
    StepFailure failure = StepFailure::kNone;
  };

  void reset_result(const StepPlan& plan);
  void apply_tier(const StepPlan& plan);
  std::int32_t load_blocks(const SequenceLoad& load);
  std::span<std::byte> block_buffer(std::int32_t group);
  void apply_creates_and_forks(const StepPlan& plan);
  void apply_copies(const StepPlan& plan);
  void poison_fresh_blocks(const SequenceStep& step);
  void build_batch(const StepPlan& plan);
  void forward();
  void append_sequence(const SequenceStep& step, std::int32_t index);
  void run_logits(const StepPlan& plan);
  StepFailure finish_row(const StepPlan& plan,
                         const LogitsRow& row,
                         std::span<const float> values,
                         SamplerScratch& scratch);
  void accept_samples(const StepPlan& plan);
  SequenceState& state(SeqId seq);

  Model& model_;
  KvStorage kv_;
  ThreadPool& pool_;
  RunnerOptions options_;
  std::unique_ptr<KvDiskTier> tier_;
  std::vector<std::byte> block_bytes_;  // of one block on its way to or from the tier
  Sampler sampler_;
  LogitsObserver observer_;
  bool observe_every_row_ = false;
  std::unordered_map<SeqId, SequenceState> states_;

  // The batch's arrays: sized once for the largest step.
  std::vector<TokenId> token_ids_;
  std::vector<std::int32_t> positions_, prompt_lens_, adapter_index_, logits_row_indices_;
  std::vector<std::vector<std::int64_t>> slot_mappings_;             // [num_groups][num_tokens]
  std::vector<std::vector<AttentionSequence>> attention_sequences_;  // [num_groups][num_sequences]
  std::vector<LogitsRow> logits_rows_;
  std::vector<float> hidden_;            // [num_logits_rows, hidden_size]
  std::vector<float> logits_;            // [max_logits_rows, vocab_size]
  std::vector<SamplerScratch> scratch_;  // one per row of a slice
  StepResult result_;
};

}  // namespace pagemill
