#include "request/sampling_params.h"

#include <algorithm>

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

Status validate_beam_search(const SamplingParams& params) {
  const auto refuse = [](bool refused, const char* param, const std::string& why) -> Status {
    if (!refused) return ok_status();
    return invalid_argument(fmt::format("{}: {}", param, why), param);
  };
  if (!params.use_beam_search) {
    const std::string alone = "only available with use_beam_search";
    PM_TRY(refuse(params.beam_width.has_value(), "beam_width", alone));
    PM_TRY(refuse(params.length_penalty != 1.0f, "length_penalty", alone));
    return refuse(params.early_stopping != EarlyStopping::kFalse, "early_stopping", alone);
  }
  const std::int32_t width = params.num_sequences();
  PM_TRY(refuse(width < params.n,
                "beam_width",
                fmt::format("expected an integer >= n ({}), got {}", params.n, width)));
  PM_TRY(refuse(params.best_of && *params.best_of != width,
                "best_of",
                fmt::format("expected beam_width ({}) with use_beam_search, got {}",
                            width,
                            params.best_of.value_or(0))));
  const auto drawn = [](float given, int expected) {
    return fmt::format(
        "expected {} with use_beam_search, which ranks tokens and draws none, got {:g}",
        expected,
        given);
  };
  PM_TRY(refuse(!params.greedy(), "temperature", drawn(params.temperature, 0)));
  PM_TRY(refuse(params.top_p != 1.0f, "top_p", drawn(params.top_p, 1)));
  PM_TRY(refuse(params.top_k > 0, "top_k", drawn(static_cast<float>(params.top_k), 0)));
  PM_TRY(refuse(params.min_p != 0.0f, "min_p", drawn(params.min_p, 0)));
  return refuse(!params.stop.empty(),
                "stop",
                "not available with use_beam_search, which ranks token ids and has no text before "
                "its end; use stop_token_ids");
}

}  // namespace

bool is_end_token(const SamplingParams& params,
                  std::span<const TokenId> eos_token_ids,
                  TokenId token) {
  const auto has = [&](std::span<const TokenId> tokens) {
    return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
  };
  return (!params.ignore_eos && has(eos_token_ids)) || has(params.stop_token_ids);
}

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
  PM_TRY(validate_beam_search(params));
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
