#include "server/testing/fake_engine.h"

#include <algorithm>

namespace pagemill {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Start of the first stop string in `text`, if any.
std::size_t find_stop(const std::string& text,
                      const std::vector<std::string>& stops,
                      std::string& which) {
  std::size_t best = std::string::npos;
  for (const std::string& stop : stops) {
    const std::size_t at = text.find(stop);
    if (at < best) {
      best = at;
      which = stop;
    }
  }
  return best;
}

}  // namespace

struct FakeEngine::Choice {
  std::int32_t index = 0;
  std::int32_t tokens = 0;
  std::unique_ptr<Detokenizer> detokenizer;
  std::string text;       // all so far
  std::size_t shown = 0;  // bytes of it that were sent
  bool done = false;
};

struct FakeEngine::Running {
  Request request;
  OnDelta on_delta;
  std::vector<Choice> choices;
  std::int32_t steps = 0;
  std::int32_t completion_tokens = 0;
  RequestTimes times;
  bool aborted = false;
};

FakeEngine::FakeEngine(FakeEngineOptions options) : options_(std::move(options)) {
  tokenizer_ = options_.tokenizer ? options_.tokenizer : make_test_tokenizer();
  if (options_.with_chat_template) chat_template_ = make_test_chat_template(*tokenizer_);
  model_.path = "models/fake";
  model_.architecture = "FakeForCausalLM";
  model_.vocab_size = tokenizer_->vocab_size();
  model_.max_model_len = options_.max_model_len;
  model_.dtype = "F32";
  model_.eos_token_ids = tokenizer_->eos_token_ids();
  thread_ = std::thread([this] { run(); });
}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& running : running_) running->aborted = true;
    changed_.notify_all();
  }
  thread_.join();
}

Result<RequestId> FakeEngine::submit(Request request, OnDelta on_delta) {
  PM_TRY(validate(request.params, model_.vocab_size));
  auto running = std::make_unique<Running>();
  const auto n = static_cast<std::size_t>(request.params.n);
  for (std::size_t i = 0; i < n; ++i) {
    Choice& choice = running->choices.emplace_back();
    choice.index = static_cast<std::int32_t>(i);
    choice.detokenizer =
        std::make_unique<Detokenizer>(tokenizer_, request.params.skip_special_tokens);
  }
  running->times.arrival = now_s();
  running->on_delta = std::move(on_delta);
  const std::lock_guard lock(mutex_);
  if (draining_) return Error{ErrorCode::kUnavailable, "the engine is shutting down", {}};
  if (running_.size() >= options_.max_requests) {
    return Error{ErrorCode::kResourceExhausted, "the queue is full; try again later", {}};
  }
  request.id = next_id_++;
  const RequestId id = request.id;
  last_user_ = request.user;
  running->request = std::move(request);
  running_.push_back(std::move(running));
  ++submitted_;
  changed_.notify_all();
  return id;
}

void FakeEngine::abort(RequestId id) {
  const std::lock_guard lock(mutex_);
  for (auto& running : running_) {
    if (running->request.id == id) running->aborted = true;
  }
  changed_.notify_all();
}

bool FakeEngine::drain(double timeout_s) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return changed_.wait_for(
      lock, std::chrono::duration<double>(timeout_s), [this] { return running_.empty(); });
}

std::size_t FakeEngine::num_live() const {
  const std::lock_guard lock(mutex_);
  return running_.size();
}

EngineStats FakeEngine::stats() const {
  EngineStats stats;
  stats.num_requests_running = static_cast<std::int32_t>(num_live());
  stats.prompt_tokens = prompt_tokens_;
  stats.generation_tokens = generated_;
  stats.steps = steps_;
  return stats;
}

void FakeEngine::run() {
  for (;;) {
    std::vector<Running*> batch;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !running_.empty(); });
      if (stopping_ && running_.empty()) return;
      for (auto& running : running_) batch.push_back(running.get());
    }
    if (options_.step_delay.count() > 0) std::this_thread::sleep_for(options_.step_delay);
    ++steps_;
    std::vector<Running*> finished;
    for (Running* running : batch) {
      if (step(*running)) finished.push_back(running);
    }
    const std::lock_guard lock(mutex_);
    for (Running* done : finished) {
      running_.remove_if([done](const auto& running) { return running.get() == done; });
    }
    changed_.notify_all();
  }
}

bool FakeEngine::step(Running& running) {
  RequestDelta delta;
  delta.request_id = running.request.id;
  bool aborted = false;
  {
    const std::lock_guard lock(mutex_);
    aborted = running.aborted;
  }
  const auto& prompt = running.request.prompt_token_ids;
  const SamplingParams& params = running.request.params;
  if (running.steps++ == 0) {
    running.times.first_scheduled = running.times.first_token = now_s();
    prompt_tokens_ += prompt.size();
    if (params.prompt_logprobs) {
      delta.prompt_logprobs.push_back({{prompt[0], 0, 0, tokenizer_->token_bytes(prompt[0])}, {}});
      for (std::size_t i = 1; i < prompt.size(); ++i) {
        delta.prompt_logprobs.push_back(logprobs_of(prompt[i], *params.prompt_logprobs));
      }
    }
  }
  const auto has = [&](TokenId token) {
    return std::find(prompt.begin(), prompt.end(), token) != prompt.end();
  };
  const bool refused = has(options_.late_refusal_token);
  const bool poisoned = running.steps > 1 && has(options_.poison_token);
  if (refused) {
    delta.error = Error{ErrorCode::kResourceExhausted, "the queue is full; try again later", {}};
  } else if (poisoned) {
    delta.error = Error{ErrorCode::kInternal, "the step failed", {}};
  } else if (aborted) {
    ++aborted_;
    for (Choice& choice : running.choices) {
      if (choice.done) continue;
      choice.done = true;
      CompletionDelta& part = delta.completions.emplace_back();
      part.index = choice.index;
      part.finish_reason = FinishReason::kAbort;
    }
  } else {
    for (Choice& choice : running.choices) {
      if (!choice.done) step_choice(running, choice, delta);
    }
  }
  const bool all_done = std::all_of(
      running.choices.begin(), running.choices.end(), [](const Choice& c) { return c.done; });
  delta.finished = delta.error || all_done;
  delta.usage = {static_cast<std::int32_t>(prompt.size()), running.completion_tokens, 0};
  if (delta.finished) running.times.finished = now_s();
  delta.times = running.times;
  running.on_delta(delta);
  return delta.finished;
}

void FakeEngine::step_choice(Running& running, Choice& choice, RequestDelta& delta) {
  const auto& prompt = running.request.prompt_token_ids;
  const SamplingParams& params = running.request.params;
  const auto at = static_cast<std::size_t>(choice.index + choice.tokens) % prompt.size();
  const TokenId token = prompt[at];
  CompletionDelta& part = delta.completions.emplace_back();
  part.index = choice.index;
  part.token_ids.push_back(token);
  if (params.logprobs) part.logprobs.push_back(logprobs_of(token, *params.logprobs));
  ++choice.tokens;
  ++running.completion_tokens;
  ++generated_;
  choice.text += choice.detokenizer->push(token);

  const auto is_in = [token](const std::vector<TokenId>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  const bool may_stop = choice.tokens >= params.min_tokens;
  std::string stop;
  const std::size_t stop_at = find_stop(choice.text, params.stop, stop);
  std::size_t held = 0;
  for (const std::string& s : params.stop) held = std::max(held, s.size() - 1);
  if (may_stop && stop_at != std::string::npos) {
    choice.text.resize(stop_at + (params.include_stop_str_in_output ? stop.size() : 0));
    part.finish_reason = FinishReason::kStop;
    part.stop_string = stop;
  } else if (may_stop && is_in(params.stop_token_ids)) {
    part.finish_reason = FinishReason::kStop;
    part.stop_token = token;
  } else if (may_stop && !params.ignore_eos && is_in(model_.eos_token_ids)) {
    part.finish_reason = FinishReason::kStop;
  } else if (choice.tokens >= params.max_tokens) {
    part.finish_reason = FinishReason::kLength;
    choice.text += choice.detokenizer->finish();
  }
  choice.done = part.finish_reason != FinishReason::kNone;
  std::size_t upto = choice.text.size();
  if (!choice.done) upto -= std::min(upto, held);
  if (upto > choice.shown) {
    part.text = choice.text.substr(choice.shown, upto - choice.shown);
    choice.shown = upto;
  }
}

PositionLogprobs FakeEngine::logprobs_of(TokenId token, std::int32_t count) const {
  PositionLogprobs out;
  out.chosen = {token, -0.25f, 1, tokenizer_->token_bytes(token)};
  for (std::int32_t i = 0; i < count; ++i) {
    const TokenId other = (token + i) % model_.vocab_size;
    out.top.push_back(
        {other, -0.25f - static_cast<float>(i), i + 1, tokenizer_->token_bytes(other)});
  }
  return out;
}

}  // namespace pagemill
