// Sampler: one token from one row of logits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/elementwise.h"
#include "plan/step_plan.h"
#include "sampling/sequence_state.h"

namespace pagemill {

// Working memory of one sampling task, reused from row to row.
struct SamplerScratch {
  std::vector<float> logits;  // [vocab_size]: a copy to change
  std::vector<std::pair<float, TokenId>> candidates;
};

class Sampler {
 public:
  Sampler(const ElementwiseKernels& kernels,
          std::int32_t vocab_size,
          std::vector<TokenId> eos_token_ids);

  // Draws the sequence's next token from raw logits [vocab_size]; log-probabilities are those of
  // the raw logits. None if a logit is NaN or +inf, or every token is masked.
  std::optional<SampledToken> sample(const SequenceState& state,
                                     std::span<const float> logits,
                                     SamplerScratch& scratch) const;

  // The tokens that may continue a beam, as SequenceStep::beam_width says, from raw logits
  // [vocab_size]. As in Transformers the logits processors work on log-probabilities, which are not
  // normalized again. None if a logit is NaN or +inf; empty if every token is masked.
  std::optional<BeamCandidates> beam_candidates(const SequenceState& state,
                                                std::span<const float> logits,
                                                std::int32_t beam_width,
                                                SamplerScratch& scratch) const;

  // `token` and the `num_top` most likely tokens of raw logits [vocab_size] (-1: all of them).
  PositionLogprobs logprobs(std::span<const float> logits,
                            TokenId token,
                            std::int32_t num_top,
                            SamplerScratch& scratch) const;

 private:
  TokenId draw(const SamplingParams& params,
               std::span<const float> scaled,
               double uniform,
               SamplerScratch& scratch) const;
  TokenId draw_from_all(std::span<const float> scaled, double uniform) const;
  void collect_candidates(const SamplingParams& params,
                          std::span<const float> scaled,
                          SamplerScratch& scratch) const;

  const ElementwiseKernels& kernels_;
  std::int32_t vocab_size_;
  std::vector<TokenId> eos_token_ids_;
};

}  // namespace pagemill
