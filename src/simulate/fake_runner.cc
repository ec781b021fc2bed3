#include "simulate/fake_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace pagemill {
namespace {

template <typename... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
  if (!condition) throw SimulationError(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace

FakeRunner::FakeRunner(FakeModel model, BlockLayout layout, std::int32_t num_blocks)
    : model_(std::move(model)),
      layout_(std::move(layout)),
      num_blocks_(num_blocks),
      slots_(layout_.num_groups(),
             std::vector<SlotContent>(std::size_t(num_blocks) * layout_.block_size, kEmptySlot)) {}

void FakeRunner::submit(const StepPlan& plan) {
  OwnedStep step = take(plan);
  check_writes(step);
  steps_.push_back(std::move(step));
}

FakeRunner::OwnedStep FakeRunner::take(const StepPlan& plan) {
  OwnedStep step;
  step.id = plan.step_id;
  step.saves = plan.saves;
  step.forgets = plan.forgets;
  step.forks = plan.forks;
  step.copies = plan.copies;
  step.drops = plan.drops;
  for (const SequenceLoad& load : plan.loads) {
    OwnedLoad owned{load.seq, load.first_block, {load.keys.begin(), load.keys.end()}, {}};
    for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
      const auto table = load.block_tables[group];
      owned.tables.emplace_back(table.begin(), table.end());
    }
    step.loads.push_back(std::move(owned));
  }
  for (const SequenceCreate& create : plan.creates) {
    State state{create.params,
                create.sequence_index,
                create.seed,
                static_cast<std::int32_t>(create.prompt_token_ids.size()),
                {},
                {},
                false};
    for (const TokenId token : create.prompt_token_ids) extend(state, token);
    for (const TokenId token : create.output_token_ids) extend(state, token);
    families_[create.seq] = create.params.get();
    step.creates.push_back({create.seq, std::move(state)});
  }
  for (const SequenceFork& fork : plan.forks) families_[fork.child] = families_[fork.parent];
  std::int32_t num_tokens = 0;
  for (const SequenceStep& share : plan.sequences) {
    OwnedShare owned{share, {share.token_ids.begin(), share.token_ids.end()}, {}, {}, nullptr};
    owned.sample_seqs.assign(share.sample_seqs.begin(), share.sample_seqs.end());
    owned.family = families_[share.seq];
    for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
      const auto table = share.block_tables[group];
      owned.tables.emplace_back(table.begin(), table.end());
    }
    num_tokens += static_cast<std::int32_t>(owned.token_ids.size());
    step.shares.push_back(std::move(owned));
  }
  require(num_tokens == plan.num_tokens, "{} tokens planned as {}", num_tokens, plan.num_tokens);
  return step;
}

// Who else may see the blocks that the step writes.
void FakeRunner::check_writes(const OwnedStep& step) const {
  std::unordered_map<BlockId, std::int32_t> num_tables;
  std::unordered_map<BlockId, std::set<const void*>> in_flight;
  for (const OwnedShare& owned : step.shares) {
    for (const auto& table : owned.tables) {
      for (const BlockId block : table) ++num_tables[block];
    }
  }
  for (const OwnedLoad& load : step.loads) {
    for (const auto& table : load.tables) {
      for (const BlockId block : table) ++num_tables[block];
    }
  }
  for (const OwnedStep& earlier : steps_) {
    for (const OwnedLoad& load : earlier.loads) {
      for (const auto& table : load.tables) {
        for (const BlockId block : table) in_flight[block].insert(&load);
      }
    }
    for (const OwnedShare& owned : earlier.shares) {
      for (const auto& table : owned.tables) {
        for (const BlockId block : table) in_flight[block].insert(owned.family);
      }
    }
  }
  std::set<BlockId> targets;
  for (const BlockCopy& copy : step.copies) {
    require(copy.source != kNullBlock && copy.target != kNullBlock, "copy of the null block");
    require(targets.insert(copy.target).second, "block {} is copied to twice", copy.target);
    require(targets.count(copy.source) == 0, "block {} is copied from after to", copy.source);
    require(in_flight.count(copy.target) == 0, "copy target {} is in flight", copy.target);
  }
  for (const BlockSave& save : step.saves) {
    require(in_flight.count(save.block) == 0, "block {} is saved while in flight", save.block);
  }
  for (const OwnedLoad& load : step.loads) {
    const auto end = load.first_block + static_cast<std::int32_t>(load.keys.size());
    require(!load.keys.empty(), "sequence {} loads nothing", load.seq);
    for (const auto& table : load.tables) {
      require(static_cast<std::int32_t>(table.size()) == end,
              "sequence {}: a table of {} for {} blocks",
              load.seq,
              table.size(),
              end);
      for (std::int32_t i = load.first_block; i < end; ++i) {
        require(table[i] > kNullBlock && num_tables[table[i]] == 1 && !in_flight.count(table[i]),
                "load into block {}, which is in use",
                table[i]);
      }
    }
  }
  for (const OwnedShare& owned : step.shares) {
    const std::int32_t begin = owned.share.num_computed_tokens;
    const auto end = begin + static_cast<std::int32_t>(owned.token_ids.size());
    require(begin < end, "sequence {} computes nothing", owned.share.seq);
    for (const auto& table : owned.tables) {
      require(static_cast<std::int32_t>(table.size()) == layout_.num_blocks(end),
              "sequence {}: {} blocks for {} tokens",
              owned.share.seq,
              table.size(),
              end);
      for (std::int32_t i = begin / layout_.block_size; i < layout_.num_blocks(end); ++i) {
        const BlockId block = table[i];
        require(block > kNullBlock && block < num_blocks_, "write to block {}", block);
        require(num_tables[block] == 1, "write to shared block {}", block);
        const auto used = in_flight.find(block);
        require(used == in_flight.end() ||
                    (used->second.size() == 1 && used->second.count(owned.family) == 1),
                "write to block {} that a step in flight uses",
                block);
      }
    }
  }
}

StepResult FakeRunner::wait() {
  require(!steps_.empty(), "no step is in flight");
  OwnedStep step = std::move(steps_.front());
  steps_.pop_front();
  StepResult result{step.id, {}, run_tier(step)};
  change_states(step);
  for (const BlockCopy& copy : step.copies) {
    for (std::int32_t i = 0; i < layout_.block_size; ++i) {
      slot(copy.group, copy.target, i) = slot(copy.group, copy.source, i);
    }
  }
  for (const OwnedShare& owned : step.shares) result.sequences.push_back(run(owned));
  for (const SeqId seq : step.drops) {
    require(states_.erase(seq) == 1, "sequence {} is dropped, but unknown", seq);
  }
  return result;
}

void FakeRunner::set_tier_faults(double lost, double broken, std::uint64_t seed) {
  lost_ = lost;
  broken_ = broken;
  fault_dice_.seed(seed);
}

std::span<SlotContent> FakeRunner::block_slots(std::int32_t group, BlockId block) {
  return std::span(slots_[group])
      .subspan(std::size_t(block) * layout_.block_size, layout_.block_size);
}

// Saves, loads and forgets, in that order.
std::vector<LoadResult> FakeRunner::run_tier(const OwnedStep& step) {
  const auto happens = [&](double p) { return fault_dice_() % 1000000 < p * 1000000; };
  for (const BlockSave& save : step.saves) {
    const auto slots = block_slots(save.group, save.block);
    for (const SlotContent content : slots) {
      require(content != kEmptySlot, "block {} is saved with an empty slot", save.block);
    }
    if (happens(lost_)) continue;
    tier_[{save.group, save.key.bytes}].assign(slots.begin(), slots.end());
  }
  std::vector<LoadResult> results;
  results.reserve(step.loads.size());
  for (const OwnedLoad& owned : step.loads) results.push_back({owned.seq, load(owned)});
  for (const BlockKey& key : step.forgets) tier_.erase({key.group, key.key.bytes});
  return results;
}

std::int32_t FakeRunner::load(const OwnedLoad& owned) {
  for (std::size_t i = 0; i < owned.keys.size(); ++i) {
    for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
      const auto found = tier_.find({group, owned.keys[i].bytes});
      const bool broken = fault_dice_() % 1000000 < broken_ * 1000000;
      if (found == tier_.end() || broken) return static_cast<std::int32_t>(i);
      const auto slots = block_slots(group, owned.tables[group][owned.first_block + i]);
      std::copy(found->second.begin(), found->second.end(), slots.begin());
    }
  }
  return static_cast<std::int32_t>(owned.keys.size());
}

void FakeRunner::change_states(OwnedStep& step) {
  for (OwnedCreate& create : step.creates) {
    require(states_.emplace(create.seq, std::move(create.state)).second,
            "sequence {} is created twice",
            create.seq);
  }
  for (const SequenceFork& fork : step.forks) {
    State child = state_of(fork.parent);
    child.sequence_index = fork.sequence_index;
    child.seed = fork.seed;
    const auto [existing, is_new] = states_.try_emplace(fork.child, child);
    require(is_new || (child.params->use_beam_search && existing->second.params == child.params),
            "sequence {} is forked twice",
            fork.child);
    existing->second = std::move(child);
  }
}

SequenceResult FakeRunner::run(const OwnedShare& owned) {
  const SequenceStep& share = owned.share;
  State& state = state_of(share.seq);
  const std::int32_t begin = share.num_computed_tokens;
  const auto end = begin + static_cast<std::int32_t>(owned.token_ids.size());
  if (state.failed) return {share.seq, {}, {}, StepFailure::kNonFinite};
  if (state.params->use_beam_search) learn_tokens(owned, state);
  require(end <= static_cast<std::int32_t>(state.tokens.size()),
          "sequence {}: tokens up to {} of {}",
          share.seq,
          end,
          state.tokens.size());
  SequenceResult result{share.seq};
  SlotContent last = kEmptySlot;
  for (std::int32_t position = begin; position < end; ++position) {
    const TokenId token = owned.token_ids[position - begin];
    require(token == state.tokens[position] || token == kPendingToken,
            "sequence {}: token {} at position {} should be {}",
            share.seq,
            token,
            position,
            state.tokens[position]);
    const std::int32_t before = position - 1;
    const SlotContent previous =
        before < 0
            ? kEmptySlot
            : slot(0, owned.tables[0][before / layout_.block_size], before % layout_.block_size);
    last = model_.content(previous, state.tokens[position]);
    for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
      slot(group,
           owned.tables[group][position / layout_.block_size],
           position % layout_.block_size) = last;
    }
    if (share.num_prompt_logprobs >= 0 && position + 1 < state.prompt_len) {
      PositionLogprobs& entry = result.prompt_logprobs.emplace_back();
      entry.chosen.token = state.tokens[position + 1];
    }
  }
  check_reads(owned, state);
  if (failing_ == share.seq) {
    failing_ = 0;
    fail_family(state);
    result.failure = StepFailure::kNonFinite;
    return result;
  }
  if (share.beam_width > 0) {
    require(owned.sample_seqs == std::vector<SeqId>{share.seq} && state.params->use_beam_search &&
                static_cast<std::int32_t>(state.tokens.size()) == end,
            "sequence {} asks for candidates wrongly",
            share.seq);
    result.beam.candidates = model_.candidates(last, *state.params, end - state.prompt_len);
    return result;
  }
  for (const SeqId seq : owned.sample_seqs) {
    State& sampled = state_of(seq);
    const auto position = static_cast<std::int32_t>(sampled.tokens.size()) - sampled.prompt_len;
    require(static_cast<std::int32_t>(sampled.tokens.size()) == end,
            "sequence {} samples after {} of {} tokens",
            seq,
            end,
            sampled.tokens.size());
    const TokenId token =
        model_.sample(last, *sampled.params, sampled.seed, sampled.sequence_index, position);
    extend(sampled, token);
    result.samples.push_back({token, {}});
  }
  return result;
}

// The beam search chooses the tokens; what it chose shows first in the tokens to compute.
void FakeRunner::learn_tokens(const OwnedShare& owned, State& state) const {
  for (std::size_t i = 0; i < owned.token_ids.size(); ++i) {
    if (owned.share.num_computed_tokens + i == state.tokens.size()) {
      extend(state, owned.token_ids[i]);
    }
  }
}

// Steps that are in flight already count on samples that will not come: they fail as well.
void FakeRunner::fail_family(const State& failed) {
  for (auto& [seq, state] : states_) state.failed |= state.params == failed.params;
}

// Every slot that the chunk's tokens see, in every group.
void FakeRunner::check_reads(const OwnedShare& owned, const State& state) const {
  const std::int32_t begin = owned.share.num_computed_tokens;
  const auto end = begin + static_cast<std::int32_t>(owned.token_ids.size());
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    const std::int32_t window = layout_.windows[group];
    for (std::int32_t p = window == 0 ? 0 : std::max(0, begin - window + 1); p < end; ++p) {
      const BlockId block = owned.tables[group][p / layout_.block_size];
      require(
          block != kNullBlock && slot(group, block, p % layout_.block_size) == state.contents[p],
          "sequence {}, group {}: the slot of token {} in block {} holds something else",
          owned.share.seq,
          group,
          p,
          block);
    }
  }
}

void FakeRunner::extend(State& state, TokenId token) const {
  state.contents.push_back(
      model_.content(state.contents.empty() ? kEmptySlot : state.contents.back(), token));
  state.tokens.push_back(token);
}

SlotContent& FakeRunner::slot(std::int32_t group, BlockId block, std::int32_t offset) {
  return slots_[group][std::size_t(block) * layout_.block_size + offset];
}

SlotContent FakeRunner::slot(std::int32_t group, BlockId block, std::int32_t offset) const {
  return slots_[group][std::size_t(block) * layout_.block_size + offset];
}

FakeRunner::State& FakeRunner::state_of(SeqId seq) {
  const auto found = states_.find(seq);
  require(found != states_.end(), "sequence {} has no state", seq);
  return found->second;
}

}  // namespace pagemill
