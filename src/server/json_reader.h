// Reading a request's JSON into a struct: one list of fields per struct. A value of the wrong type
// is an error such as "messages[0].content: expected string, got number", its param the path.
// Fields that no list names are ignored, null counts as absent, the last of equal keys wins.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace pagemill {

using JsonElement = simdjson::dom::element;

// A parsed document; elements borrow from it. Deeper nesting than kMaxDepth and invalid UTF-8 are
// kInvalidArgument.
class JsonDocument {
 public:
  static constexpr std::size_t kMaxDepth = 128;
  static Result<JsonDocument> parse(std::string_view text);
  JsonElement root() const { return root_; }

 private:
  JsonDocument() = default;
  std::unique_ptr<simdjson::dom::parser> parser_;
  JsonElement root_;
};

// "string", "number", "boolean", "array", "object" or "null".
std::string_view json_type_name(JsonElement element);
Error json_expected(const std::string& path, std::string_view expected, JsonElement got);
std::string json_join(const std::string& path, std::string_view key);
std::string json_index(const std::string& path, std::size_t index);

Status read_json(JsonElement element, const std::string& path, bool& out);
Status read_json(JsonElement element, const std::string& path, std::int32_t& out);
Status read_json(JsonElement element, const std::string& path, std::int64_t& out);
Status read_json(JsonElement element,
                 const std::string& path,
                 std::uint64_t& out);  // wraps negatives
Status read_json(JsonElement element, const std::string& path, float& out);
Status read_json(JsonElement element, const std::string& path, std::string& out);

template <typename T>
Status read_json(JsonElement element, const std::string& path, std::optional<T>& out) {
  T value{};
  PM_TRY(read_json(element, path, value));
  out = std::move(value);
  return ok_status();
}

template <typename T>
Status read_json(JsonElement element, const std::string& path, std::vector<T>& out) {
  if (!element.is_array()) return json_expected(path, "array", element);
  out.clear();
  for (const JsonElement item : simdjson::dom::array(element)) {
    T value{};
    PM_TRY(read_json(item, json_index(path, out.size()), value));
    out.push_back(std::move(value));
  }
  return ok_status();
}

template <typename S>
struct JsonField {
  std::string_view name;
  Status (*read)(JsonElement element, const std::string& path, S& out);
};

// json_field<&S::member>("name") reads into a member; json_field<&S::a, &A::b>("name") into a
// nested one.
template <auto Member, auto... Rest>
struct JsonMember;
template <typename S, typename T, T S::*Member, auto... Rest>
struct JsonMember<Member, Rest...> {
  using Struct = S;
  static auto& get(S& object) {
    if constexpr (sizeof...(Rest) == 0) {
      return object.*Member;
    } else {
      return JsonMember<Rest...>::get(object.*Member);
    }
  }
};

template <auto... Members>
constexpr auto json_field(std::string_view name) {
  using Member = JsonMember<Members...>;
  using S = typename Member::Struct;
  return JsonField<S>{name, [](JsonElement element, const std::string& path, S& out) {
                        return read_json(element, path, Member::get(out));
                      }};
}

template <typename S>
Status read_json_fields(JsonElement element,
                        const std::string& path,
                        std::span<const JsonField<S>> fields,
                        S& out) {
  if (!element.is_object()) {
    return json_expected(path.empty() ? "request body" : path, "object", element);
  }
  for (const auto& [key, value] : simdjson::dom::object(element)) {
    if (value.is_null()) continue;
    for (const JsonField<S>& field : fields) {
      if (field.name == key) PM_TRY(field.read(value, json_join(path, key), out));
    }
  }
  return ok_status();
}

}  // namespace pagemill
