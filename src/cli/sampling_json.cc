#include "cli/sampling_json.h"

#include <charconv>
#include <limits>

#include "request/sampling_fields.h"

namespace pagemill::cli {
namespace {

using json = nlohmann::ordered_json;

// Each returns whether `value` is one.
bool read(const json& value, bool* out) {
  if (value.is_boolean()) *out = value.get<bool>();
  return value.is_boolean();
}

bool read(const json& value, float* out) {
  if (value.is_number()) *out = value.get<float>();
  return value.is_number();
}

bool read(const json& value, EarlyStopping* out) {
  if (value.is_boolean()) {
    *out = value.get<bool>() ? EarlyStopping::kTrue : EarlyStopping::kFalse;
    return true;
  }
  *out = EarlyStopping::kNever;
  return value == "never";
}

bool read(const json& value, std::int32_t* out) {
  if (!value.is_number_integer()) return false;
  const auto number = value.get<std::int64_t>();
  const bool fits = number >= std::numeric_limits<std::int32_t>::min() &&
                    number <= std::numeric_limits<std::int32_t>::max() &&
                    !(value.is_number_unsigned() && number < 0);
  if (fits) *out = static_cast<std::int32_t>(number);
  return fits;
}

bool read(const json& value, std::uint64_t* out) {
  if (value.is_number_integer()) *out = value.get<std::uint64_t>();
  return value.is_number_integer();
}

bool read(const json& value, std::string* out) {
  if (value.is_string()) *out = value.get<std::string>();
  return value.is_string();
}

template <typename T>
bool read(const json& value, std::optional<T>* out) {
  return read(value, &out->emplace());
}

template <typename T>
bool read(const json& value, std::vector<T>* out) {
  out->clear();
  if (std::is_same_v<T, std::string> && value.is_string())
    return read(value, &out->emplace_back());  // one stop
  if (!value.is_array()) return false;
  for (const json& item : value) {
    if (!read(item, &out->emplace_back())) return false;
  }
  return true;
}

// {"15": -100}, as OpenAI's logit_bias.
bool read(const json& value, std::vector<std::pair<TokenId, float>>* out) {
  out->clear();
  if (!value.is_object()) return false;
  for (const auto& [key, bias] : value.items()) {
    auto& [token, number] = out->emplace_back();
    const char* end = key.data() + key.size();
    if (std::from_chars(key.data(), end, token).ptr != end || !read(bias, &number)) return false;
  }
  return true;
}

}  // namespace

Status read_sampling_params(const json& object, SamplingParams* params) {
  // The defaults may sample, a beam search does not.
  if (const auto beams = object.find("use_beam_search");
      beams != object.end() && beams->is_boolean() && beams->get<bool>()) {
    params->make_greedy();
  }
  for (const SamplingField& field : sampling_fields()) {
    const auto it = object.find(field.name);
    if (it == object.end() || it->is_null()) continue;
    const bool is_right =
        std::visit([&](auto member) { return read(*it, &(params->*member)); }, field.member);
    if (is_right) continue;
    return invalid_argument(
        fmt::format("{}: expected {}, got {}",
                    field.name,
                    expected_values(field),
                    it->dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 80)),
        std::string(field.name));
  }
  return ok_status();
}

}  // namespace pagemill::cli
