// JsonOut appends JSON to a string: small, allocation-free beyond the string, never invalid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace pagemill {

// Appends `text` with JSON's quotes and escapes; bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
// Shortest form that reads back; what JSON can't hold (infinite, NaN) becomes null.
void append_json_number(std::string& out, float value);
void append_json_number(std::string& out, double value);

// `text` with each maximal ill-formed byte sequence replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text);
bool is_valid_utf8(std::string_view text);
// Code points that start in `bytes` (continuation bytes don't count).
std::int64_t count_code_points(std::string_view bytes);

// Commas and colons are placed by the writer; the caller keeps the nesting right.
class JsonOut {
 public:
  explicit JsonOut(std::string& out) : out_(out) {}

  JsonOut& begin_object() { return open('{'); }
  JsonOut& end_object() { return close('}'); }
  JsonOut& begin_array() { return open('['); }
  JsonOut& end_array() { return close(']'); }
  JsonOut& key(std::string_view name) {
    comma();
    append_json_string(out_, name);
    out_.push_back(':');
    need_comma_ = false;
    return *this;
  }
  JsonOut& null() { return raw("null"); }
  JsonOut& raw(std::string_view json) {
    comma();
    out_.append(json);
    need_comma_ = true;
    return *this;
  }
  JsonOut& value(std::string_view text) {
    comma();
    append_json_string(out_, text);
    need_comma_ = true;
    return *this;
  }
  JsonOut& value(const char* text) { return value(std::string_view(text)); }
  template <typename T>
  requires std::is_arithmetic_v<T> JsonOut& value(T number) {
    if constexpr (std::is_same_v<T, bool>) {
      return raw(number ? "true" : "false");
    } else if constexpr (std::is_floating_point_v<T>) {
      comma();
      append_json_number(out_, number);
      need_comma_ = true;
      return *this;
    } else {
      return raw(std::to_string(number));
    }
  }
  template <typename T>
  JsonOut& field(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  JsonOut& null_field(std::string_view name) { return key(name).null(); }

 private:
  void comma() {
    if (need_comma_) out_.push_back(',');
  }
  JsonOut& open(char bracket) {
    comma();
    out_.push_back(bracket);
    need_comma_ = false;
    return *this;
  }
  JsonOut& close(char bracket) {
    out_.push_back(bracket);
    need_comma_ = true;
    return *this;
  }

  std::string& out_;
  bool need_comma_ = false;
};

}  // namespace pagemill
