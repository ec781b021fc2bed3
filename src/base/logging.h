// The process's log, on stderr: spdlog's default logger. Code logs with spdlog::info("..", ..) and
// so on.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

#include "base/result.h"

namespace pagemill {

// `level`: trace, debug, info, warning, error, critical or off. With `json`, one JSON object a
// line:
// {"time":..,"level":..,"message":..}. May be called again to change either.
Status init_logging(std::string_view level, bool json = false);

// One log line as JSON, without the line's end. `time` is ISO 8601.
std::string json_log_line(std::string_view time, std::string_view level, std::string_view message);

}  // namespace pagemill
