// Traces of requests: when they came, how long they were, and which prefixes they shared.
//
//   CSV         a header with input_tokens and output_tokens, and arrival_s or
//               arrival_s_synthetic (seconds) if there are arrivals; other columns are ignored
//   JSON lines  input_length and output_length; arrival_s (seconds) or timestamp (milliseconds);
//               and the ids of the blocks that hold the tokens, equal ids being equal prefixes:
//               hash_ids (Mooncake: of the prompt, 512 tokens each) or seq_hash_ids (of prompt and
//               output, 16 tokens each)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace pagemill {

struct TraceRequest {
  double arrival_s = 0;
  std::int32_t input_tokens = 0, output_tokens = 0;  // 1..kMaxTraceTokens
  std::vector<TokenId> hash_ids;
};

inline constexpr std::int32_t kMaxTraceTokens = 1 << 24;

struct Trace {
  std::string name;
  bool has_arrivals = false;
  std::int32_t hash_block_tokens = 0;  // tokens of a block that an id names; 0 without ids
  bool ids_cover_output = false;
  std::vector<TraceRequest> requests;  // by arrival; not empty

  // What request `index` has at `position` of its prompt and output: the same for two requests as
  // far as their ids agree, and nobody else's where there is no id.
  TokenId token(std::int32_t index, std::int32_t position) const;
};

// `name` stands for the file in errors, which name the line. kCorrupt.
Result<Trace> parse_trace(std::string_view text, const std::string& name);
Result<Trace> read_trace(const std::string& path);

// The same sharing with every block of ids made of `tokens` tokens, lengths in proportion: large
// contexts replayed on a small machine. Unchanged without ids.
Trace with_hash_block_tokens(Trace trace, std::int32_t tokens);

// Drops the requests whose prompt leaves no room for output and clips the output of others, as a
// server does; returns how many were dropped.
std::int32_t clip_to_model_len(Trace& trace, std::int32_t max_model_len);

}  // namespace pagemill
