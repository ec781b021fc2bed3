// The offline batch of `pagemill generate --prompts`.
#pragma once

#include <string>

#include "base/result.h"
#include "pagemill/llm.h"

namespace pagemill::cli {

struct BatchFiles {
  std::string prompts;  // JSON lines, see generate_batch()
  std::string output;   // empty: stdout
};

// Each line of files.prompts is {"prompt": TEXT} or {"prompt_token_ids": [..]} or {"messages":
// [..]}, with an optional "id" and sampling fields of its own ("max_tokens", "temperature", ...)
// over `defaults`. `chat`: texts are a user's messages. A JSON line is written for each, in their
// order; a bad line gets an "error" and does not stop the others. Progress goes to stderr. Returns
// the exit status: 1 if any line failed.
int generate_batch(LLM& llm, const BatchFiles& files, const SamplingParams& defaults, bool chat);

}  // namespace pagemill::cli
