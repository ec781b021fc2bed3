#include "sampling/logits_processors.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace pagemill {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

void mask(std::span<float> logits, TokenId token) {
  if (token >= 0 && static_cast<std::size_t>(token) < logits.size()) logits[token] = kMasked;
}

// Masks the last token of each bad word whose other tokens end the output.
void mask_bad_words(const SequenceState& state, std::span<float> logits) {
  const std::span<const TokenId> output = state.output();
  for (const std::vector<TokenId>& word : state.params().bad_words_token_ids) {
    if (word.empty() || word.size() - 1 > output.size()) continue;
    const auto prefix = output.last(word.size() - 1);
    if (std::equal(prefix.begin(), prefix.end(), word.begin())) mask(logits, word.back());
  }
}

void apply_penalties(const SequenceState& state, std::span<float> logits) {
  const SamplingParams& params = state.params();
  for (const auto& [token, count] : state.counts()) {
    if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) continue;
    float& logit = logits[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count.in_output > 0) {
      logit -= params.frequency_penalty * static_cast<float>(count.in_output);
      logit -= params.presence_penalty;
    }
  }
}

bool below_min_tokens(const SequenceState& state) {
  return static_cast<std::int32_t>(state.output().size()) < state.params().min_tokens;
}

}  // namespace

bool has_logits_processors(const SequenceState& state) {
  const SamplingParams& params = state.params();
  return !params.allowed_token_ids.empty() || !params.bad_words_token_ids.empty() ||
         below_min_tokens(state) || !params.logit_bias.empty() || !state.counts().empty();
}

void copy_allowed(const SamplingParams& params,
                  std::span<const float> logits,
                  std::vector<float>& row) {
  const std::vector<TokenId>& allowed = params.allowed_token_ids;
  if (allowed.empty()) return row.assign(logits.begin(), logits.end());
  row.assign(logits.size(), kMasked);
  for (const TokenId token : allowed) row[token] = logits[token];
}

void apply_logits_processors(const SequenceState& state,
                             std::span<const TokenId> eos_token_ids,
                             std::span<float> logits) {
  const SamplingParams& params = state.params();
  mask_bad_words(state, logits);
  if (below_min_tokens(state)) {
    for (TokenId token : eos_token_ids) mask(logits, token);
    for (TokenId token : params.stop_token_ids) mask(logits, token);
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && static_cast<std::size_t>(token) < logits.size()) logits[token] += bias;
  }
  apply_penalties(state, logits);
}

}  // namespace pagemill
