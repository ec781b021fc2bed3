#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "sampling/logits_processors.h"
#include "sampling/random.h"

namespace pagemill {
namespace {

using Candidate = std::pair<float, TokenId>;

// Most likely first; the lower id on ties.
bool more_likely(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// The `count` most likely tokens into `best`, most likely first.
void find_best(std::span<const float> logits, std::int64_t count, std::vector<Candidate>& best) {
  const auto size = static_cast<std::int64_t>(logits.size());
  best.clear();  // a heap, the least likely of the best on top
  if (count == 0) return;
  for (std::int64_t i = 0; i < count; ++i) best.emplace_back(logits[i], static_cast<TokenId>(i));
  std::make_heap(best.begin(), best.end(), more_likely);
  constexpr std::int64_t kBlock = 64;  // looked at token by token only if one of them is better
  for (std::int64_t begin = count; begin < size; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, size);
    bool any_better = false;
    const float least = best.front().first;
    for (std::int64_t i = begin; i < end; ++i) any_better |= logits[i] > least;
    if (!any_better) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      // Later tokens have higher ids: they lose ties.
      if (!(logits[i] > best.front().first)) continue;
      std::pop_heap(best.begin(), best.end(), more_likely);
      best.back() = {logits[i], static_cast<TokenId>(i)};
      std::push_heap(best.begin(), best.end(), more_likely);
    }
  }
  std::sort_heap(best.begin(), best.end(), more_likely);
}

std::int32_t rank_of(std::span<const float> logits, TokenId token) {
  std::int32_t rank = 1;
  for (const float logit : logits) rank += logit > logits[token] ? 1 : 0;
  return rank;
}

std::vector<TokenLogprob> top_logprobs(std::span<const Candidate> best, float lse) {
  std::vector<TokenLogprob> top;
  top.reserve(best.size());
  for (const auto& [logit, token] : best) {
    top.push_back({token, logit - lse, static_cast<std::int32_t>(top.size() + 1), {}});
  }
  return top;
}

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Below this the temperature is taken as greedy: scaled logits would overflow.
constexpr float kMinTemperature = 1e-5f;

}  // namespace

Sampler::Sampler(const ElementwiseKernels& kernels,
                 std::int32_t vocab_size,
                 std::vector<TokenId> eos_token_ids)
    : kernels_(kernels), vocab_size_(vocab_size), eos_token_ids_(std::move(eos_token_ids)) {}

std::optional<FiniteLogits> Sampler::check(std::span<const float> logits) const {
  PM_CHECK(logits.size() == static_cast<std::size_t>(vocab_size_), "{} logits", logits.size());
  float max = 0;
  const float lse = kernels_.log_sum_exp(logits.data(), vocab_size_, &max);
  if (!std::isfinite(lse)) return std::nullopt;  // a NaN anywhere makes the sum NaN
  return FiniteLogits{logits, lse};
}

std::optional<SampledToken> Sampler::sample(const SequenceState& state,
                                            const FiniteLogits& logits,
                                            SamplerScratch& scratch) const {
  const SamplingParams& params = state.params();
  std::span<const float> processed = logits.values;
  const bool greedy = params.temperature < kMinTemperature;
  if (has_logits_processors(state) || !greedy) {
    copy_allowed(params, logits.values, scratch.logits);
    apply_logits_processors(state, eos_token_ids_, scratch.logits);
    if (!greedy) {
      const float inverse = 1.0f / params.temperature;
      for (float& logit : scratch.logits) logit *= inverse;
    }
    processed = scratch.logits;
  }
  SampledToken sampled;
  if (greedy) {
    sampled.token = static_cast<TokenId>(kernels_.argmax(processed.data(), vocab_size_));
    if (processed[sampled.token] == kMasked) return std::nullopt;
  } else {
    Scaled scaled{.values = processed};
    scaled.log_sum_exp = kernels_.log_sum_exp(processed.data(), vocab_size_, &scaled.max);
    if (!std::isfinite(scaled.log_sum_exp)) return std::nullopt;
    const auto position = static_cast<std::int32_t>(state.output().size());
    const double uniform = uniform_draw(state.seed(), state.sequence_index(), position);
    sampled.token = draw(params, scaled, uniform, scratch);
  }
  if (params.logprobs) {
    sampled.logprobs = logprobs(logits, sampled.token, *params.logprobs, scratch);
  }
  return sampled;
}

BeamCandidates Sampler::beam_candidates(const SequenceState& state,
                                        const FiniteLogits& logits,
                                        std::int32_t beam_width,
                                        SamplerScratch& scratch) const {
  const SamplingParams& params = state.params();
  const float lse = logits.log_sum_exp;
  std::span<const float> processed = logits.values;
  float shift = lse;  // from a processed value to its log-probability
  if (has_logits_processors(state)) {
    copy_allowed(params, logits.values, scratch.logits);
    for (float& logit : scratch.logits) logit -= lse;
    apply_logits_processors(state, eos_token_ids_, scratch.logits);
    processed = scratch.logits;
    shift = 0;
  }
  const std::size_t num_ends = params.stop_token_ids.size() + eos_token_ids_.size();
  const std::int64_t count =
      std::min<std::int64_t>(vocab_size_, beam_width + static_cast<std::int64_t>(num_ends));
  find_best(processed, count, scratch.candidates);

  BeamCandidates result;
  result.candidates.reserve(scratch.candidates.size());
  std::int32_t num_going_on = 0;
  for (const auto& [value, token] : scratch.candidates) {
    if (num_going_on == beam_width || !(value > kMasked)) break;
    const bool ends = is_end_token(params, eos_token_ids_, token);
    if (!ends) ++num_going_on;
    result.candidates.push_back({token, ends, value - shift, logits.values[token] - lse, 0});
  }
  if (!params.logprobs) return result;
  for (BeamCandidate& candidate : result.candidates) {
    candidate.rank = rank_of(logits.values, candidate.token);
  }
  const std::int64_t num_top =
      *params.logprobs < 0 ? vocab_size_ : std::min(*params.logprobs, vocab_size_);
  find_best(logits.values, num_top, scratch.candidates);
  result.top = top_logprobs(scratch.candidates, lse);
  return result;
}

TokenId Sampler::draw(const SamplingParams& params,
                      const Scaled& scaled,
                      double uniform,
                      SamplerScratch& scratch) const {
  const bool truncates = params.top_p < 1.0f || params.top_k > 0 || params.min_p > 0.0f;
  if (!truncates) return draw_from_all(scaled, uniform);
  collect_candidates(params, scaled, scratch);
  const std::vector<Candidate>& candidates = scratch.candidates;
  double total = 0;
  const float max = candidates.front().first;
  for (const Candidate& c : candidates) total += std::exp(c.first - max);
  double target = uniform * total;
  for (const Candidate& c : candidates) {
    target -= std::exp(c.first - max);
    if (target < 0) return c.second;
  }
  return candidates.back().second;
}

// Inverts the cumulative distribution in id order: first by chunks with the vector kernel, then
// within one.
TokenId Sampler::draw_from_all(const Scaled& scaled, double uniform) const {
  constexpr std::int64_t kChunk = 1024;
  const std::span<const float> values = scaled.values;
  const auto size = static_cast<std::int64_t>(values.size());
  const double lse = scaled.log_sum_exp;
  float max = 0;
  double target = uniform;
  std::int64_t last_positive = -1;
  for (std::int64_t begin = 0; begin < size; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, size - begin);
    const double chunk_lse = kernels_.log_sum_exp(values.data() + begin, count, &max);
    if (!std::isfinite(chunk_lse)) continue;  // every token masked
    const double mass = std::exp(chunk_lse - lse);
    last_positive = begin;
    if (target >= mass) {
      target -= mass;
      continue;
    }
    for (std::int64_t i = begin; i < begin + count; ++i) {
      target -= std::exp(static_cast<double>(values[i]) - lse);
      if (target < 0) return static_cast<TokenId>(i);
    }
    break;
  }
  // Rounding left a sliver of mass past the end: the likeliest token of the last chunk that has
  // any.
  PM_CHECK(last_positive >= 0, "every token is masked");
  const std::int64_t count = std::min(kChunk, size - last_positive);
  return static_cast<TokenId>(last_positive +
                              kernels_.argmax(values.data() + last_positive, count));
}

// The tokens that min_p, top_k and top_p leave, in that order, most likely first. Only tokens above
// a cutoff are gathered and sorted; the cutoff falls until they surely hold all that is left.
void Sampler::collect_candidates(const SamplingParams& params,
                                 const Scaled& scaled,
                                 SamplerScratch& scratch) const {
  constexpr float kFirstDepth = 8.0f, kEverything = 1e6f;
  std::vector<Candidate>& candidates = scratch.candidates;
  const std::span<const float> values = scaled.values;
  const auto size = static_cast<std::int64_t>(values.size());
  const double lse = scaled.log_sum_exp;
  const bool has_min_p = params.min_p > 0.0f;
  const bool has_top_k = params.top_k > 0 && params.top_k < size;
  const auto top_k = static_cast<std::size_t>(params.top_k);
  const auto mass_of = [&] {
    double mass = 0;
    for (const Candidate& c : candidates) mass += std::exp(c.first - lse);
    return mass;
  };

  double mass = 0;  // of the candidates, where top_p is to know it
  for (float depth = kFirstDepth;; depth *= 4.0f) {
    const bool everything = has_min_p || depth > kEverything;
    const float cutoff = has_min_p    ? scaled.max + std::log(params.min_p)
                         : everything ? kMasked
                                      : scaled.max - depth;
    candidates.clear();
    for (std::int64_t i = 0; i < size; ++i) {
      if (values[i] >= cutoff && values[i] != kMasked) {
        candidates.emplace_back(values[i], static_cast<TokenId>(i));
      }
    }
    mass = mass_of();
    if (everything || (has_top_k ? candidates.size() >= top_k : mass >= params.top_p)) break;
  }
  if (has_top_k && candidates.size() > top_k) {
    std::nth_element(candidates.begin(),
                     candidates.begin() + static_cast<std::ptrdiff_t>(top_k - 1),
                     candidates.end(),
                     more_likely);
    candidates.resize(top_k);
  }
  std::sort(candidates.begin(), candidates.end(), more_likely);
  if (params.top_p >= 1.0f) return;

  // top_p is a share of what min_p and top_k left (as vLLM).
  const double total = has_min_p || has_top_k ? mass_of() : 1.0;
  double cumulative = 0;
  std::size_t kept = 0;
  while (kept < candidates.size() && cumulative < params.top_p * total) {
    cumulative += std::exp(candidates[kept].first - lse);
    ++kept;
  }
  candidates.resize(std::max<std::size_t>(kept, 1));
}

PositionLogprobs Sampler::logprobs(const FiniteLogits& logits,
                                   TokenId token,
                                   std::int32_t num_top,
                                   SamplerScratch& scratch) const {
  const std::span<const float> values = logits.values;
  const auto size = static_cast<std::int64_t>(values.size());
  PositionLogprobs result;
  result.chosen = {token, values[token] - logits.log_sum_exp, rank_of(values, token), {}};
  const std::int64_t count = num_top < 0 ? size : std::min<std::int64_t>(num_top, size);
  if (count == 0) return result;

  find_best(values, count, scratch.candidates);
  result.top = top_logprobs(scratch.candidates, logits.log_sum_exp);
  return result;
}

}  // namespace pagemill
