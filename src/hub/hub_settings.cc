#include "hub/hub_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <sstream>

namespace pagemill {
namespace {

// The first of the variables that is set and not empty.
std::string first_of(const GetVariable& get, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = get(name); value != nullptr && *value != '\0') return value;
  }
  return {};
}

bool is_true(const GetVariable& get, std::initializer_list<const char*> names) {
  std::string value = first_of(get, names);
  std::ranges::transform(value, value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// "~" and "$NAME" or "${NAME}", which a shell has not replaced where a service manager sets the
// variable. What is not set stays as it is.
std::string expanded(const GetVariable& get, const std::string& path) {
  std::string text = path;
  if (text == "~" || text.starts_with("~/")) text.replace(0, 1, first_of(get, {"HOME"}));
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] != '$') {
      out += text[at++];
      continue;
    }
    const bool braced = at + 1 < text.size() && text[at + 1] == '{';
    const std::size_t begin = at + (braced ? 2 : 1);
    std::size_t end = begin;
    while (end < text.size() &&
           (std::isalnum(static_cast<unsigned char>(text[end])) != 0 || text[end] == '_')) {
      ++end;
    }
    const bool closed = !braced || (end < text.size() && text[end] == '}');
    const std::size_t next = end + (braced && closed ? 1 : 0);
    const char* value = closed ? get(text.substr(begin, end - begin).c_str()) : nullptr;
    out += value != nullptr ? std::string(value) : text.substr(at, next - at);
    at = next;
  }
  return out;
}

std::string stripped(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

Status read_token(const GetVariable& get, const std::string& home, HubSettings& settings) {
  if (is_true(get, {"HF_HUB_DISABLE_IMPLICIT_TOKEN"})) return ok_status();
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    settings.token = stripped(first_of(get, {name}));
    settings.token_source = name;
    if (!settings.token.empty()) break;
  }
  if (settings.token.empty()) {
    const std::string path = first_of(get, {"HF_TOKEN_PATH"});
    settings.token_source = path.empty() ? home + "/token" : expanded(get, path);
    std::ifstream file(settings.token_source, std::ios::binary);
    if (file) settings.token = stripped((std::ostringstream() << file.rdbuf()).str());
  }
  const bool printable =
      std::ranges::all_of(settings.token, [](char c) { return c > ' ' && c < 0x7f; });
  if (!printable) {
    return invalid_argument(fmt::format("{}: expected one token without spaces, such as hf_...",
                                        settings.token_source));
  }
  return ok_status();
}

}  // namespace

Result<HubSettings> read_hub_settings(const GetVariable& get) {
  HubSettings settings;
  const std::string user = first_of(get, {"HOME"});
  std::string home = expanded(get, first_of(get, {"HF_HOME"}));
  if (home.empty()) {
    const std::string xdg = first_of(get, {"XDG_CACHE_HOME"});
    home = (xdg.empty() ? user + "/.cache" : expanded(get, xdg)) + "/huggingface";
  }
  const std::string cache = first_of(get, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  settings.cache_dir = cache.empty() ? home + "/hub" : expanded(get, cache);

  settings.endpoint = first_of(get, {"HF_ENDPOINT"});
  if (settings.endpoint.empty()) settings.endpoint = "https://huggingface.co";
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  if (!settings.endpoint.starts_with("http://") && !settings.endpoint.starts_with("https://")) {
    return invalid_argument(fmt::format("HF_ENDPOINT: expected http://... or https://..., got '{}'",
                                        settings.endpoint));
  }
  settings.offline = is_true(get, {"HF_HUB_OFFLINE"}) || is_true(get, {"TRANSFORMERS_OFFLINE"});
  settings.progress_bars = !is_true(get, {"HF_HUB_DISABLE_PROGRESS_BARS"});
  if (const std::string text = first_of(get, {"HF_HUB_DOWNLOAD_TIMEOUT"}); !text.empty()) {
    char* end = nullptr;
    settings.timeout_s = std::strtod(text.c_str(), &end);
    if (*end != '\0' || !std::isfinite(settings.timeout_s) || settings.timeout_s <= 0 ||
        settings.timeout_s > 86400) {
      return invalid_argument(
          fmt::format("HF_HUB_DOWNLOAD_TIMEOUT: expected seconds, got '{}'", text));
    }
  }
  PM_TRY(read_token(get, home, settings));
  return settings;
}

}  // namespace pagemill
