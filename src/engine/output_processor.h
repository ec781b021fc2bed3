// OutputProcessor: turns the scheduler's token events into what a client reads: text, stop strings,
// logprobs with their spelling, usage. It runs on the output thread, off the engine's step path,
// and owns all that it touches.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "engine/stop_matcher.h"
#include "request/outputs.h"
#include "request/request.h"
#include "scheduler/scheduler.h"
#include "tokenizer/tokenizer.h"

namespace pagemill {

// What the engine thread tells the output thread of one step, in order.
struct OutputBatch {
  struct Started {
    Request request;  // without its prompt's KV concerns: for texts and counts
    std::function<void(const RequestDelta&)> on_delta;
    // best_of ranks by logprobs that the client did not ask for.
    bool hide_logprobs = false;
  };
  struct Admitted {
    RequestId request = 0;
    std::int32_t cached_tokens = 0;
  };
  struct Ended {
    RequestId request = 0;
    std::optional<Error> error;  // none: aborted by the client
  };
  std::vector<Started> started;
  std::vector<Admitted> admitted;
  std::vector<Admitted> loaded;  // after their admission: tokens from the second tier
  std::vector<PromptLogprobsEvent> prompt_logprobs;
  std::vector<SequenceEvent> events;
  std::vector<Ended> ended;
  double plan_time = 0;    // when the step was planned: `admitted` happened then
  double commit_time = 0;  // when its tokens were known
};

class OutputProcessor {
 public:
  using OnDelta = std::function<void(const RequestDelta&)>;
  // Called when a stop string ended a sequence that the scheduler still runs.
  using FinishSequence = std::function<void(RequestId, std::int32_t sequence_index)>;

  // `tokenizer` may be null (a model without one): then there is no text.
  OutputProcessor(std::shared_ptr<const Tokenizer> tokenizer, FinishSequence finish_sequence);
  ~OutputProcessor();

  // Publishes the batch: one RequestDelta for each request that it touches.
  void process(OutputBatch batch);
  // Ends every request with `error`: the engine stops.
  void fail_all(const Error& error, double now);

 private:
  struct SequenceOutput;
  struct RequestOutputState;

  void start(OutputBatch::Started started);
  void handle_prompt_logprobs(PromptLogprobsEvent event);
  void handle_event(SequenceEvent event, double now);
  void append_token(RequestOutputState& request, SequenceOutput& sequence, SequenceEvent& event);
  void finish_sequence(RequestOutputState& request, SequenceOutput& sequence, FinishReason reason);
  void end_request(const OutputBatch::Ended& ended);
  void publish(RequestOutputState& request, double now);
  void rank_and_release(RequestOutputState& request);
  void spell(PositionLogprobs& logprobs) const;
  RequestOutputState* touch(RequestId id);

  std::shared_ptr<const Tokenizer> tokenizer_;
  FinishSequence finish_sequence_;
  std::unordered_map<RequestId, std::unique_ptr<RequestOutputState>> requests_;
  std::vector<RequestId> touched_;
};

}  // namespace pagemill
