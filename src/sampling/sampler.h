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

// A row of logits [vocab_size] as the model computed it, without NaN or +inf.
struct FiniteLogits {
  std::span<const float> values;
  float log_sum_exp = 0;
};

class Sampler {
 public:
  Sampler(const ElementwiseKernels& kernels,
          std::int32_t vocab_size,
          std::vector<TokenId> eos_token_ids);

  // None if a logit is NaN or +inf, or none is above -inf. Asked of the raw row, before a mask can
  // hide what went wrong.
  std::optional<FiniteLogits> check(std::span<const float> logits) const;

  // Draws the sequence's next token; log-probabilities are those of the raw logits. None if every
  // token is masked.
  std::optional<SampledToken> sample(const SequenceState& state,
                                     const FiniteLogits& logits,
                                     SamplerScratch& scratch) const;

  // The tokens that may continue a beam, as SequenceStep::beam_width says. As in Transformers
  // the logits processors work on log-probabilities, which are not normalized again. Empty if every
  // token is masked.
  BeamCandidates beam_candidates(const SequenceState& state,
                                 const FiniteLogits& logits,
                                 std::int32_t beam_width,
                                 SamplerScratch& scratch) const;

  // `token` and the `num_top` most likely tokens (-1: all of them).
  PositionLogprobs logprobs(const FiniteLogits& logits,
                            TokenId token,
                            std::int32_t num_top,
                            SamplerScratch& scratch) const;

 private:
  // Logits after processors and temperature, with what their one reduction gave.
  struct Scaled {
    std::span<const float> values;
    float log_sum_exp = 0;
    float max = 0;
  };
  TokenId draw(const SamplingParams& params,
               const Scaled& scaled,
               double uniform,
               SamplerScratch& scratch) const;
  TokenId draw_from_all(const Scaled& scaled, double uniform) const;
  void collect_candidates(const SamplingParams& params,
                          const Scaled& scaled,
                          SamplerScratch& scratch) const;

  const ElementwiseKernels& kernels_;
  std::int32_t vocab_size_;
  std::vector<TokenId> eos_token_ids_;
};

}  // namespace pagemill
