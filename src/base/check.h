// PM_CHECK: an invariant that only a bug can break. It stays on in release builds; what a file, a
// client or a full pool can cause returns a Result instead (base/result.h).
#pragma once

#include <fmt/format.h>

#include <string>

namespace pagemill {

// Prints the message with its place and aborts.
[[noreturn]] void check_failed(const char* file,
                               int line,
                               const char* condition,
                               const std::string& message);

}  // namespace pagemill

#define PM_CHECK(condition, ...)                                                               \
  do {                                                                                         \
    if (!(condition)) [[unlikely]]                                                             \
      ::pagemill::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
