// FakeRunner: carries out StepPlans on a FakeModel and checks that every one of them is sound.
//
// Checked: a sequence's state is created once, before its steps, and dropped; chunks follow each
// other without gaps and carry the right tokens; block tables cover the tokens; every slot that a
// token sees was written with that sequence's own prefix; no block is written that is null, written
// twice in a step, in another sequence's table, or still used by a step in flight.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "kv/sequence_blocks.h"
#include "plan/step_plan.h"
#include "simulate/fake_model.h"

namespace pagemill {

// A plan or a result that breaks the contract.
struct SimulationError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class FakeRunner {
 public:
  FakeRunner(FakeModel model, BlockLayout layout, std::int32_t num_blocks);

  // Copies the plan and checks what can be seen before it runs. Throws SimulationError.
  void submit(const StepPlan& plan);
  // Runs the oldest submitted step: as late as possible, so that a block reused too early is
  // caught. Throws SimulationError.
  StepResult wait();

  std::int32_t num_in_flight() const { return static_cast<std::int32_t>(steps_.size()); }
  // Sequences whose sampling state is kept.
  std::int32_t num_states() const { return static_cast<std::int32_t>(states_.size()); }
  // From now on a block's save is lost, or its load finds it broken, with these probabilities.
  void set_tier_faults(double lost, double broken, std::uint64_t seed);
  // Blocks that the second tier holds.
  std::size_t num_tier_blocks() const { return tier_.size(); }
  // The next step's sequence of this id reports failure.
  void fail_next(SeqId seq) { failing_ = seq; }

 private:
  struct State {
    std::shared_ptr<const SamplingParams> params;
    std::int32_t sequence_index = 0;
    std::uint64_t seed = 0;
    std::int32_t prompt_len = 0;
    std::vector<TokenId> tokens;        // the prompt and the samples
    std::vector<SlotContent> contents;  // what the slots of `tokens` have to hold
    bool failed = false;
  };
  struct OwnedShare {
    SequenceStep share;  // its spans are replaced by the members below
    std::vector<TokenId> token_ids;
    std::vector<std::vector<BlockId>> tables;  // [num_groups]
    std::vector<SeqId> sample_seqs;
    const void* family = nullptr;  // the request
  };
  struct OwnedLoad {
    SeqId seq = 0;
    std::int32_t first_block = 0;
    std::vector<Digest> keys;
    std::vector<std::vector<BlockId>> tables;  // [num_groups]
  };
  struct OwnedCreate {
    SeqId seq;
    State state;
  };
  struct OwnedStep {
    std::uint64_t id = 0;
    std::vector<BlockSave> saves;
    std::vector<OwnedLoad> loads;
    std::vector<BlockKey> forgets;
    std::vector<OwnedCreate> creates;
    std::vector<SequenceFork> forks;
    std::vector<BlockCopy> copies;
    std::vector<OwnedShare> shares;
    std::vector<SeqId> drops;
  };

  OwnedStep take(const StepPlan& plan);
  void check_writes(const OwnedStep& step) const;
  std::vector<LoadResult> run_tier(const OwnedStep& step);
  std::int32_t load(const OwnedLoad& load);
  std::span<SlotContent> block_slots(std::int32_t group, BlockId block);
  void change_states(OwnedStep& step);
  void extend(State& state, TokenId token) const;
  SequenceResult run(const OwnedShare& share);
  void learn_tokens(const OwnedShare& owned, State& state) const;
  void fail_family(const State& failed);
  void check_reads(const OwnedShare& share, const State& state) const;
  SlotContent& slot(std::int32_t group, BlockId block, std::int32_t offset);
  SlotContent slot(std::int32_t group, BlockId block, std::int32_t offset) const;
  State& state_of(SeqId seq);

  FakeModel model_;
  BlockLayout layout_;
  std::int32_t num_blocks_;
  std::vector<std::vector<SlotContent>> slots_;  // [num_groups][num_blocks * block_size]
  std::unordered_map<SeqId, State> states_;
  std::unordered_map<SeqId, const void*> families_;  // of submitted plans
  std::deque<OwnedStep> steps_;
  std::map<std::pair<std::int32_t, std::array<std::uint8_t, 32>>, std::vector<SlotContent>> tier_;
  double lost_ = 0, broken_ = 0;
  std::mt19937_64 fault_dice_;
  SeqId failing_ = 0;
};

}  // namespace pagemill
