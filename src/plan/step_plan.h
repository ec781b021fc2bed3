// StepPlan and StepResult: all that passes between the scheduler (control plane: ids and integers)
// and the runner (data plane: tensors). Plain structs, no behaviour.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "request/outputs.h"
#include "request/sampling_params.h"

namespace pagemill {

// Spans in a plan borrow from the scheduler: they hold until the next call of a non-const member of
// the Scheduler that made the plan. A runner that works longer copies what it needs in submit().

// Groups of layers with a block table of their own that one model may have (KvSpec).
inline constexpr std::int32_t kMaxKvGroups = 8;

// Stands in SequenceStep::token_ids for a token that a step still in flight samples (never at depth
// 1): the runner puts that sequence's latest sample in its place.
inline constexpr TokenId kPendingToken = -1;

// Per-sequence sampling state in the runner begins here: before the sequence's first step, and
// again when it resumes after a preemption (which drops the state), then with the tokens generated
// so far. A sample's random numbers are keyed by (seed, sequence_index, position), position being
// the number of output tokens before it: output_token_ids.size() at first, then one more with each
// sample.
struct SequenceCreate {
  SeqId seq = 0;
  std::int32_t sequence_index = 0;  // 0..num_sequences-1
  std::uint64_t seed = 0;
  std::shared_ptr<const SamplingParams> params;
  std::span<const TokenId> prompt_token_ids;
  std::span<const TokenId> output_token_ids;  // empty unless resumed
};

// `child` starts from a copy of `parent`'s sampling state (penalty counts, bad-word state) as it is
// before this step; from then on it has its own. A beam search also forks onto a sequence that
// exists, whose state is then replaced.
struct SequenceFork {
  SeqId parent = 0;
  SeqId child = 0;
  std::int32_t sequence_index = 0;
  std::uint64_t seed = 0;
};

// Copies a whole block in every layer of the KV group before the step's forward pass.
struct BlockCopy {
  std::int32_t group = 0;
  BlockId source = 0;
  BlockId target = 0;
};

// Writes a block of the pool to the second tier before anything else in the step changes it. `key`
// names its contents.
struct BlockSave {
  std::int32_t group = 0;
  BlockId block = 0;
  Digest key;
};

// What the second tier may forget.
struct BlockKey {
  std::int32_t group = 0;
  Digest key;
};

// One sequence's blocks [first_block, first_block + keys.size()), in every group, are read from the
// second tier instead of being computed.
struct SequenceLoad {
  SeqId seq = 0;
  std::int32_t first_block = 0;
  std::span<const Digest> keys;
  std::array<std::span<const BlockId>, kMaxKvGroups> block_tables;  // as SequenceStep's
};

// One sequence's share of a step: compute tokens [num_computed, num_computed + token_ids.size()).
struct SequenceStep {
  SeqId seq = 0;
  std::int32_t num_computed_tokens = 0;
  // [num_new_tokens], >= 1. Output tokens that the runner has not sampled (the beam search chose
  // them) enter the sequence's sampling state here.
  std::span<const TokenId> token_ids;
  // [num_groups][ceil((num_computed_tokens + num_new_tokens) / block_size)]; in a windowed group
  // the blocks that fell out of the window are kNullBlock. Groups past the model's are empty.
  std::array<std::span<const BlockId>, kMaxKvGroups> block_tables;
  // The sequences that each draw one token from the logits of this chunk's last token: none if the
  // chunk ends before the last known token, this sequence alone as a rule, and on the last chunk of
  // a prompt with n > 1 also its forks (made by this same plan), `seq` first.
  std::span<const SeqId> sample_seqs;
  // > 0: nothing is drawn for sample_seqs, which is `seq` alone. The result has the tokens that may
  // continue this beam instead: the most likely ones down to the beam_width-th that ends no
  // sequence (EOS, stop_token_ids), with `params.logprobs` their raw ones too.
  std::int32_t beam_width = 0;
  std::int32_t num_prompt_logprobs = -1;  // >= 0: return the logprobs of the prompt tokens that
                                          // this chunk predicts, with so many candidates each

  bool sample() const { return !sample_seqs.empty(); }
  std::int32_t num_samples() const { return static_cast<std::int32_t>(sample_seqs.size()); }
};

// Applied in the order saves, loads, forgets, creates, forks, copies (one after another),
// sequences, drops.
struct StepPlan {
  std::uint64_t step_id = 0;
  std::vector<BlockSave> saves;
  std::vector<SequenceLoad> loads;
  std::vector<BlockKey> forgets;
  std::vector<SequenceCreate> creates;
  std::vector<SequenceFork> forks;
  std::vector<BlockCopy> copies;
  std::vector<SequenceStep> sequences;
  std::vector<SeqId> drops;
  std::int32_t num_tokens = 0;  // sum of token_ids.size()

  bool empty() const {
    return sequences.empty() && drops.empty() && forks.empty() && creates.empty() &&
           loads.empty() && saves.empty();
  }
  void clear() {  // keeps the capacity
    saves.clear(), loads.clear(), forgets.clear();
    creates.clear(), forks.clear(), copies.clear(), sequences.clear(), drops.clear();
    num_tokens = 0;
  }
};

struct SampledToken {
  TokenId token = 0;
  PositionLogprobs logprobs;  // `chosen` always has token and logprob if logprobs were asked for
};

// A token that may continue a beam.
struct BeamCandidate {
  TokenId token = 0;
  bool ends = false;      // the sequence: EOS or one of stop_token_ids
  float logprob = 0;      // after the logits processors: what it adds to the beam's score
  float raw_logprob = 0;  // as in TokenLogprob
  std::int32_t rank = 0;  // as in TokenLogprob; 0 unless logprobs were asked for
};

struct BeamCandidates {
  std::vector<BeamCandidate> candidates;  // most likely first; the lower id on ties
  std::vector<TokenLogprob> top;          // as PositionLogprobs::top, of all candidates
};

// Why a request cannot go on.
enum class StepFailure {
  kNone,
  kNonFinite,  // its logits hold NaN or infinity
  kNoToken,    // its own masks leave no token
  kStep,       // the step as a whole could not be run
};

struct SequenceResult {
  SeqId seq = 0;
  std::vector<SampledToken> samples = {};  // [num_samples()], in the order of sample_seqs
  // Entry i is for token num_computed + i + 1 of the prompt; as many as the chunk predicts.
  std::vector<PositionLogprobs> prompt_logprobs = {};
  // The request ends with an error. Its sequences fail in later steps in flight too.
  StepFailure failure = StepFailure::kNone;
  BeamCandidates beam = {};  // in place of samples, where SequenceStep::beam_width asks for them
};

// How many of a SequenceLoad's blocks, from its first, were read in every group and found intact.
// The rest have to be computed.
struct LoadResult {
  SeqId seq = 0;
  std::int32_t num_blocks = 0;
};

// In the order of StepPlan::sequences and StepPlan::loads.
struct StepResult {
  std::uint64_t step_id = 0;
  std::vector<SequenceResult> sequences;
  std::vector<LoadResult> loads = {};
  double seconds = 0;  // from submit() to the result; 0: not measured
};

}  // namespace pagemill
