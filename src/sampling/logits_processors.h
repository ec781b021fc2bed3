// What changes logits before a token is drawn, in this order: allowed tokens, bad words,
// min_tokens, logit bias, penalties. Each works on one row.
#pragma once

#include <span>
#include <vector>

#include "base/ids.h"
#include "sampling/sequence_state.h"

namespace pagemill {

// Whether any of them would change a logit now; greedy rows without are sampled from the raw
// logits.
bool has_logits_processors(const SequenceState& state);

// Where these begin: `logits` [vocab_size] into `row`, without the tokens that are not allowed.
void copy_allowed(const SamplingParams& params,
                  std::span<const float> logits,
                  std::vector<float>& row);

// The rest of them, in place: logits [vocab_size]. `eos_token_ids` are masked before min_tokens
// along with params.stop_token_ids.
void apply_logits_processors(const SequenceState& state,
                             std::span<const TokenId> eos_token_ids,
                             std::span<float> logits);

}  // namespace pagemill
