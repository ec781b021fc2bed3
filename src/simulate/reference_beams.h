// Beam search as Hugging Face Transformers writes it, on whole sequences of tokens and with nothing
// saved: what BeamGroup and the scheduler are compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "request/sampling_params.h"

namespace pagemill {

struct ReferenceHypothesis {
  float score = 0;
  std::vector<TokenId> tokens;
};

// The log-probabilities [vocab_size] of what follows an output; -infinity where masked.
using NextLogprobs = std::function<std::vector<float>(std::span<const TokenId> output)>;

// The hypotheses, best first: params.num_sequences() of them unless masks leave fewer.
std::vector<ReferenceHypothesis> reference_beam_search(const SamplingParams& params,
                                                       std::span<const TokenId> eos_token_ids,
                                                       std::int32_t max_tokens,
                                                       const NextLogprobs& next_logprobs);

}  // namespace pagemill
