// What sampling remembers of one sequence: its parameters, its random key, and the counts that
// penalties need.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "request/sampling_params.h"

namespace pagemill {

class SequenceState {
 public:
  // `prompt` and `output`: the tokens so far (output is not empty when a preempted sequence
  // resumes).
  SequenceState(std::shared_ptr<const SamplingParams> params,
                std::uint64_t seed,
                std::int32_t sequence_index,
                std::span<const TokenId> prompt,
                std::span<const TokenId> output);

  // Becomes a sibling of `parent`: the same tokens so far, with its own random numbers.
  void become_fork(const SequenceState& parent, std::uint64_t seed, std::int32_t sequence_index);

  void accept(TokenId token);

  const SamplingParams& params() const { return *params_; }
  std::uint64_t seed() const { return seed_; }
  std::int32_t sequence_index() const { return sequence_index_; }
  std::int32_t prompt_len() const { return prompt_len_; }
  // Of the prompt and the output.
  std::int32_t num_tokens() const {
    return prompt_len_ + static_cast<std::int32_t>(output_.size());
  }
  // Kept only where params.prompt_logprobs asks for them.
  TokenId prompt_token(std::int32_t index) const { return prompt_[index]; }
  std::span<const TokenId> output() const { return output_; }

  // Tokens seen in prompt or output; output counts only where presence or frequency penalties need
  // them.
  struct Counts {
    bool in_prompt = false;
    std::int32_t in_output = 0;
  };
  const std::unordered_map<TokenId, Counts>& counts() const { return counts_; }

 private:
  bool counts_tokens() const;

  std::shared_ptr<const SamplingParams> params_;
  std::uint64_t seed_;
  std::int32_t sequence_index_;
  std::int32_t prompt_len_;
  std::vector<TokenId> prompt_;  // empty without prompt_logprobs
  std::vector<TokenId> output_;
  std::unordered_map<TokenId, Counts> counts_;  // empty without penalties
};

}  // namespace pagemill
