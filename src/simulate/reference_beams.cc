#include "simulate/reference_beams.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pagemill {
namespace {

using Hypotheses = std::vector<ReferenceHypothesis>;

void sort_best_first(Hypotheses& hypotheses) {
  std::stable_sort(hypotheses.begin(), hypotheses.end(), [](const auto& a, const auto& b) {
    return a.score > b.score;
  });
}

float power(std::size_t length, float penalty) {
  return static_cast<float>(std::pow(static_cast<double>(length), static_cast<double>(penalty)));
}

// Every continuation of every beam, best first.
Hypotheses continuations(const Hypotheses& beams, const NextLogprobs& next_logprobs) {
  Hypotheses all;
  for (const ReferenceHypothesis& beam : beams) {
    Hypotheses of_beam;
    const std::vector<float> logprobs = next_logprobs(beam.tokens);
    for (std::size_t token = 0; token < logprobs.size(); ++token) {
      if (logprobs[token] == -std::numeric_limits<float>::infinity()) continue;
      ReferenceHypothesis& next = of_beam.emplace_back();
      next.score = logprobs[token];
      next.tokens = beam.tokens;
      next.tokens.push_back(static_cast<TokenId>(token));
    }
    sort_best_first(of_beam);  // by its own logprob: sums of different ones may be equal
    for (ReferenceHypothesis& next : of_beam) next.score += beam.score;
    all.insert(all.end(), of_beam.begin(), of_beam.end());
  }
  sort_best_first(all);
  return all;
}

}  // namespace

std::vector<ReferenceHypothesis> reference_beam_search(const SamplingParams& params,
                                                       std::span<const TokenId> eos_token_ids,
                                                       std::int32_t max_tokens,
                                                       const NextLogprobs& next_logprobs) {
  const auto width = static_cast<std::size_t>(params.num_sequences());
  Hypotheses beams(1), finished;
  for (std::int32_t length = 1; length <= max_tokens && !beams.empty(); ++length) {
    const Hypotheses all = continuations(beams, next_logprobs);
    beams.clear();
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (length == max_tokens || is_end_token(params, eos_token_ids, all[i].tokens.back())) {
        if (i >= width) continue;
        finished.push_back(all[i]);
        finished.back().score /= power(length, params.length_penalty);
      } else if (beams.size() < width) {
        beams.push_back(all[i]);
      }
    }
    sort_best_first(finished);
    if (finished.size() > width) finished.resize(width);
    if (finished.size() < width || beams.empty()) continue;
    if (params.early_stopping == EarlyStopping::kTrue || width == 1) break;
    const bool never = params.early_stopping == EarlyStopping::kNever;
    const float best =
        beams.front().score /
        power(never && params.length_penalty > 0 ? max_tokens : length, params.length_penalty);
    if (!(best > finished.back().score)) break;
  }
  return finished;
}

}  // namespace pagemill
