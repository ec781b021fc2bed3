// The second tier: evicted blocks are saved there, and read back instead of being computed.
//
// A block that leaves the prefix cache is saved by the plan that evicts it; nothing is saved twice.
// A request whose prefix the pool does not hold but the tier does is admitted as any other, and its
// first chunks read blocks where they would compute tokens: under the same token budget, into
// blocks of its own that nobody finds before the step that reads them is committed. What turns out
// to be gone or broken is computed.
#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "scheduler/scheduler.h"

namespace pagemill {

void Scheduler::add_tier_block(std::int32_t group, const Digest& digest) {
  PM_CHECK(tier_.has_value(), "there is no second tier");
  if (group >= 0 && group < layout_.num_groups()) tier_->insert(group, digest, forgotten_);
}

void Scheduler::reset_prefix_cache() {
  pool_.reset_cache();
  if (tier_) tier_->clear(forgotten_);
}

void Scheduler::set_costs(double seconds_per_token, double seconds_per_block) {
  seconds_per_token_ = seconds_per_token;
  seconds_per_block_ = seconds_per_block;
}

bool Scheduler::in_tier(const Digest& digest) const {
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    if (!tier_->contains(group, digest)) return false;
  }
  return true;
}

// How many of the request's leading blocks the pool, which has num_hit, and after them the tier
// supply. Within the same bounds as find_hit().
std::int32_t Scheduler::find_loadable(const ScheduledRequest& request, std::int32_t num_hit) const {
  if (!tier_ || request.wants_prompt_logprobs()) return num_hit;
  const bool resumes = request.leader().incarnation > 0;
  if (resumes && config_.preemption == PreemptionMode::kRecompute) return num_hit;
  const bool pays =
      seconds_per_token_ == 0 || seconds_per_block_ <= seconds_per_token_ * config_.block_size;
  if (config_.preemption == PreemptionMode::kAuto && !pays) return num_hit;
  const std::int32_t num_tokens =
      request.awaits_fork() ? request.fork_len : request.leader().num_tokens();
  std::int32_t end = num_hit;
  while ((end + 1) * config_.block_size < num_tokens && in_tier(request.leader().hashes[end])) {
    ++end;
  }
  return end;
}

Scheduler::Fit Scheduler::plan_load(ScheduledRequest& request, StepPlan& plan) {
  if (request.leader().load_in_flight) return Fit::kPlanned;
  gather_load(request);
  const Fit fit = make_room(request, blocks_needed(pool_, layout_, growths_));
  if (fit == Fit::kPlanned) carry_out_load(request.leader(), plan);
  return fit;
}

// Whole blocks, as many as the budget has tokens for, but at least one.
void Scheduler::gather_load(ScheduledRequest& request) {
  Sequence& leader = request.leader();
  const std::int32_t block_size = config_.block_size;
  const std::int32_t num_left = (leader.load_end - leader.num_computed) / block_size;
  const std::int32_t num_blocks = std::clamp((budget_ - owed_) / block_size, 1, num_left);
  leader.blocks.drop_out_of_window(leader.num_computed, nullptr);
  growths_.clear();
  growths_.push_back({&leader.blocks, leader.num_computed, num_blocks * block_size});
}

// Carries out growths_; there is room for it.
void Scheduler::carry_out_load(Sequence& sequence, StepPlan& plan) {
  const std::int32_t first = growths_[0].num_computed / config_.block_size;
  const std::int32_t num_blocks = growths_[0].num_new / config_.block_size;
  copies_.clear();
  sequence.blocks.grow(growths_[0].num_computed, growths_[0].num_new, copies_);
  PM_CHECK(copies_.empty(), "blocks to be read are shared");
  sequence.num_computed += growths_[0].num_new;
  ++sequence.num_in_flight;
  sequence.load_in_flight = true;

  SequenceLoad& load = plan.loads.emplace_back();
  load.seq = sequence.id;
  load.first_block = first;
  load.keys = std::span<const Digest>(sequence.hashes).subspan(first, num_blocks);
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    load.block_tables[group] = sequence.blocks.table(group);
    for (const Digest& key : load.keys) tier_->touch(group, key);
  }
  step_->loads.push_back({sequence.id, sequence.incarnation, first, num_blocks});
  budget_ -= growths_[0].num_new;
}

void Scheduler::commit_load(const Load& load, const LoadResult& result, StepOutput& output) {
  PM_CHECK(result.seq == load.seq && result.num_blocks >= 0 && result.num_blocks <= load.num_blocks,
           "{} of {} blocks were read for sequence {}",
           result.num_blocks,
           load.num_blocks,
           load.seq);
  counters_.tier_loads += std::uint64_t(result.num_blocks) * layout_.num_groups();
  const auto found = sequences_.find(load.seq);
  if (found == sequences_.end()) return;
  Sequence& sequence = *found->second;
  --sequence.num_in_flight;
  // A preemption since then has given the blocks away.
  if (sequence.incarnation != load.incarnation) return;
  sequence.load_in_flight = false;
  if (result.num_blocks < load.num_blocks) {
    const std::int32_t end = load.first_block + result.num_blocks;
    // Those after the broken one are computed as well: saved anew, should they be broken too.
    for (std::int32_t i = end; i < sequence.load_end / config_.block_size; ++i) {
      for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
        tier_->erase(group, sequence.hashes[i]);
      }
    }
    ++counters_.tier_failed_loads;
    sequence.blocks.truncate(end);
    sequence.num_computed = sequence.load_end = end * config_.block_size;
  }
  publish_blocks(sequence, sequence.num_computed);
  const std::int32_t num_tokens = result.num_blocks * config_.block_size;
  counters_.tier_hits += num_tokens;
  if (sequence.incarnation > 0) {
    counters_.resumed_loads += num_tokens;
  } else if (num_tokens > 0) {
    output.loaded.push_back({sequence.request.id, num_tokens});
  }
}

void Scheduler::plan_saves(std::span<const CachedBlock> blocks, StepPlan& plan) {
  if (!tier_) return;
  for (const CachedBlock& cached : blocks) {
    if (!tier_->insert(cached.group, cached.digest, forgotten_)) continue;
    plan.saves.push_back({cached.group, cached.block, cached.digest});
    ++counters_.tier_saves;
  }
  for (const TierIndex::Key& key : forgotten_) plan.forgets.push_back({key.group, key.digest});
  forgotten_.clear();
}

void Scheduler::plan_flush(StepPlan& plan, std::int32_t max_blocks) {
  plan.clear();
  if (!tier_) return;
  std::vector<CachedBlock> blocks = pool_.cached_blocks();
  // What the tier has no room for would push out what was kept shorter.
  std::int64_t room = tier_->capacity_bytes();
  auto first = blocks.end();
  while (first != blocks.begin()) {
    room -= config_.tier_block_bytes[std::prev(first)->group];
    if (room < 0) break;
    --first;
  }
  blocks.erase(blocks.begin(), first);
  std::erase_if(blocks, [&](const CachedBlock& b) { return tier_->contains(b.group, b.digest); });
  if (std::ssize(blocks) > max_blocks) blocks.resize(max_blocks);
  begin_step();
  plan.step_id = step_->id;
  evicted_ = std::move(blocks);
  end_planning(plan);
}

}  // namespace pagemill
