#include "engine/output_processor.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace pagemill {
namespace {

Error error_of(StepFailure failure) {
  switch (failure) {
    case StepFailure::kNonFinite:
      return {ErrorCode::kInternal, "the model's logits for this request are not finite", {}};
    case StepFailure::kNoToken:
      return {ErrorCode::kInvalidArgument,
              "allowed_token_ids, bad_words and min_tokens leave no token to choose from",
              {}};
    case StepFailure::kStep:
    case StepFailure::kNone:
      break;
  }
  return {ErrorCode::kInternal, "the step that computed this request failed", {}};
}

}  // namespace

struct OutputProcessor::SequenceOutput {
  std::optional<Detokenizer> detokenizer;
  StopMatcher stops;
  CompletionDelta delta;  // not yet published
  double cumulative_logprob = 0;
  std::int32_t num_tokens = 0;
  bool finished = false;
};

struct OutputProcessor::RequestOutputState {
  Request request;
  OnDelta on_delta;
  bool hide_logprobs = false;
  std::vector<SequenceOutput> sequences;
  std::int32_t num_unfinished = 0;
  std::vector<PositionLogprobs> prompt_logprobs;  // gathered until all are there
  bool prompt_logprobs_ready = false;
  std::optional<Error> error;
  bool finished = false;
  bool touched = false;
  std::int32_t cached_tokens = 0;
  RequestTimes times;

  // More sequences are sampled than returned: nothing can be shown before all are known.
  bool ranks() const { return request.params.num_outputs() > request.params.n; }
};

OutputProcessor::OutputProcessor(std::shared_ptr<const Tokenizer> tokenizer,
                                 FinishSequence finish_sequence)
    : tokenizer_(std::move(tokenizer)), finish_sequence_(std::move(finish_sequence)) {}

OutputProcessor::~OutputProcessor() = default;

void OutputProcessor::process(OutputBatch batch) {
  for (auto& started : batch.started) start(std::move(started));
  for (const auto& admitted : batch.admitted) {
    if (RequestOutputState* request = touch(admitted.request)) {
      request->times.first_scheduled = batch.plan_time;
      request->cached_tokens = admitted.cached_tokens;
    }
  }
  for (const auto& loaded : batch.loaded) {
    if (RequestOutputState* request = touch(loaded.request)) {
      request->cached_tokens += loaded.cached_tokens;
    }
  }
  for (auto& event : batch.prompt_logprobs) handle_prompt_logprobs(std::move(event));
  for (auto& event : batch.events) handle_event(std::move(event), batch.commit_time);
  for (const auto& ended : batch.ended) end_request(ended);
  for (RequestId id : std::exchange(touched_, {})) {
    const auto it = requests_.find(id);
    if (it == requests_.end()) continue;
    publish(*it->second, batch.commit_time);
    if (it->second->finished) requests_.erase(it);
  }
}

void OutputProcessor::fail_all(const Error& error, double now) {
  OutputBatch batch;
  batch.commit_time = now;
  for (const auto& [id, request] : requests_) batch.ended.push_back({id, error});
  process(std::move(batch));
}

void OutputProcessor::start(OutputBatch::Started started) {
  auto state = std::make_unique<RequestOutputState>();
  state->request = std::move(started.request);
  state->on_delta = std::move(started.on_delta);
  state->hide_logprobs = started.hide_logprobs;
  state->times.arrival = state->request.arrival_time;
  const SamplingParams& params = state->request.params;
  for (std::int32_t i = 0; i < params.num_outputs(); ++i) {
    SequenceOutput sequence{.detokenizer = {},
                            .stops = StopMatcher(params.stop, params.include_stop_str_in_output),
                            .delta = {}};
    if (tokenizer_) sequence.detokenizer.emplace(tokenizer_, params.skip_special_tokens);
    sequence.delta.index = i;
    state->sequences.push_back(std::move(sequence));
  }
  state->num_unfinished = params.num_outputs();
  if (params.prompt_logprobs) {
    PositionLogprobs first;  // nothing predicts the first token
    first.chosen.token = state->request.prompt_token_ids.front();
    spell(first);
    state->prompt_logprobs.push_back(std::move(first));
  }
  const RequestId id = state->request.id;
  requests_[id] = std::move(state);
}

OutputProcessor::RequestOutputState* OutputProcessor::touch(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return nullptr;
  if (!std::exchange(it->second->touched, true)) touched_.push_back(id);
  return it->second.get();
}

void OutputProcessor::spell(PositionLogprobs& logprobs) const {
  if (!tokenizer_) return;
  logprobs.chosen.text = tokenizer_->token_bytes(logprobs.chosen.token);
  for (TokenLogprob& candidate : logprobs.top)
    candidate.text = tokenizer_->token_bytes(candidate.token);
}

void OutputProcessor::handle_prompt_logprobs(PromptLogprobsEvent event) {
  RequestOutputState* request = touch(event.request);
  if (request == nullptr) return;
  for (PositionLogprobs& entry : event.entries) {
    spell(entry);
    request->prompt_logprobs.push_back(std::move(entry));
  }
  request->prompt_logprobs_ready =
      request->prompt_logprobs.size() == request->request.prompt_token_ids.size();
}

void OutputProcessor::handle_event(SequenceEvent event, double now) {
  RequestOutputState* request = touch(event.request);
  if (request == nullptr) return;
  SequenceOutput& sequence = request->sequences[event.sequence_index];
  if (sequence.finished) return;  // past a stop string: nobody hears of these tokens
  if (event.sampled) {
    if (request->times.first_token == 0) request->times.first_token = now;
    // A one-token prompt has no logprobs event of its own.
    request->prompt_logprobs_ready = request->request.params.prompt_logprobs.has_value();
    append_token(*request, sequence, event);
  }
  if (!sequence.finished && event.finish_reason != FinishReason::kNone) {
    sequence.delta.stop_token = event.stop_token;
    sequence.delta.beam_score = event.beam_score;
    if (event.finish_reason == FinishReason::kError) {
      request->error = error_of(event.failure);
    }
    finish_sequence(*request, sequence, event.finish_reason);
  }
}

void OutputProcessor::append_token(RequestOutputState& request,
                                   SequenceOutput& sequence,
                                   SequenceEvent& event) {
  SampledToken& sampled = *event.sampled;
  ++sequence.num_tokens;
  sequence.delta.token_ids.push_back(sampled.token);
  if (request.request.params.logprobs) {
    sequence.cumulative_logprob += sampled.logprobs.chosen.logprob;
    if (!request.hide_logprobs) {
      spell(sampled.logprobs);
      sequence.delta.logprobs.push_back(std::move(sampled.logprobs));
    }
  }
  // The token that ends a sequence is no text of it, unless the client wants to see it.
  const bool is_stop_token = event.finish_reason == FinishReason::kStop;
  if (!sequence.detokenizer ||
      (is_stop_token && !request.request.params.include_stop_str_in_output)) {
    return;
  }
  StopMatcher::Match match = sequence.stops.push(sequence.detokenizer->push(sampled.token));
  sequence.delta.text += match.text;
  if (!match.stop) return;
  sequence.delta.stop_string = std::move(match.stop);
  const bool still_runs = event.finish_reason == FinishReason::kNone;
  finish_sequence(request, sequence, FinishReason::kStop);
  if (still_runs) finish_sequence_(request.request.id, event.sequence_index);
}

void OutputProcessor::finish_sequence(RequestOutputState& request,
                                      SequenceOutput& sequence,
                                      FinishReason reason) {
  if (!sequence.delta.stop_string) {
    if (sequence.detokenizer) {
      StopMatcher::Match match = sequence.stops.push(sequence.detokenizer->finish());
      sequence.delta.text += match.text;
      sequence.delta.stop_string = std::move(match.stop);
      if (sequence.delta.stop_string) reason = FinishReason::kStop;
    }
    if (!sequence.delta.stop_string) sequence.delta.text += sequence.stops.finish();
  }
  sequence.delta.finish_reason = reason;
  sequence.finished = true;
  --request.num_unfinished;
}

void OutputProcessor::end_request(const OutputBatch::Ended& ended) {
  RequestOutputState* request = touch(ended.request);
  if (request == nullptr) return;
  request->error = ended.error;
  for (SequenceOutput& sequence : request->sequences) {
    if (sequence.finished) continue;
    finish_sequence(*request, sequence, ended.error ? FinishReason::kError : FinishReason::kAbort);
  }
}

// Of best_of finished sequences the n with the highest cumulative logprob are returned, the best as
// index 0.
void OutputProcessor::rank_and_release(RequestOutputState& request) {
  std::stable_sort(request.sequences.begin(),
                   request.sequences.end(),
                   [](const SequenceOutput& a, const SequenceOutput& b) {
                     return a.cumulative_logprob > b.cumulative_logprob;
                   });
  for (std::size_t i = 0; i < request.sequences.size(); ++i) {
    CompletionDelta& delta = request.sequences[i].delta;
    delta.index = static_cast<std::int32_t>(i);
    if (delta.index >= request.request.params.n) delta = {};  // an empty delta is not published
  }
}

void OutputProcessor::publish(RequestOutputState& request, double now) {
  request.touched = false;
  RequestDelta delta;
  delta.request_id = request.request.id;
  delta.finished = request.num_unfinished == 0;
  if (request.prompt_logprobs_ready) delta.prompt_logprobs = std::move(request.prompt_logprobs);
  request.prompt_logprobs_ready = false;
  const bool withholds = request.ranks() && !delta.finished;
  if (request.ranks() && delta.finished) rank_and_release(request);
  for (SequenceOutput& sequence : request.sequences) {
    delta.usage.completion_tokens += sequence.num_tokens;
    const CompletionDelta& pending = sequence.delta;
    const bool is_empty = pending.token_ids.empty() && pending.text.empty() &&
                          pending.finish_reason == FinishReason::kNone;
    if (withholds || is_empty) continue;
    const std::int32_t index = pending.index;
    delta.completions.push_back(std::exchange(sequence.delta, {}));
    sequence.delta.index = index;
  }
  if (delta.completions.empty() && delta.prompt_logprobs.empty() && !delta.finished) return;
  delta.usage.prompt_tokens = static_cast<std::int32_t>(request.request.prompt_token_ids.size());
  delta.usage.cached_tokens = request.cached_tokens;
  if (delta.finished) {
    delta.error = request.error;
    request.times.finished = now;
    request.finished = true;
  }
  delta.times = request.times;
  delta.times.committed = now;
  request.on_delta(delta);
}

}  // namespace pagemill
