#include "server/generation_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <type_traits>
#include <variant>

#include "request/sampling_fields.h"

namespace pagemill {
namespace {

using G = GenerationRequest;

// No token is longer than this, near enough: longer prompts can't fit the context.
constexpr std::size_t kMaxBytesPerToken = 512;
constexpr std::size_t kMaxLogitBias = 1024;

constexpr JsonField<StreamOptions> kStreamOptionFields[] = {
    json_field<&StreamOptions::include_usage>("include_usage"),
    json_field<&StreamOptions::continuous_usage_stats>("continuous_usage_stats"),
};

Status read_stream_options(JsonElement element, const std::string& path, G& out) {
  out.has_stream_options = true;
  return read_json_fields<StreamOptions>(element, path, kStreamOptionFields, out.stream_options);
}

// {"50256": -100}: token ids as keys.
Status read_logit_bias(JsonElement element,
                       const std::string& path,
                       std::vector<std::pair<TokenId, float>>& bias) {
  if (!element.is_object()) return json_expected(path, "object", element);
  bias.clear();
  for (const auto& [key, value] : simdjson::dom::object(element)) {
    const std::string where = json_join(path, key);
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size()) {
      return invalid_argument(
          fmt::format("{}: expected a token id as the key, got '{}'", path, key), path);
    }
    float amount = 0;
    PM_TRY(read_json(value, where, amount));
    if (bias.size() == kMaxLogitBias) {
      return invalid_argument(fmt::format("{}: at most {} entries", path, kMaxLogitBias), path);
    }
    bias.emplace_back(token, amount);
  }
  return ok_status();
}

// A boolean or "never".
Status read_early_stopping(JsonElement element, const std::string& path, EarlyStopping& out) {
  bool now = false;
  std::string_view text;
  if (element.get(now) == simdjson::SUCCESS) {
    out = now ? EarlyStopping::kTrue : EarlyStopping::kFalse;
  } else if (element.get(text) == simdjson::SUCCESS && text == "never") {
    out = EarlyStopping::kNever;
  } else {
    return json_expected(path, "boolean or 'never'", element);
  }
  return ok_status();
}

// What is not a sampling parameter, for both endpoints; each reads its own on top.
constexpr JsonField<G> kFields[] = {
    json_field<&G::model>("model"),
    json_field<&G::stream>("stream"),
    {"stream_options", read_stream_options},
    json_field<&G::echo>("echo"),
    json_field<&G::user>("user"),
    json_field<&G::priority>("priority"),
    json_field<&G::cache_salt>("cache_salt"),
    json_field<&G::return_token_ids>("return_token_ids"),
    json_field<&G::add_special_tokens>("add_special_tokens"),
    json_field<&G::max_tokens>("max_tokens"),
};

// Sampling parameters whose JSON differs between the endpoints or depends on the prompt.
constexpr std::string_view kReadElsewhere[] = {"max_tokens", "logprobs"};

Status read_sampling_field(JsonElement element,
                           const SamplingField& field,
                           SamplingParams& params) {
  const std::string path(field.name);
  if (path == "stop") return read_stop(element, path, params.stop);
  return std::visit(
      [&](auto member) {
        auto& value = params.*member;
        if constexpr (std::is_same_v<decltype(value), std::vector<std::pair<TokenId, float>>&>) {
          return read_logit_bias(element, path, value);
        } else if constexpr (std::is_same_v<decltype(value), EarlyStopping&>) {
          return read_early_stopping(element, path, value);
        } else {
          return read_json(element, path, value);
        }
      },
      field.member);
}

Status read_sampling_params(JsonElement root, SamplingParams& params) {
  bool beams = false;
  // The model's defaults may sample, a beam search does not.
  if (root["use_beam_search"].get(beams) == simdjson::SUCCESS && beams) params.make_greedy();
  for (const auto& [key, value] : simdjson::dom::object(root)) {
    const bool elsewhere = key == kReadElsewhere[0] || key == kReadElsewhere[1];
    if (elsewhere || value.is_null()) continue;
    const SamplingField* field = find_sampling_field(key);
    if (field != nullptr) PM_TRY(read_sampling_field(value, *field, params));
  }
  return ok_status();
}

// Fields that would silently give other text than was asked for, were they ignored.
constexpr std::string_view kUnsupported[] = {
    "suffix",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "functions",
    "function_call",
    "prompt_embeds",
    "audio",
    "documents",
    "chat_template",
    "logits_processors",
    "truncate_prompt_tokens",
};

bool asks_for_nothing(JsonElement value) {
  if (value.is_null()) return true;
  if (value.is_bool()) return !bool(value);
  if (value.is_string())
    return std::string_view(value).empty() || std::string_view(value) == "none";
  if (value.is_array()) return simdjson::dom::array(value).size() == 0;
  return false;
}

}  // namespace

Status read_generation_request(JsonElement root, GenerationRequest& out) {
  PM_TRY(read_json_fields<G>(root, "", kFields, out));
  return read_sampling_params(root, out.params);
}

Status refuse_unsupported(JsonElement root) {
  if (!root.is_object()) return json_expected("request body", "object", root);
  for (const auto& [key, value] : simdjson::dom::object(root)) {
    for (const std::string_view name : kUnsupported) {
      if (key == name && !asks_for_nothing(value)) {
        return invalid_argument(fmt::format("{}: not supported", name), std::string(name));
      }
    }
    if (key == "response_format" && !value.is_null()) {
      std::string_view type;
      if (!value.is_object() || value["type"].get(type) != simdjson::SUCCESS) {
        return invalid_argument("response_format.type: expected string", "response_format.type");
      }
      if (type != "text") {
        return invalid_argument(
            fmt::format("response_format.type: '{}' is not supported yet, only 'text'", type),
            "response_format");
      }
    }
  }
  return ok_status();
}

Status check_generation_request(const GenerationRequest& request) {
  const SamplingParams& params = request.params;
  if (request.has_stream_options && !request.stream) {
    return invalid_argument("stream_options: only allowed when stream is true", "stream_options");
  }
  if (request.stream && params.prompt_logprobs) {
    return invalid_argument("prompt_logprobs: not available when stream is true",
                            "prompt_logprobs");
  }
  if (params.n < 1 || params.n > 128) {
    return invalid_argument(fmt::format("n: must be between 1 and 128, got {}", params.n), "n");
  }
  if (params.best_of && *params.best_of < params.n) {
    return invalid_argument(
        fmt::format("best_of: must be at least n = {}, got {}", params.n, *params.best_of),
        "best_of");
  }
  if (request.stream && params.use_beam_search) {
    return invalid_argument(
        "stream: not available with use_beam_search, whose answer is known at its end", "stream");
  }
  if (request.stream && params.best_of.value_or(params.n) > params.n) {
    return invalid_argument("best_of: must equal n when stream is true", "best_of");
  }
  return ok_status();
}

Status check_model(const ServerContext& context, std::string_view name) {
  if (name.empty() || context.serves(name)) return ok_status();
  return Error{
      ErrorCode::kNotFound,
      fmt::format(
          "The model '{}' does not exist; this server has '{}'", name, context.model_name()),
      "model"};
}

Status read_stop(JsonElement element, const std::string& path, std::vector<std::string>& out) {
  if (element.is_string()) {
    out.assign(1, std::string(std::string_view(element)));
    return ok_status();
  }
  if (!element.is_array()) return json_expected(path, "string or array of strings", element);
  return read_json(element, path, out);
}

Status fit_max_tokens(const ModelInfo& model,
                      std::size_t prompt_tokens,
                      std::optional<std::int32_t> asked,
                      std::optional<std::int32_t> default_max_tokens,
                      std::string_view field,
                      SamplingParams& params) {
  const auto limit = static_cast<std::int64_t>(model.max_model_len);
  const auto prompt = static_cast<std::int64_t>(prompt_tokens);
  if (prompt >= limit) {
    return invalid_argument(
        fmt::format(
            "This model's maximum context length is {} tokens, but the {} {} {} tokens; shorten "
            "the {}",
            limit,
            field,
            field == "messages" ? "hold" : "holds",
            prompt,
            field),
        std::string(field));
  }
  const std::int64_t room = limit - prompt;
  if (!asked) {
    params.max_tokens =
        static_cast<std::int32_t>(std::min<std::int64_t>(room, default_max_tokens.value_or(room)));
    params.min_tokens = std::min(params.min_tokens, params.max_tokens);
    return ok_status();
  }
  if (*asked < 1) {
    return invalid_argument(fmt::format("max_tokens: must be at least 1, got {}", *asked),
                            "max_tokens");
  }
  if (*asked > room) {
    return invalid_argument(
        fmt::format(
            "This model's maximum context length is {} tokens, but {} were asked for: {} in the "
            "{} and {} to generate; reduce either",
            limit,
            prompt + *asked,
            prompt,
            field,
            *asked),
        "max_tokens");
  }
  params.max_tokens = *asked;
  return ok_status();
}

Status check_prompt_bytes(const ModelInfo& model, std::size_t bytes, std::string_view field) {
  const auto limit = static_cast<std::size_t>(model.max_model_len);
  if (bytes / kMaxBytesPerToken <= limit) return ok_status();
  return invalid_argument(
      fmt::format("This model's maximum context length is {} tokens, but the {} are {} bytes long",
                  limit,
                  field,
                  bytes),
      std::string(field));
}

std::string new_answer_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}{:016x}", prefix, random(), random());
}

}  // namespace pagemill
