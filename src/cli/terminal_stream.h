// One request, its answer written to stdout as it comes: `pagemill generate -p` and `chat`.
#pragma once

#include <string>

#include "engine/engine_client.h"

namespace pagemill::cli {

// The most tokens of an answer on the terminal, unless --max-tokens says otherwise: its end is the
// model's to find, and 16, the API's default, would cut it off.
inline constexpr std::int32_t kTerminalMaxTokens = 1024;

// Returns the whole text. max_tokens is cut to what the model's context leaves.
Result<std::string> stream_to_stdout(EngineClient& engine, Request request);

}  // namespace pagemill::cli
