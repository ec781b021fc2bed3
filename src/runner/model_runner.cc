#include "runner/model_runner.h"

#include <algorithm>

#include "base/check.h"
#include "base/tracer.h"
#include "kernels/elementwise.h"

namespace pagemill {

ModelRunner::ModelRunner(Model& model,
                         KvStorage kv,
                         ThreadPool& pool,
                         Isa isa,
                         RunnerOptions options,
                         std::unique_ptr<KvDiskTier> tier)
    : model_(model),
      kv_(std::move(kv)),
      pool_(pool),
      options_(std::move(options)),
      tier_(std::move(tier)),
      sampler_(elementwise_kernels(isa), model.spec().vocab_size, options_.eos_token_ids),
      slot_mappings_(kv_.num_groups()),
      attention_sequences_(kv_.num_groups()),
      logits_(static_cast<std::size_t>(options_.max_logits_rows) * model.spec().vocab_size),
      scratch_(options_.max_logits_rows) {
  const auto tokens = static_cast<std::size_t>(options_.max_num_batched_tokens);
  for (auto* array : {&positions_, &prompt_lens_, &adapter_index_}) array->reserve(tokens);
  token_ids_.reserve(tokens);
  for (auto& mapping : slot_mappings_) mapping.reserve(tokens);
  for (auto& sequences : attention_sequences_) sequences.reserve(options_.max_num_seqs);
}

SequenceState& ModelRunner::state(SeqId seq) {
  const auto it = states_.find(seq);
  PM_CHECK(it != states_.end(), "sequence {} was never created", seq);
  return it->second;
}

void ModelRunner::submit(const StepPlan& plan) {
  PM_CHECK(plan.num_tokens <= options_.max_num_batched_tokens, "{} tokens", plan.num_tokens);
  trace_phase("run");
  reset_result(plan);
  apply_tier(plan);
  apply_creates_and_forks(plan);
  apply_copies(plan);
  if (!plan.sequences.empty()) {
    build_batch(plan);
    forward();
    run_logits(plan);
    accept_samples(plan);
  }
  for (SeqId seq : plan.drops) states_.erase(seq);
}

void ModelRunner::reset_result(const StepPlan& plan) {
  result_.step_id = plan.step_id;
  result_.loads.clear();
  result_.sequences.resize(plan.sequences.size());
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    const SequenceStep& step = plan.sequences[i];
    SequenceResult& result = result_.sequences[i];
    result.seq = step.seq;
    result.samples.clear();  // samples that commit() moved from
    if (step.beam_width == 0) result.samples.resize(step.sample_seqs.size());
    result.prompt_logprobs.clear();
    result.failure = StepFailure::kNone;
    result.beam.candidates.clear();
    result.beam.top.clear();
  }
}

std::span<std::byte> ModelRunner::block_buffer(std::int32_t group) {
  const std::size_t size = kv_.block_bytes(group);
  if (block_bytes_.size() < size) block_bytes_.resize(size);
  return std::span(block_bytes_).first(size);
}

void ModelRunner::apply_tier(const StepPlan& plan) {
  PM_CHECK(tier_ != nullptr || (plan.saves.empty() && plan.loads.empty() && plan.forgets.empty()),
           "there is no second tier");
  if (tier_ == nullptr) return;
  const TraceScope scope("kv_tier");
  for (const BlockSave& save : plan.saves) {
    const std::span<std::byte> bytes = block_buffer(save.group);
    kv_.read_block(save.group, save.block, bytes);
    tier_->save(save.group, save.key, bytes);
  }
  for (const SequenceLoad& load : plan.loads) {
    result_.loads.push_back({load.seq, load_blocks(load)});
  }
  for (const BlockKey& key : plan.forgets) tier_->forget(key.group, key.key);
}

// How many of the blocks were there in every group.
std::int32_t ModelRunner::load_blocks(const SequenceLoad& load) {
  const auto num_blocks = static_cast<std::int32_t>(load.keys.size());
  for (std::int32_t i = 0; i < num_blocks; ++i) {
    for (std::int32_t group = 0; group < kv_.num_groups(); ++group) {
      const std::span<std::byte> bytes = block_buffer(group);
      if (!tier_->load(group, load.keys[i], bytes)) return i;
      kv_.write_block(group, load.block_tables[group][load.first_block + i], bytes);
    }
  }
  return num_blocks;
}

void ModelRunner::apply_creates_and_forks(const StepPlan& plan) {
  for (const SequenceCreate& create : plan.creates) {
    const bool is_new = states_
                            .try_emplace(create.seq,
                                         create.params,
                                         create.seed,
                                         create.sequence_index,
                                         create.prompt_token_ids,
                                         create.output_token_ids)
                            .second;
    PM_CHECK(is_new, "sequence {} exists", create.seq);
  }
  for (const SequenceFork& fork : plan.forks) {
    const SequenceState& parent = state(fork.parent);
    states_.try_emplace(fork.child, parent)
        .first->second.become_fork(parent, fork.seed, fork.sequence_index);
  }
}

void ModelRunner::apply_copies(const StepPlan& plan) {
  for (const BlockCopy& copy : plan.copies) kv_.copy_block(copy.group, copy.source, copy.target);
}

// A block that this step begins to fill holds no token yet: whatever it held before must not be
// read.
void ModelRunner::poison_fresh_blocks(const SequenceStep& step) {
  const std::int32_t block_size = options_.block_size;
  const auto end = step.num_computed_tokens + static_cast<std::int32_t>(step.token_ids.size());
  const std::int32_t first_fresh = (step.num_computed_tokens + block_size - 1) / block_size;
  for (std::int32_t group = 0; group < kv_.num_groups(); ++group) {
    for (std::int32_t b = first_fresh; b * block_size < end; ++b) {
      const BlockId block = step.block_tables[group][b];
      if (block != kNullBlock) kv_.poison_block(group, block);
    }
  }
}

void ModelRunner::append_sequence(const SequenceStep& step, std::int32_t index) {
  const auto query_start = static_cast<std::int32_t>(token_ids_.size());
  const auto query_len = static_cast<std::int32_t>(step.token_ids.size());
  SequenceState& seq_state = state(step.seq);
  const std::int32_t block_size = options_.block_size;
  for (std::int32_t i = 0; i < query_len; ++i) {
    TokenId token = step.token_ids[i];
    if (token == kPendingToken) token = seq_state.output().back();
    if (step.num_computed_tokens + i == seq_state.num_tokens()) seq_state.accept(token);
    token_ids_.push_back(token);
    positions_.push_back(step.num_computed_tokens + i);
    prompt_lens_.push_back(seq_state.prompt_len());
    adapter_index_.push_back(0);
  }
  for (std::int32_t group = 0; group < kv_.num_groups(); ++group) {
    const std::span<const BlockId> table = step.block_tables[group];
    for (std::int32_t i = 0; i < query_len; ++i) {
      const std::int32_t position = step.num_computed_tokens + i;
      slot_mappings_[group].push_back(std::int64_t{table[position / block_size]} * block_size +
                                      position % block_size);
    }
    attention_sequences_[group].push_back({.query_start = query_start,
                                           .query_len = query_len,
                                           .context_len = step.num_computed_tokens + query_len,
                                           .block_table = table.data()});
  }
  if (options_.poison_free_blocks) poison_fresh_blocks(step);

  SequenceResult& result = result_.sequences[index];
  const std::int32_t prompt_len = seq_state.prompt_len();
  for (std::int32_t i = 0; i < query_len; ++i) {
    LogitsRow row{.sequence = index, .offset = i};
    const std::int32_t predicted = step.num_computed_tokens + i + 1;
    row.sample = step.sample() && i + 1 == query_len;
    if (step.num_prompt_logprobs >= 0 && predicted < prompt_len) {
      row.prompt_logprob = i;
      row.prompt_token = seq_state.prompt_token(predicted);
      result.prompt_logprobs.resize(i + 1);
    }
    if (row.sample || row.prompt_logprob >= 0 || observe_every_row_) {
      logits_rows_.push_back(row);
      logits_row_indices_.push_back(query_start + i);
    }
  }
}

void ModelRunner::build_batch(const StepPlan& plan) {
  const TraceScope scope("batch");
  token_ids_.clear();
  for (auto* array : {&positions_, &prompt_lens_, &adapter_index_, &logits_row_indices_})
    array->clear();
  for (auto& mapping : slot_mappings_) mapping.clear();
  for (auto& sequences : attention_sequences_) sequences.clear();
  logits_rows_.clear();
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    append_sequence(plan.sequences[i], static_cast<std::int32_t>(i));
  }
  hidden_.resize(logits_rows_.size() * model_.spec().hidden_size);
}

void ModelRunner::forward() {
  std::array<KvGroupBatch, kMaxKvGroups> groups;
  for (std::int32_t group = 0; group < kv_.num_groups(); ++group) {
    groups[group] = {slot_mappings_[group], attention_sequences_[group]};
  }
  const ForwardBatch batch{.token_ids = token_ids_,
                           .positions = positions_,
                           .prompt_lens = prompt_lens_,
                           .adapter_index = adapter_index_,
                           .groups = {groups.data(), static_cast<std::size_t>(kv_.num_groups())},
                           .logits_rows = logits_row_indices_};
  model_.forward(batch, kv_, hidden_.data());
}

// Logits are computed and used in slices of max_logits_rows, so that their memory is fixed.
void ModelRunner::run_logits(const StepPlan& plan) {
  const auto vocab_size = static_cast<std::size_t>(model_.spec().vocab_size);
  const auto slice = static_cast<std::size_t>(options_.max_logits_rows);
  for (std::size_t begin = 0; begin < logits_rows_.size(); begin += slice) {
    const std::size_t count = std::min(slice, logits_rows_.size() - begin);
    trace_phase("run");
    model_.logits(hidden_.data() + begin * model_.spec().hidden_size,
                  static_cast<std::int64_t>(count),
                  logits_.data());
    trace_phase("sample");
    pool_.parallel_for(static_cast<int>(count), [&](int i) {
      LogitsRow& row = logits_rows_[begin + i];
      row.failure =
          finish_row(plan, row, {logits_.data() + i * vocab_size, vocab_size}, scratch_[i]);
    });
    for (std::size_t i = 0; i < count; ++i) {
      const LogitsRow& row = logits_rows_[begin + i];
      StepFailure& failure = result_.sequences[row.sequence].failure;
      if (failure == StepFailure::kNone) failure = row.failure;
    }
    if (!observer_) continue;
    for (std::size_t i = 0; i < count; ++i) {
      const LogitsRow& row = logits_rows_[begin + i];
      const SequenceStep& step = plan.sequences[row.sequence];
      observer_(step.seq,
                step.num_computed_tokens + row.offset + 1,
                {logits_.data() + i * vocab_size, vocab_size});
    }
  }
}

// Runs concurrently for the rows of a slice: it writes its own row's places in result_ only.
StepFailure ModelRunner::finish_row(const StepPlan& plan,
                                    const LogitsRow& row,
                                    std::span<const float> values,
                                    SamplerScratch& scratch) {
  const SequenceStep& step = plan.sequences[row.sequence];
  SequenceResult& result = result_.sequences[row.sequence];
  const std::optional<FiniteLogits> logits = sampler_.check(values);
  if (!logits) return StepFailure::kNonFinite;
  if (row.prompt_logprob >= 0) {
    result.prompt_logprobs[row.prompt_logprob] =
        sampler_.logprobs(*logits, row.prompt_token, step.num_prompt_logprobs, scratch);
  }
  if (!row.sample) return StepFailure::kNone;
  if (step.beam_width > 0) {
    result.beam = sampler_.beam_candidates(state(step.seq), *logits, step.beam_width, scratch);
    return StepFailure::kNone;
  }
  for (std::size_t i = 0; i < step.sample_seqs.size(); ++i) {
    auto sampled = sampler_.sample(state(step.sample_seqs[i]), *logits, scratch);
    if (!sampled) return StepFailure::kNoToken;
    result.samples[i] = std::move(*sampled);
  }
  return StepFailure::kNone;
}

void ModelRunner::accept_samples(const StepPlan& plan) {
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    if (result_.sequences[i].failure != StepFailure::kNone || plan.sequences[i].beam_width > 0)
      continue;
    const auto& seqs = plan.sequences[i].sample_seqs;
    for (std::size_t s = 0; s < seqs.size(); ++s) {
      state(seqs[s]).accept(result_.sequences[i].samples[s].token);
    }
  }
}

}  // namespace pagemill
