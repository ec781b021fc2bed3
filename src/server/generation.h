// Generation: runs one HTTP request's prompts through the engine and feeds an AnswerFormat.
//
// Deltas arrive on the engine's output thread, are queued, and are formatted on the connection's
// strand. A client that hangs up or reads too slowly aborts all its prompts.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "request/outputs.h"
#include "request/request.h"
#include "server/http_types.h"
#include "server/server_context.h"

namespace pagemill {

struct ChoiceResult {
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<PositionLogprobs> logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;
  std::optional<TokenId> stop_token;
  std::optional<float> beam_score;
};

struct PromptResult {
  std::vector<ChoiceResult> choices;  // [n]
  std::vector<PositionLogprobs> prompt_logprobs;
  Usage usage;
};

// How an endpoint's answer looks. Used from one thread at a time.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual bool streams() const = 0;

  // Streaming: append SSE events for one prompt's delta; for the end, usage and [DONE].
  virtual void stream(std::string& out, std::size_t prompt, const RequestDelta& delta) = 0;
  virtual void stream_end(std::string& out) = 0;
  // Otherwise: the whole answer as JSON.
  virtual std::string whole(const std::vector<PromptResult>& results) = 0;
};

// Submits every request; an error (400, 429, 503) is answered through the writer.
void start_generation(const ServerContextPtr& context,
                      const ResponseWriterPtr& writer,
                      std::unique_ptr<AnswerFormat> format,
                      std::vector<Request> requests);

}  // namespace pagemill
