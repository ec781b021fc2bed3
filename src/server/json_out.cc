#include "server/json_out.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace pagemill {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Utf8Step {
  std::size_t length;  // bytes consumed, at least 1
  bool valid;
};

// The well-formed sequences of Unicode 15, table 3-7; an ill-formed one spans its maximal subpart.
Utf8Step utf8_step(const unsigned char* p, std::size_t size) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return {1, true};
  std::size_t need = 0;
  unsigned char low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 2;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (std::size_t i = 1; i <= need; ++i) {
    if (i >= size || p[i] < low || p[i] > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {need + 1, true};
}

void append_escaped(std::string& out, unsigned char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    case '\b':
      out += "\\b";
      break;
    case '\f':
      out += "\\f";
      break;
    default:
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
  }
}

template <typename T>
void append_number(std::string& out, T value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  fmt::format_to(std::back_inserter(out), "{}", value);
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t clean = 0;  // start of the run not yet copied
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char c = p[i];
    if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    const Utf8Step step = c < 0x80 ? Utf8Step{1, false} : utf8_step(p + i, text.size() - i);
    if (!step.valid) {
      out.append(text.substr(clean, i - clean));
      if (c < 0x80) {
        append_escaped(out, c);
      } else {
        out.append(kReplacement);
      }
      clean = i + step.length;
    }
    i += step.length;
  }
  out.append(text.substr(clean));
  out.push_back('"');
}

void append_json_number(std::string& out, float value) { append_number(out, value); }
void append_json_number(std::string& out, double value) { append_number(out, value); }

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(p + i, text.size() - i);
    out.append(step.valid ? text.substr(i, step.length) : kReplacement);
    i += step.length;
  }
  return out;
}

bool is_valid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(p + i, text.size() - i);
    if (!step.valid) return false;
    i += step.length;
  }
  return true;
}

std::int64_t count_code_points(std::string_view bytes) {
  std::int64_t count = 0;
  for (const char c : bytes) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

}  // namespace pagemill
