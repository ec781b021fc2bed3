// A model without tensors: deterministic, and sensitive to every token before.
//
// The "keys and values" of a token are one number that digests its whole prefix, so that a stale,
// foreign or missing slot changes what comes after it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "plan/step_plan.h"
#include "request/sampling_params.h"

namespace pagemill {

// What one slot of the cache holds: never kEmptySlot once written.
using SlotContent = std::uint64_t;
inline constexpr SlotContent kEmptySlot = 0;

struct FakeModel {
  std::int32_t vocab_size = 1000;
  std::vector<TokenId> eos_token_ids;

  // The content for `token`, given its predecessor's (kEmptySlot before the first token).
  SlotContent content(SlotContent previous, TokenId token) const;
  // The token that follows a prefix whose last slot is `last`, `position` output tokens being
  // there. EOS and stop tokens come only from min_tokens on.
  TokenId sample(SlotContent last,
                 const SamplingParams& params,
                 std::uint64_t seed,
                 std::int32_t sequence_index,
                 std::int32_t position) const;
  // The tokens that may follow such a prefix, with log-probabilities, most likely first; all others
  // are masked. Different numbers of them, 2 at least but for end tokens masked by min_tokens.
  std::vector<BeamCandidate> candidates(SlotContent last,
                                        const SamplingParams& params,
                                        std::int32_t position) const;
};

}  // namespace pagemill
