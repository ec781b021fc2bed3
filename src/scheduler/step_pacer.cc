#include "scheduler/step_pacer.h"

#include <algorithm>
#include <limits>

namespace pagemill {
namespace {

// Of the newest observation.
constexpr double kWeight = 0.2;
// Fewer tokens take hardly less time: the weights are read all the same.
constexpr std::int32_t kMinPromptTokens = 32;

void smooth(double& value, double newest) {
  value = value == 0 ? newest : value + kWeight * (newest - value);
}

}  // namespace

void StepPacer::observe(std::int32_t num_decoding, std::int32_t num_prompt_tokens, double seconds) {
  if (target_s_ == 0 || seconds <= 0) return;
  if (num_prompt_tokens == 0) return smooth(decode_s_, seconds);
  if (num_prompt_tokens < kMinPromptTokens) return;
  // An outdated decode_s_ does no harm: what it is wrong by goes into the cost of a prompt token,
  // and the two together are what the next step will take.
  const double prompt_s = seconds - (num_decoding > 0 ? decode_s_ : 0);
  smooth(per_prompt_token_s_, std::max(prompt_s, 0.1 * seconds) / num_prompt_tokens);
}

std::int32_t StepPacer::prompt_tokens() const {
  constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();
  if (target_s_ == 0 || per_prompt_token_s_ == 0) return kNoLimit;
  const double fitting = std::max(target_s_ - decode_s_, decode_s_) / per_prompt_token_s_;
  return static_cast<std::int32_t>(std::clamp<double>(fitting, kMinPromptTokens, kNoLimit));
}

}  // namespace pagemill
