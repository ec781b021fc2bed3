#include "request/sampling_params.h"

#include "request/sampling_fields.h"

namespace pagemill {
namespace {

Status validate_bad_word_tokens(const SamplingParams& params, std::int32_t vocab_size) {
  for (const auto& word : params.bad_words_token_ids) {
    if (word.empty()) {
      return invalid_argument("bad_words_token_ids: expected at least one token in each",
                              "bad_words_token_ids");
    }
    for (const TokenId token : word) {
      if (token >= 0 && token < vocab_size) continue;
      return invalid_argument(
          fmt::format(
              "bad_words_token_ids: expected token ids >= 0 and < {}, got {}", vocab_size, token),
          "bad_words_token_ids");
    }
  }
  return ok_status();
}

}  // namespace

Status validate(const SamplingParams& params, std::int32_t vocab_size) {
  for (const SamplingField& field : sampling_fields()) {
    PM_TRY(validate_field(field, params, vocab_size));
  }
  PM_TRY(validate_bad_word_tokens(params, vocab_size));
  if (params.best_of && *params.best_of < params.n) {
    return invalid_argument(
        fmt::format("best_of: expected an integer >= n ({}), got {}", params.n, *params.best_of),
        "best_of");
  }
  if (params.min_tokens > params.max_tokens) {
    return invalid_argument(
        fmt::format("min_tokens: expected an integer <= max_tokens ({}), got {}",
                    params.max_tokens,
                    params.min_tokens),
        "min_tokens");
  }
  return ok_status();
}

}  // namespace pagemill
