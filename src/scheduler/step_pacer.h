// StepPacer: how many prompt tokens a step may compute so that the streams that decode beside them
// get their next token in time. It learns what they cost from the steps themselves.
#pragma once

#include <cstdint>

namespace pagemill {

class StepPacer {
 public:
  // Seconds that a step with decoding sequences should take at most; 0: as long as it likes.
  explicit StepPacer(double target_s) : target_s_(target_s) {}

  // A step in which so many sequences decoded, beside so many tokens of prompts, took `seconds`.
  void observe(std::int32_t num_decoding, std::int32_t num_prompt_tokens, double seconds);

  // The prompt tokens that fit into a step beside decoding: what the target leaves, but never less
  // than take as long as the decoding itself, so that prompts aren't starved where decoding alone
  // takes longer than the target.
  std::int32_t prompt_tokens() const;

 private:
  double target_s_;
  double decode_s_ = 0;            // of a step that computes no prompt; 0: not seen yet
  double per_prompt_token_s_ = 0;  // 0: not seen yet
};

}  // namespace pagemill
