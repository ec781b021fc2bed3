#include "sampling/sequence_state.h"

namespace pagemill {

SequenceState::SequenceState(std::shared_ptr<const SamplingParams> params,
                             std::uint64_t seed,
                             std::int32_t sequence_index,
                             std::span<const TokenId> prompt,
                             std::span<const TokenId> output)
    : params_(std::move(params)),
      seed_(seed),
      sequence_index_(sequence_index),
      prompt_len_(static_cast<std::int32_t>(prompt.size())) {
  if (params_->prompt_logprobs) prompt_.assign(prompt.begin(), prompt.end());
  if (counts_tokens()) {
    for (TokenId token : prompt) counts_[token].in_prompt = true;
  }
  for (TokenId token : output) accept(token);
}

bool SequenceState::counts_tokens() const {
  return params_->repetition_penalty != 1.0f || params_->presence_penalty != 0.0f ||
         params_->frequency_penalty != 0.0f;
}

void SequenceState::become_fork(const SequenceState& parent,
                                std::uint64_t seed,
                                std::int32_t sequence_index) {
  *this = parent;
  seed_ = seed;
  sequence_index_ = sequence_index;
}

void SequenceState::accept(TokenId token) {
  output_.push_back(token);
  if (counts_tokens()) ++counts_[token].in_output;
}

}  // namespace pagemill
