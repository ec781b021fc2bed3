// StepPlan and StepResult: all that passes between the scheduler (control plane: ids and integers)
// and the runner (data plane: tensors). Plain structs, no behaviour.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "request/outputs.h"
#include "request/sampling_params.h"

namespace pagemill {

// Per-sequence sampling state in the runner begins here: before the sequence's first step.
struct SequenceCreate {
  SeqId seq = 0;
  std::int32_t sequence_index = 0;  // 0..n-1: keys the random numbers with (seed, index, position)
  std::uint64_t seed = 0;
  std::shared_ptr<const SamplingParams> params;
  std::vector<TokenId> prompt_token_ids;
};

// `child` takes over `parent`'s sampling state (penalty counts, bad-word state) as of this step.
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

// One sequence's share of a step: compute tokens [num_computed, num_computed + token_ids.size()).
struct SequenceStep {
  SeqId seq = 0;
  std::int32_t num_computed_tokens = 0;
  std::vector<TokenId> token_ids;                    // [num_new_tokens], >= 1
  std::vector<std::vector<BlockId>> block_tables;    // [num_groups][ceil(context/block_size)]
  bool sample = false;                 // the chunk reaches the last known token: sample what follows
  std::int32_t num_samples = 1;        // > 1 on a prompt's last chunk: one token for each of n forks,
                                       // keyed by sequence_index, sequence_index+1, ...
  std::int32_t num_prompt_logprobs = -1;  // >= 0: return logprobs of the prompt tokens that this chunk predicts
};

struct StepPlan {
  std::uint64_t step_id = 0;
  std::vector<SequenceCreate> creates;  // applied in the order creates, forks, copies, sequences, drops
  std::vector<SequenceFork> forks;
  std::vector<BlockCopy> copies;
  std::vector<SequenceStep> sequences;
  std::vector<SeqId> drops;
  std::int32_t num_tokens = 0;          // sum of token_ids.size()

  bool empty() const { return sequences.empty() && drops.empty() && forks.empty() && creates.empty(); }
};

struct SampledToken {
  TokenId token = 0;
  PositionLogprobs logprobs;  // `chosen` always has token and logprob if logprobs were asked for
};

struct SequenceResult {
  SeqId seq = 0;
  std::vector<SampledToken> samples;               // [num_samples] if SequenceStep::sample, else empty
  std::vector<PositionLogprobs> prompt_logprobs;   // entry i is for token num_computed + i + 1 of the prompt
  bool failed = false;                             // non-finite logits: the request ends with an error
};

// In the order of StepPlan::sequences.
struct StepResult {
  std::uint64_t step_id = 0;
  std::vector<SequenceResult> sequences;
};

}  // namespace pagemill
