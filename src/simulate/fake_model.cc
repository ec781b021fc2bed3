#include "simulate/fake_model.h"

#include <algorithm>

namespace pagemill {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

SlotContent FakeModel::content(SlotContent previous, TokenId token) const {
  return mix(previous ^ mix(static_cast<std::uint64_t>(token) + 1)) | 1;
}

TokenId FakeModel::sample(SlotContent last,
                          const SamplingParams& params,
                          std::uint64_t seed,
                          std::int32_t sequence_index,
                          std::int32_t position) const {
  std::uint64_t random =
      mix(last ^ mix(seed ^ mix(sequence_index) ^ mix(~std::uint64_t(position))));
  for (;; random = mix(random)) {
    const auto token = static_cast<TokenId>(random % vocab_size);
    const bool stops = contains(eos_token_ids, token) || contains(params.stop_token_ids, token);
    if (!stops || position >= params.min_tokens) return token;
  }
}

std::vector<BeamCandidate> FakeModel::candidates(SlotContent last,
                                                 const SamplingParams& params,
                                                 std::int32_t position) const {
  std::uint64_t random = mix(last);
  const std::uint64_t num_draws = 2 + random % 15;
  std::vector<BeamCandidate> candidates;
  for (std::uint64_t i = 0; i < num_draws; ++i) {
    random = mix(random);
    BeamCandidate drawn;
    drawn.token = static_cast<TokenId>(random % vocab_size);
    drawn.ends = is_end_token(params, eos_token_ids, drawn.token);
    drawn.logprob = -1.0f / 256 * static_cast<float>(random >> 40 & 0x3ff);  // ties happen
    drawn.raw_logprob = drawn.logprob;
    const auto is_same = [&](const BeamCandidate& other) { return other.token == drawn.token; };
    const bool masked =
        position < params.min_tokens && (drawn.ends || contains(eos_token_ids, drawn.token));
    if (masked || std::any_of(candidates.begin(), candidates.end(), is_same)) continue;
    candidates.push_back(drawn);
  }
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  });
  return candidates;
}

}  // namespace pagemill
