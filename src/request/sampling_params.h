// SamplingParams: how one request's tokens are chosen. Names, ranges and defaults follow vLLM's and
// OpenAI's; request/sampling_fields.h describes each field once for validation, JSON and docs.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace pagemill {

// When a beam search whose beam_width hypotheses are complete ends; names and meaning are those of
// Hugging Face Transformers' early_stopping.
enum class EarlyStopping {
  kFalse,  // once the best beam, at its present length, scores no better than the worst of them
  kTrue,   // at once
  kNever,  // as kFalse, but a length_penalty over 0 takes the beam at the longest that it may
           // become
};

struct SamplingParams {
  std::int32_t n = 1;  // sequences returned, 1..128
  std::optional<std::int32_t>
      best_of;               // sequences sampled, >= n; the best n by cumulative logprob return
  float temperature = 1.0f;  // 0 is greedy; 0..2 by OpenAI's rule, any >= 0 accepted
  float top_p = 1.0f;        // (0, 1]
  std::int32_t top_k = 0;    // 0 or -1 is off
  float min_p = 0.0f;        // [0, 1]
  float presence_penalty = 0.0f;      // [-2, 2]
  float frequency_penalty = 0.0f;     // [-2, 2]
  float repetition_penalty = 1.0f;    // > 0; 1 is off; counts prompt and output tokens
  std::optional<std::uint64_t> seed;  // none: the engine draws one

  std::int32_t max_tokens = 16;  // >= 1
  std::int32_t min_tokens = 0;   // EOS and stop_token_ids are masked before it
  bool ignore_eos = false;
  std::vector<std::string> stop;  // up to 64 strings
  std::vector<TokenId> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool spaces_between_special_tokens = true;

  // Beam search keeps the beam_width likeliest sequences at each length; the best n complete ones
  // are returned, best first. A hypothesis scores the sum of its log-probabilities (after the
  // logits processors) / length^length_penalty, its end token counted in both.
  bool use_beam_search = false;            // then temperature must be 0
  std::optional<std::int32_t> beam_width;  // n..128; none: best_of, or n
  float length_penalty = 1.0f;             // over 0 favours long hypotheses
  EarlyStopping early_stopping = EarlyStopping::kFalse;

  std::optional<std::int32_t> logprobs;  // top candidates per output token, 0..vocab_size (-1: all)
  std::optional<std::int32_t> prompt_logprobs;            // the same for prompt tokens
  std::vector<std::pair<TokenId, float>> logit_bias;      // added to the raw logits, each -100..100
  std::vector<TokenId> allowed_token_ids;                 // empty: all
  std::vector<std::vector<TokenId>> bad_words_token_ids;  // sequences never completed
  std::vector<std::string> bad_words;  // tokenised into bad_words_token_ids at the door

  bool greedy() const { return temperature <= 0.0f; }
  // Sequences that run at once.
  std::int32_t num_sequences() const {
    const std::int32_t sampled = best_of.value_or(n);
    return use_beam_search ? beam_width.value_or(sampled) : sampled;
  }
  // The field that says so, for messages.
  const char* width_field() const {
    return use_beam_search && beam_width ? "beam_width" : best_of ? "best_of" : "n";
  }
  // Sequences of which events tell: a beam search names its n best when it ends.
  std::int32_t num_outputs() const { return use_beam_search ? n : num_sequences(); }
  // Takes the most likely token each time: what a beam search starts from where the defaults
  // sample.
  void make_greedy() { temperature = 0, top_p = 1, top_k = 0, min_p = 0; }
};

// Whether `token` ends a sequence, min_tokens aside: before it such tokens are masked.
bool is_end_token(const SamplingParams& params,
                  std::span<const TokenId> eos_token_ids,
                  TokenId token);

// For a check before the model is known.
constexpr std::int32_t kAnyVocabSize = std::numeric_limits<std::int32_t>::max();
// Checks ranges and combinations; the error's `param` names the field.
Status validate(const SamplingParams& params, std::int32_t vocab_size);

}  // namespace pagemill
