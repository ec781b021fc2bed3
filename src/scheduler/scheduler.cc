#include "scheduler/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace pagemill {

Scheduler::Scheduler(SchedulerConfig config, BlockLayout layout)
    : config_(std::move(config)),
      layout_(std::move(layout)),
      root_(engine_root(config_.cache_identity, config_.block_size, config_.kv_groups)),
      pool_(config_.num_blocks, config_.block_size),
      waiting_(config_.policy == SchedulingPolicy::kFair,
               {config_.fair_input_weight, config_.fair_output_weight}),
      pacer_(config_.target_itl_s) {
  if (config_.tier_bytes == 0) return;
  tier_.emplace(config_.tier_bytes, config_.tier_block_bytes);
  pool_.record_evictions(&evicted_);
}

Scheduler::~Scheduler() = default;

void Scheduler::plan(StepPlan& plan) {
  begin_step();
  plan.clear();
  plan.forks.swap(pending_forks_);
  plan.step_id = step_->id;
  owed_ = num_running_seqs_;
  bool may_admit = true;
  for (std::size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
    // A request without room either was the last one or waits for blocks that a step in flight
    // holds: those after it must not take them.
    const Fit fit = plan_running(*running_[i], plan);
    may_admit = may_admit && fit == Fit::kPlanned;
    if (fit != Fit::kPlanned) break;
  }
  // What preemption freed is for those still running.
  may_admit = may_admit && !preempted_;
  if (may_admit) admit_waiting(plan);
  end_planning(plan);
}

void Scheduler::begin_step() {
  if (spare_steps_.empty()) {
    spare_steps_.push_back(std::make_unique<Step>());
    spare_steps_.back()->sample_seqs.reserve(config_.max_num_seqs);
  }
  step_ = spare_steps_.back().get();
  step_->id = next_step_id_;
  budget_ = token_budget();
  preempted_ = false;
  newly_admitted_.clear();
  waiting_.settle();
  if (!std::is_sorted(running_.begin(), running_.end(), RunsBefore())) {
    std::sort(running_.begin(), running_.end(), RunsBefore());
  }
}

// Beside sequences that decode, prompts get what the target for the time between tokens leaves.
std::int32_t Scheduler::token_budget() const {
  const bool decodes = std::any_of(running_.begin(), running_.end(), [](const auto* request) {
    const Sequence& leader = request->leader();
    return leader.num_tokens() - leader.num_computed <= 1;
  });
  if (!decodes) return config_.max_num_batched_tokens;
  const std::int64_t paced = std::int64_t{num_running_seqs_} + pacer_.prompt_tokens();
  return static_cast<std::int32_t>(std::min<std::int64_t>(config_.max_num_batched_tokens, paced));
}

void Scheduler::end_planning(StepPlan& plan) {
  plan.drops.swap(pending_drops_);
  pending_drops_.clear();
  plan_saves(evicted_, plan);
  evicted_.clear();
  step_ = nullptr;
  if (plan.empty()) return;
  ++next_step_id_;
  ++counters_.steps;
  counters_.scheduled_tokens += plan.num_tokens;
  count_use();
  in_flight_.push_back(std::move(spare_steps_.back()));
  spare_steps_.pop_back();
}

void Scheduler::count_use() {
  const BlockPoolStats& blocks = pool_.stats();
  const auto add_to = [&](KvUse& use) {
    ++use.steps;
    use.sequences += num_running_seqs_;
    use.referenced += blocks.referenced;
    use.empty_slots += blocks.empty_slots;
    use.saved += blocks.saved;
  };
  add_to(counters_.kv_use);
  if (blocks.referenced >= 0.9 * (blocks.total - 1)) add_to(counters_.kv_use_full);
}

Scheduler::Fit Scheduler::plan_running(ScheduledRequest& request, StepPlan& plan) {
  owed_ -= request.num_places();
  if (request.leader().loads()) return plan_load(request, plan);
  gather_growths(request);
  if (growths_.empty()) return Fit::kPlanned;
  const Fit fit = make_room(request, blocks_needed(pool_, layout_, growths_));
  if (fit == Fit::kPlanned) plan_request(request, plan);
  return fit;
}

// The tokens that each sequence of the request may compute now, within the budget less one token
// for each running sequence that comes later: a long prompt slows their decoding but does not stop
// it.
void Scheduler::gather_growths(ScheduledRequest& request) {
  growths_.clear();
  std::int32_t left = std::max(std::min(budget_, 1), budget_ - owed_);
  for (const auto& sequence : request.sequences) {
    std::int32_t target = sequence->num_tokens();
    if (request.awaits_fork()) {
      if (sequence.get() != &request.leader()) break;
      target = request.fork_len;
    } else if (target >= request.max_len) {
      continue;  // the sample in flight is its last
    }
    const std::int32_t num_new = std::min(left, target - sequence->num_computed);
    if (num_new <= 0) continue;
    left -= num_new;
    sequence->blocks.drop_out_of_window(
        sequence->num_computed, sequence->num_in_flight > 0 ? &in_flight_.back()->pins : nullptr);
    growths_.push_back({&sequence->blocks, sequence->num_computed, num_new});
  }
}

// Carries out growths_; there is room for them.
void Scheduler::plan_request(ScheduledRequest& request, StepPlan& plan) {
  std::size_t k = 0;
  const std::size_t num_sequences = request.sequences.size();
  for (std::size_t i = 0; i < num_sequences && k < growths_.size(); ++i) {
    Sequence& sequence = *request.sequences[i];
    if (growths_[k].blocks == &sequence.blocks) plan_chunk(sequence, growths_[k++].num_new, plan);
  }
}

void Scheduler::plan_chunk(Sequence& sequence, std::int32_t num_new, StepPlan& plan) {
  ScheduledRequest& request = sequence.request;
  const std::int32_t begin = sequence.num_computed, end = begin + num_new;
  const std::int32_t num_known = sequence.num_tokens();
  make_writable(sequence, num_new, plan);
  sequence.num_computed = end;
  ++sequence.num_in_flight;

  SequenceStep& share = plan.sequences.emplace_back();
  share.seq = sequence.id;
  share.num_computed_tokens = begin;
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    share.block_tables[group] = sequence.blocks.table(group);
  }
  // Position p's entry comes with the chunk that computes token p-1.
  if (request.wants_prompt_logprobs() && begin < request.prompt_len - 1 &&
      end >= request.num_prompt_logprobs_done) {
    share.num_prompt_logprobs = *request.params->prompt_logprobs;
  }
  const bool is_first_sample = !request.spawned;
  if (request.awaits_fork() && end == request.fork_len) fork_leader(request, plan);
  const auto first_sample = static_cast<std::int32_t>(step_->sample_seqs.size());
  if (end == num_known) {
    share.sample_seqs = plan_samples(sequence, is_first_sample);
    if (request.beams) share.beam_width = request.beams->width();
  }
  step_->chunks.push_back({sequence.id,
                           sequence.incarnation,
                           begin,
                           end,
                           first_sample,
                           share.num_samples(),
                           share.num_prompt_logprobs >= 0,
                           share.beam_width > 0});
  // Only now, for the tokens may have moved when their successor's place was added.
  const std::span<const TokenId> known = std::span<const TokenId>(sequence.tokens).first(num_known);
  share.token_ids = known.subspan(begin, num_new);
  if (!sequence.in_runner) {
    plan.creates.push_back({sequence.id,
                            sequence.index,
                            request.params->seed.value_or(0),
                            request.params,
                            known.first(request.prompt_len),
                            known.subspan(request.prompt_len)});
    sequence.in_runner = true;
  }
  plan.num_tokens += num_new;
  budget_ -= num_new;
}

void Scheduler::make_writable(Sequence& sequence, std::int32_t num_new, StepPlan& plan) {
  copies_.clear();
  sequence.blocks.grow(sequence.num_computed, num_new, copies_);
  for (const BlockWrite& copy : copies_) {
    plan.copies.push_back({copy.group, copy.source, copy.target});
    pool_.pin(copy.source);
    step_->pins.push_back(copy.source);
  }
  counters_.copy_on_writes += copies_.size();
}

// Places for the tokens to be sampled after the sequence's last known one: on the first sample of a
// request one for each of its sequences, else its own. What follows a beam is known only when all
// beams have their candidates.
std::span<const SeqId> Scheduler::plan_samples(Sequence& sequence, bool is_first_sample) {
  const std::size_t first = step_->sample_seqs.size();
  const auto add = [&](Sequence& sampled) {
    if (!sampled.request.beams) {
      sampled.tokens.push_back(kPendingToken);
      ++sampled.num_pending;
    }
    step_->sample_seqs.push_back(sampled.id);
  };
  if (is_first_sample) {
    for (const auto& sibling : sequence.request.sequences) add(*sibling);
  } else {
    add(sequence);
  }
  return std::span<const SeqId>(step_->sample_seqs).subspan(first);
}

// The leader has just been given the last chunk of the shared tokens: its siblings start from their
// blocks.
void Scheduler::fork_leader(ScheduledRequest& request, StepPlan& plan) {
  Sequence& leader = request.leader();
  if (!request.spawned) {
    for (std::int32_t index = 1; index < request.params->num_sequences(); ++index) {
      Sequence& child = add_sequence(request, index);
      child.tokens = leader.tokens;
      child.hashes = leader.hashes;
      child.in_runner = true;
      plan.forks.push_back({leader.id, child.id, child.index, request.params->seed.value_or(0)});
    }
    request.spawned = true;
  }
  for (std::size_t i = 1; i < request.sequences.size(); ++i) {
    request.sequences[i]->blocks.share(leader.blocks);
    request.sequences[i]->num_computed = leader.num_computed;
    ++counters_.forks;
  }
  request.forked = true;
}

std::unique_ptr<Sequence> Scheduler::make_sequence(ScheduledRequest& request, std::int32_t index) {
  auto sequence =
      std::make_unique<Sequence>(request, next_seq_++, index, SequenceBlocks(pool_, layout_));
  sequences_.emplace(sequence->id, sequence.get());
  return sequence;
}

Sequence& Scheduler::add_sequence(ScheduledRequest& request, std::int32_t index) {
  request.sequences.push_back(make_sequence(request, index));
  return *request.sequences.back();
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counters_;
  stats.num_running_requests = static_cast<std::int32_t>(running_.size());
  stats.num_waiting_requests = waiting_.size();
  stats.num_running_seqs = num_running_seqs_;
  stats.blocks = pool_.stats();
  const double referenced = stats.blocks.referenced;
  stats.kv_cache_usage = referenced / (stats.blocks.total - 1);
  if (referenced > 0) {
    stats.kv_cache_waste = stats.blocks.empty_slots / (referenced * config_.block_size);
  }
  return stats;
}

void Scheduler::check_invariants() const {
  pool_.check_invariants();
  if (tier_) tier_->check_invariants();
  std::vector<std::int32_t> refs(config_.num_blocks, 0), pins(config_.num_blocks, 0);
  std::vector<std::int32_t> filled(config_.num_blocks, 0);
  std::int32_t num_places = 0;
  std::int64_t num_reserved = 0;
  for (const auto& [id, request] : requests_) {
    PM_CHECK(!request->sequences.empty());
    if (request->running) {
      num_places += request->num_places();
      num_reserved += request->num_reserved_blocks;
    }
    PM_CHECK(request->running != waiting_.contains(*request));
    for (const auto& sequence : request->sequences) {
      PM_CHECK(sequences_.at(sequence->id) == sequence.get());
      for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
        const auto table = sequence->blocks.table(group);
        PM_CHECK(static_cast<std::int32_t>(table.size()) ==
                 layout_.num_blocks(sequence->num_computed));
        for (std::size_t i = 0; i < table.size(); ++i) {
          const auto begin = static_cast<std::int32_t>(i) * config_.block_size;
          ++refs[table[i]];
          filled[table[i]] = std::max(filled[table[i]],
                                      std::min(config_.block_size, sequence->num_computed - begin));
        }
      }
    }
  }
  for (const auto& step : in_flight_) {
    for (const BlockId block : step->pins) ++pins[block];
  }
  for (BlockId block = 1; block < config_.num_blocks; ++block) {
    PM_CHECK(pool_.ref_count(block) == refs[block] && pool_.pin_count(block) == pins[block],
             "block {} has {} references in tables, {} counted",
             block,
             refs[block],
             pool_.ref_count(block));
    PM_CHECK(refs[block] == 0 || pool_.num_filled(block) == filled[block],
             "block {} has {} tokens, {} counted",
             block,
             filled[block],
             pool_.num_filled(block));
  }
  PM_CHECK(num_reserved == num_reserved_blocks_ && num_reserved < config_.num_blocks);
  PM_CHECK(num_places == num_running_seqs_ && num_places <= config_.max_num_seqs);
  waiting_.check_invariants();
  PM_CHECK(running_.size() + waiting_.size() == requests_.size());
}

}  // namespace pagemill
