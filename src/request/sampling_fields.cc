#include "request/sampling_fields.h"

#include <array>
#include <cmath>
#include <limits>

namespace pagemill {
namespace {

using Params = SamplingParams;
constexpr double kInf = std::numeric_limits<double>::infinity();

const SamplingField kFields[] = {
    {.name = "n", .member = &Params::n, .low = 1, .high = 128, .doc = "Sequences to return."},
    {.name = "best_of",
     .member = &Params::best_of,
     .low = 1,
     .high = 128,
     .doc = "Sequences to sample; the n best by cumulative logprob are returned. At least n."},
    {.name = "temperature",
     .member = &Params::temperature,
     .high = kInf,
     .doc = "Divides the logits; 0 takes the most likely token."},
    {.name = "top_p",
     .member = &Params::top_p,
     .high = 1,
     .low_open = true,
     .doc = "Samples among the most likely tokens that together reach this probability."},
    {.name = "top_k",
     .member = &Params::top_k,
     .low = -1,
     .high = kInf,
     .doc = "Samples among this many most likely tokens; 0 or -1 is off."},
    {.name = "min_p",
     .member = &Params::min_p,
     .high = 1,
     .doc = "Leaves out tokens less likely than this share of the most likely one."},
    {.name = "presence_penalty",
     .member = &Params::presence_penalty,
     .low = -2,
     .high = 2,
     .doc = "Subtracted from the logits of tokens that the output contains."},
    {.name = "frequency_penalty",
     .member = &Params::frequency_penalty,
     .low = -2,
     .high = 2,
     .doc = "Subtracted from a token's logit once for each time the output contains it."},
    {.name = "repetition_penalty",
     .member = &Params::repetition_penalty,
     .high = kInf,
     .low_open = true,
     .doc = "Over 1, makes tokens of the prompt and the output less likely; 1 is off."},
    {.name = "seed",
     .member = &Params::seed,
     .high = 18446744073709551615.0,
     .doc = "The same seed gives the same text, whatever else runs."},
    {.name = "max_tokens",
     .member = &Params::max_tokens,
     .low = 1,
     .high = kInf,
     .doc = "The most tokens that a sequence generates."},
    {.name = "min_tokens",
     .member = &Params::min_tokens,
     .high = kInf,
     .doc = "Tokens before which neither EOS nor stop_token_ids can come."},
    {.name = "ignore_eos", .member = &Params::ignore_eos, .doc = "Goes on after EOS."},
    {.name = "stop",
     .member = &Params::stop,
     .max_items = 64,
     .doc = "Strings that end a sequence."},
    {.name = "stop_token_ids",
     .member = &Params::stop_token_ids,
     .max_items = 1024,
     .doc = "Tokens that end a sequence."},
    {.name = "include_stop_str_in_output",
     .member = &Params::include_stop_str_in_output,
     .doc = "Keeps the stop string in the text."},
    {.name = "skip_special_tokens",
     .member = &Params::skip_special_tokens,
     .doc = "Leaves special tokens out of the text."},
    {.name = "spaces_between_special_tokens",
     .member = &Params::spaces_between_special_tokens,
     .doc = "Puts a space between special tokens in the text."},
    {.name = "use_beam_search",
     .member = &Params::use_beam_search,
     .doc = "Returns the n likeliest sequences that a beam search finds, best first."},
    {.name = "beam_width",
     .member = &Params::beam_width,
     .low = 1,
     .high = 128,
     .doc = "Beams of a beam search, at least n; best_of or n if absent."},
    {.name = "length_penalty",
     .member = &Params::length_penalty,
     .low = -kInf,
     .high = kInf,
     .doc = "A beam search's scores are divided by length to this power."},
    {.name = "early_stopping",
     .member = &Params::early_stopping,
     .doc = "Whether a beam search ends once beam_width sequences are complete."},
    {.name = "logprobs",
     .member = &Params::logprobs,
     .low = -1,
     .up_to_vocab = true,
     .doc = "Returns logprobs with this many candidates a token; -1 is all."},
    {.name = "prompt_logprobs",
     .member = &Params::prompt_logprobs,
     .low = -1,
     .up_to_vocab = true,
     .doc = "The same for the tokens of the prompt."},
    {.name = "logit_bias",
     .member = &Params::logit_bias,
     .low = -100,
     .high = 100,
     .doc = "Token ids and what is added to their logits."},
    {.name = "allowed_token_ids",
     .member = &Params::allowed_token_ids,
     .doc = "Samples among these tokens only; empty is all."},
    {.name = "bad_words",
     .member = &Params::bad_words,
     .max_items = 1024,
     .doc = "Strings that the output never completes."},
};

// 2 rather than 2.0, 0.5 as it is.
std::string number(double value) { return fmt::format("{:g}", value); }

struct FieldCheck {
  const SamplingField& field;
  const Params& params;
  std::int32_t vocab_size;

  Error wrong(const std::string& expected, const std::string& got, std::string param = {}) const {
    if (param.empty()) param = field.name;
    return invalid_argument(fmt::format("{}: expected {}, got {}", param, expected, got), param);
  }

  Status check_number(double value, const std::string& param = {}) const {
    const double high = field.up_to_vocab ? vocab_size : field.high;
    // NaN is within no bounds. The largest numbers of a type are finite.
    if ((field.low_open ? value > field.low : value >= field.low) && value <= high &&
        std::isfinite(value)) {
      return ok_status();
    }
    std::string expected = expected_values(field);
    if (field.up_to_vocab && vocab_size != kAnyVocabSize)
      expected += fmt::format(" ({})", vocab_size);
    return wrong(expected, number(value), param);
  }

  Status check_count(std::size_t count) const {
    const std::size_t limit = field.max_items > 0 ? field.max_items : vocab_size;
    if (count <= limit) return ok_status();
    return wrong(fmt::format("at most {} items", limit), std::to_string(count));
  }

  Status check_token(TokenId token, std::size_t index) const {
    if (token >= 0 && token < vocab_size) return ok_status();
    return wrong(vocab_size == kAnyVocabSize
                     ? "a token id >= 0"
                     : fmt::format("a token id >= 0 and < {} (the vocabulary's size)", vocab_size),
                 std::to_string(token),
                 fmt::format("{}[{}]", field.name, index));
  }

  Status operator()(bool Params::*) const { return ok_status(); }
  Status operator()(EarlyStopping Params::*) const { return ok_status(); }
  Status operator()(std::int32_t Params::*member) const { return check_number(params.*member); }
  Status operator()(float Params::*member) const { return check_number(params.*member); }
  Status operator()(std::optional<std::int32_t> Params::*member) const {
    return params.*member ? check_number(*(params.*member)) : ok_status();
  }
  Status operator()(std::optional<std::uint64_t> Params::*) const { return ok_status(); }

  Status operator()(std::vector<std::string> Params::*member) const {
    const auto& strings = params.*member;
    PM_TRY(check_count(strings.size()));
    for (std::size_t i = 0; i < strings.size(); ++i) {
      if (strings[i].empty()) {
        return wrong("a string that is not empty", "''", fmt::format("{}[{}]", field.name, i));
      }
    }
    return ok_status();
  }

  Status operator()(std::vector<TokenId> Params::*member) const {
    const auto& tokens = params.*member;
    PM_TRY(check_count(tokens.size()));
    for (std::size_t i = 0; i < tokens.size(); ++i) PM_TRY(check_token(tokens[i], i));
    return ok_status();
  }

  Status operator()(std::vector<std::pair<TokenId, float>> Params::*member) const {
    const auto& pairs = params.*member;
    PM_TRY(check_count(pairs.size()));
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      PM_TRY(check_token(pairs[i].first, i));
      PM_TRY(check_number(pairs[i].second, fmt::format("{}[{}]", field.name, pairs[i].first)));
    }
    return ok_status();
  }
};

struct KindName {
  std::string operator()(bool Params::*) const { return "true or false"; }
  std::string operator()(float Params::*) const { return "a number"; }
  std::string operator()(EarlyStopping Params::*) const { return "true, false or 'never'"; }
  std::string operator()(std::vector<std::string> Params::*) const { return "a list of strings"; }
  std::string operator()(std::vector<TokenId> Params::*) const { return "a list of token ids"; }
  std::string operator()(std::vector<std::pair<TokenId, float>> Params::*) const {
    return "token ids, each with a number";
  }
  std::string operator()(auto) const { return "an integer"; }
};

}  // namespace

std::span<const SamplingField> sampling_fields() { return kFields; }

const SamplingField* find_sampling_field(std::string_view name) {
  for (const SamplingField& field : kFields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

std::string expected_values(const SamplingField& field) {
  std::string text = std::visit(KindName(), field.member);
  if (field.low != 0 || field.high != 0 || field.up_to_vocab) {
    if (std::isfinite(field.low)) {
      text += fmt::format(" {} {}", field.low_open ? ">" : ">=", number(field.low));
    }
    if (field.up_to_vocab) {
      text += " and <= the vocabulary's size";
    } else if (field.high < 1e9) {
      text += " and <= " + number(field.high);
    }
  }
  if (field.max_items > 0) text += fmt::format(", at most {}", field.max_items);
  return text;
}

Status validate_field(const SamplingField& field,
                      const SamplingParams& params,
                      std::int32_t vocab_size) {
  return std::visit(FieldCheck{field, params, vocab_size}, field.member);
}

}  // namespace pagemill
