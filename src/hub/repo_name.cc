#include "hub/repo_name.h"

#include <fmt/format.h>

#include <algorithm>

namespace pagemill {
namespace {

constexpr std::size_t kMaxRepoName = 96, kMaxRevision = 200, kMaxFileName = 1024;

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_name_character(char c) { return is_alphanumeric(c) || c == '-' || c == '_' || c == '.'; }

bool is_name_part(std::string_view part) {
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && !is_edge(part.front()) && !is_edge(part.back()) &&
         std::ranges::all_of(part, is_name_character);
}

// Plain components between slashes: none empty, "." or "..".
bool is_plain_path(std::string_view path) {
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    if (component.empty() || component == "." || component == "..") return false;
    if (slash == path.npos) return true;
    path.remove_prefix(slash + 1);
  }
}

bool has_control_characters(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

}  // namespace

Result<RepoName> parse_repo_name(std::string_view text) {
  const auto wrong = [&](std::string_view rule) {
    return invalid_argument(
        fmt::format("'{}' is not a name on the Hugging Face Hub: {}", text, rule), "model");
  };
  RepoName name;
  const std::size_t colon = text.find(':');
  name.id = text.substr(0, colon);
  if (colon != text.npos) {
    name.quant = text.substr(colon + 1);
    if (name.quant.empty() || !std::ranges::all_of(name.quant, is_name_character)) {
      return wrong("expected a quantization after ':', such as Q4_K_M");
    }
  }
  const std::size_t slash = name.id.find('/');
  const std::string_view id = name.id, first = id.substr(0, slash);
  const bool parts_are_right =
      is_name_part(first) && (slash == id.npos || is_name_part(id.substr(slash + 1)));
  if (!parts_are_right) {
    return wrong(
        "expected org/name of letters, digits, '-', '_' and '.', neither part beginning or ending "
        "with '-' or '.'");
  }
  if (id.size() > kMaxRepoName) return wrong("at most 96 characters");
  if (id.find("--") != id.npos || id.find("..") != id.npos) return wrong("no '--' and no '..'");
  if (id.ends_with(".git")) return wrong("it does not end with '.git'");
  return name;
}

Status check_revision(std::string_view revision) {
  if (revision.size() <= kMaxRevision && is_plain_path(revision) &&
      !has_control_characters(revision)) {
    return ok_status();
  }
  return invalid_argument(
      fmt::format("revision '{}': expected a branch, a tag, a commit or refs/pr/N", revision),
      "revision");
}

bool is_safe_file_name(std::string_view name) {
  return name.size() <= kMaxFileName && is_plain_path(name) && !has_control_characters(name) &&
         name.find('\\') == name.npos;
}

bool is_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

bool is_commit(std::string_view revision) { return revision.size() == 40 && is_hex(revision); }

}  // namespace pagemill
