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

}  // namespace pagemill
