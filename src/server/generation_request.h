// What /v1/completions and /v1/chat/completions have in common: the fields, the checks, the ids.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "request/request.h"
#include "server/json_reader.h"
#include "server/server_context.h"

namespace pagemill {

struct StreamOptions {
  bool include_usage = false;
  bool continuous_usage_stats = false;
};

struct GenerationRequest {
  std::string model;
  SamplingParams params;                   // starts from the model's defaults
  std::optional<std::int32_t> max_tokens;  // absent: each endpoint has its default
  bool stream = false;
  StreamOptions stream_options;
  bool has_stream_options = false;
  bool echo = false;
  bool return_token_ids = false;
  bool add_special_tokens = true;
  std::int32_t priority = 0;
  std::string user;
  std::string cache_salt;
};

// Reads the common fields of `root`; the caller reads its own from the same element.
Status read_generation_request(JsonElement root, GenerationRequest& out);

// 400 for each of `fields` that `root` has with a value that would ask for something we don't do.
Status refuse_unsupported(JsonElement root);

// Combinations that need no tokenizer: stream_options, n and best_of, prompt_logprobs.
Status check_generation_request(const GenerationRequest& request);

// 404 "model_not_found" unless `name` is served or empty.
Status check_model(const ServerContext& context, std::string_view name);

// "stop": a string or a list of strings.
Status read_stop(JsonElement element, const std::string& path, std::vector<std::string>& out);

// Fills max_tokens from the request or the default and checks it against the context length.
// `field` names what the client calls the prompt: "prompt" or "messages".
Status fit_max_tokens(const ModelInfo& model,
                      std::size_t prompt_tokens,
                      std::optional<std::int32_t> asked,
                      std::optional<std::int32_t> default_max_tokens,
                      std::string_view field,
                      SamplingParams& params);

// 400 if a prompt of so many bytes can't possibly fit: spares the tokenizer hopeless work.
Status check_prompt_bytes(const ModelInfo& model, std::size_t bytes, std::string_view field);

// `prefix` and 32 random hexadecimal digits.
std::string new_answer_id(std::string_view prefix);

}  // namespace pagemill
