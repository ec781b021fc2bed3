// JSON from untrusted files: bounded nesting, no duplicate keys, errors that name the byte.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill {

inline constexpr std::size_t kMaxJsonDepth = 100;
inline constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;

// `file` is named in errors. RFC 8259 and UTF-8 are enforced; at most kMaxJsonDepth levels of
// nesting.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& file);

// The whole file, of at most `max_bytes`, which must hold an object.
Result<nlohmann::json> read_json_object(const std::string& path,
                                        std::size_t max_bytes = kMaxConfigBytes);

}  // namespace pagemill
