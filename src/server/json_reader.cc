#include "server/json_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace pagemill {
namespace {

Result<std::int64_t> read_integer(JsonElement element,
                                  const std::string& path,
                                  std::int64_t low,
                                  std::int64_t high) {
  std::int64_t value = 0;
  double number = 0;
  if (element.is_int64()) {
    value = std::int64_t(element);
  } else if (element.is_uint64()) {
    return invalid_argument(fmt::format("{}: {} is out of range", path, std::uint64_t(element)),
                            path);
  } else if (element.get_double().get(number) == simdjson::SUCCESS) {
    // Some clients write whole numbers as 16.0.
    if (number != std::floor(number) || std::abs(number) > 9e15) {
      return invalid_argument(fmt::format("{}: expected integer, got {}", path, number), path);
    }
    value = static_cast<std::int64_t>(number);
  } else {
    return json_expected(path, "integer", element);
  }
  if (value < low || value > high) {
    return invalid_argument(fmt::format("{}: {} is out of range", path, value), path);
  }
  return value;
}

std::string parse_error_message(simdjson::error_code code) {
  switch (code) {
    case simdjson::DEPTH_ERROR:
      return fmt::format("request body: JSON is nested deeper than {} levels",
                         JsonDocument::kMaxDepth);
    case simdjson::UTF8_ERROR:
      return "request body: JSON is not valid UTF-8";
    case simdjson::EMPTY:
      return "request body: expected a JSON object, got nothing";
    default:
      return fmt::format("request body: not valid JSON: {}", simdjson::error_message(code));
  }
}

}  // namespace

Result<JsonDocument> JsonDocument::parse(std::string_view text) {
  JsonDocument document;
  document.parser_ = std::make_unique<simdjson::dom::parser>();
  const std::size_t capacity = text.size() < 64 ? 64 : text.size();
  if (document.parser_->allocate(capacity, kMaxDepth) != simdjson::SUCCESS) {
    return Error{ErrorCode::kTooLarge, "request body: too large to parse", {}};
  }
  const auto error = document.parser_->parse(text.data(), text.size()).get(document.root_);
  if (error != simdjson::SUCCESS) return invalid_argument(parse_error_message(error));
  return document;
}

std::string_view json_type_name(JsonElement element) {
  switch (element.type()) {
    case simdjson::dom::element_type::ARRAY:
      return "array";
    case simdjson::dom::element_type::OBJECT:
      return "object";
    case simdjson::dom::element_type::STRING:
      return "string";
    case simdjson::dom::element_type::BOOL:
      return "boolean";
    case simdjson::dom::element_type::NULL_VALUE:
      return "null";
    default:
      return "number";
  }
}

Error json_expected(const std::string& path, std::string_view expected, JsonElement got) {
  return invalid_argument(
      fmt::format("{}: expected {}, got {}", path, expected, json_type_name(got)), path);
}

std::string json_join(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

std::string json_index(const std::string& path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

Status read_json(JsonElement element, const std::string& path, bool& out) {
  if (!element.is_bool()) return json_expected(path, "boolean", element);
  out = bool(element);
  return ok_status();
}

Status read_json(JsonElement element, const std::string& path, std::int32_t& out) {
  constexpr auto kLimits = std::numeric_limits<std::int32_t>();
  PM_ASSIGN(const std::int64_t value, read_integer(element, path, kLimits.min(), kLimits.max()));
  out = static_cast<std::int32_t>(value);
  return ok_status();
}

Status read_json(JsonElement element, const std::string& path, std::int64_t& out) {
  constexpr auto kLimits = std::numeric_limits<std::int64_t>();
  PM_ASSIGN(out, read_integer(element, path, kLimits.min(), kLimits.max()));
  return ok_status();
}

Status read_json(JsonElement element, const std::string& path, std::uint64_t& out) {
  if (element.is_uint64()) {
    out = std::uint64_t(element);
    return ok_status();
  }
  std::int64_t value = 0;
  PM_TRY(read_json(element, path, value));
  out = static_cast<std::uint64_t>(value);
  return ok_status();
}

Status read_json(JsonElement element, const std::string& path, float& out) {
  double value = 0;
  if (element.get_double().get(value) != simdjson::SUCCESS) {
    return json_expected(path, "number", element);
  }
  if (std::abs(value) > std::numeric_limits<float>::max()) {
    return invalid_argument(fmt::format("{}: {} is out of range", path, value), path);
  }
  out = static_cast<float>(value);
  return ok_status();
}

Status read_json(JsonElement element, const std::string& path, std::string& out) {
  if (!element.is_string()) return json_expected(path, "string", element);
  out = std::string(std::string_view(element));
  return ok_status();
}

}  // namespace pagemill
