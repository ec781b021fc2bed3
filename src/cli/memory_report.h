// The table of `pagemill inspect --memory`: what a running server's KV memory holds.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill::cli {

// From the text of /metrics, whatever its prefix. kInvalidArgument if a gauge is not there.
Result<std::string> memory_report(std::string_view metrics);

// From the server at "http://HOST[:PORT]".
Result<std::string> fetch_memory_report(const std::string& url);

}  // namespace pagemill::cli
