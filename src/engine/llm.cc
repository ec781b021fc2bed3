#include "pagemill/llm.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "hub/model_path.h"

namespace pagemill {
namespace {

using json = nlohmann::ordered_json;  // templates see the keys' order

void append(CompletionOutput& output, const CompletionDelta& delta) {
  output.text += delta.text;
  output.token_ids.insert(output.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  for (const PositionLogprobs& position : delta.logprobs) {
    output.cumulative_logprob = output.cumulative_logprob.value_or(0) + position.chosen.logprob;
    output.logprobs.push_back(position);
  }
  if (delta.finish_reason != FinishReason::kNone) output.finish_reason = delta.finish_reason;
  if (delta.beam_score) output.beam_score = delta.beam_score;
  if (delta.stop_token) output.stop_reason = *delta.stop_token;
  if (delta.stop_string) output.stop_reason = *delta.stop_string;
}

// One call's prompts on their way. Shared with the engine's callbacks, which may outlive a call
// that threw.
class Batch {
 public:
  explicit Batch(std::size_t num_prompts) : outputs_(num_prompts), begin_(monotonic_seconds()) {}

  RequestOutput& output(std::size_t index) { return outputs_[index]; }

  // Before each submission.
  void expect(std::size_t index, std::int32_t num_outputs) {
    const std::lock_guard lock(mutex_);
    expect_outputs(outputs_[index], num_outputs);
  }

  void submitted(std::size_t index, RequestId id) {
    const std::lock_guard lock(mutex_);
    outputs_[index].request_id = id;
  }

  void fail(std::size_t index, Error error) {
    const std::lock_guard lock(mutex_);
    outputs_[index].outputs.clear();
    outputs_[index].error = std::move(error);
    finish(outputs_[index]);
  }

  void take(std::size_t index, const RequestDelta& delta) {
    const std::lock_guard lock(mutex_);
    RequestOutput& output = outputs_[index];
    for (const CompletionDelta& completion : delta.completions)
      num_tokens_ += static_cast<std::int64_t>(completion.token_ids.size());
    // A preempted request may take the place that was counted as free.
    if (delta.error && delta.error->code == ErrorCode::kResourceExhausted &&
        delta.usage.completion_tokens == 0) {
      refused_.push_back(index);
      changed_.notify_all();
      return;
    }
    append(output, delta);
    if (delta.finished) finish(output);
  }

  std::optional<std::size_t> next_refused() {
    const std::lock_guard lock(mutex_);
    if (refused_.empty()) return std::nullopt;
    const std::size_t index = refused_.front();
    refused_.pop_front();
    return index;
  }

  // Returns when something finished or was refused, or after a while.
  void wait(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(
        lock, most, [this] { return num_finished_ != num_seen_ || !refused_.empty(); });
    num_seen_ = num_finished_;
  }

  bool done() const {
    const std::lock_guard lock(mutex_);
    return num_finished_ == outputs_.size();
  }

  BatchProgress progress() const {
    const std::lock_guard lock(mutex_);
    return {num_finished_, outputs_.size(), num_tokens_, monotonic_seconds() - begin_};
  }

  std::vector<RequestId> unfinished() const {
    const std::lock_guard lock(mutex_);
    std::vector<RequestId> ids;
    for (const RequestOutput& output : outputs_) {
      if (!output.finished && output.request_id != 0) ids.push_back(output.request_id);
    }
    return ids;
  }

  // When done.
  std::vector<RequestOutput> release() {
    const std::lock_guard lock(mutex_);
    return std::move(outputs_);
  }

 private:
  void finish(RequestOutput& output) {
    output.finished = true;
    ++num_finished_;
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestOutput> outputs_;
  std::deque<std::size_t> refused_;  // to be submitted again
  const double begin_;
  std::size_t num_finished_ = 0, num_seen_ = 0;
  std::int64_t num_tokens_ = 0;
};

constexpr std::chrono::milliseconds kRetry{20}, kReport{200};

Error stopped_early() {
  return {ErrorCode::kCancelled, "the batch was stopped before this prompt began", {}};
}

// Tells of the progress until it is asked to stop.
class Reporter {
 public:
  Reporter(const Batch& batch, const OnProgress& on_progress)
      : batch_(batch), on_progress_(on_progress) {}

  void operator()() {
    if (!on_progress_ || stopped_) return;
    const BatchProgress progress = batch_.progress();
    reported_at_ = progress.elapsed_s;
    stopped_ = !on_progress_(progress);
  }
  // Between prompts, whose tokenising may take long.
  void if_due() {
    if (batch_.progress().elapsed_s - reported_at_ > std::chrono::duration<double>(kReport).count())
      (*this)();
  }
  bool stopped() const { return stopped_; }

 private:
  const Batch& batch_;
  const OnProgress& on_progress_;
  double reported_at_ = 0;
  bool stopped_ = false;
};

// Aborts what still runs when a call ends by an exception.
class AbortGuard {
 public:
  AbortGuard(EngineClient& engine, const Batch& batch) : engine_(engine), batch_(batch) {}
  ~AbortGuard() { abort(); }
  void abort() const {
    for (RequestId id : batch_.unfinished()) engine_.abort(id);
  }

 private:
  EngineClient& engine_;
  const Batch& batch_;
};

// False if the queue is full. Any other error is the request's outcome.
bool try_submit(EngineClient& engine,
                const std::shared_ptr<Batch>& batch,
                std::size_t index,
                const SamplingParams& params) {
  batch->expect(index, params.n);
  Request request;
  request.prompt_token_ids = batch->output(index).prompt_token_ids;
  request.params = params;
  auto submitted = engine.submit(
      std::move(request), [batch, index](const RequestDelta& delta) { batch->take(index, delta); });
  if (submitted.ok()) {
    batch->submitted(index, *submitted);
  } else if (submitted.error().code == ErrorCode::kResourceExhausted) {
    return false;
  } else {
    batch->fail(index, std::move(submitted).error());
  }
  return true;
}

Result<std::string> chat_context(const Conversation& conversation, const ChatOptions& options) {
  json context = json::object();
  if (!options.chat_template_kwargs.empty()) {
    context = json::parse(options.chat_template_kwargs, nullptr, false);
    if (!context.is_object()) {
      return invalid_argument("chat_template_kwargs: expected a JSON object",
                              "chat_template_kwargs");
    }
  }
  json& messages = context["messages"] = json::array();
  for (const ChatMessage& message : conversation) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  if (options.add_generation_prompt && options.continue_final_message) {
    return invalid_argument("continue_final_message: expected false with add_generation_prompt",
                            "continue_final_message");
  }
  context["add_generation_prompt"] = options.add_generation_prompt;
  context["continue_final_message"] = options.continue_final_message;
  return context.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

void expect_outputs(RequestOutput& output, std::int32_t n) {
  output.outputs.assign(static_cast<std::size_t>(std::max(n, 0)), {});
  for (std::int32_t i = 0; i < n; ++i) output.outputs[i].index = i;
}

void append(RequestOutput& output, const RequestDelta& delta) {
  for (const CompletionDelta& completion : delta.completions)
    append(output.outputs[completion.index], completion);
  if (!delta.prompt_logprobs.empty()) output.prompt_logprobs = delta.prompt_logprobs;
  output.usage = delta.usage;
  output.times = delta.times;
  output.error = delta.error;
  output.finished = delta.finished;
}

Result<std::unique_ptr<LLM>> LLM::create(EngineOptions options, const OnDownload& on_download) {
  PM_ASSIGN(options.model,
            resolve_model_path(options.model, {options.revision, options.gguf_file}, on_download));
  PM_ASSIGN(std::unique_ptr<EngineClient> engine, EngineClient::start(options));
  return std::make_unique<LLM>(std::move(engine));
}

LLM::LLM(std::unique_ptr<EngineClient> engine) : engine_(std::move(engine)) {
  PM_CHECK(engine_ != nullptr, "LLM without an engine");
}

LLM::~LLM() = default;

Result<std::vector<TokenId>> LLM::encode(const std::string& text) const {
  if (!engine_->tokenizer()) {
    return invalid_argument("the model has no tokenizer: give the prompt as token ids", "prompt");
  }
  return engine_->tokenizer()->encode(text, true);
}

Result<std::string> LLM::render_chat(const std::string& context_json) const {
  if (!engine_->chat_template()) {
    return invalid_argument("the model has no chat template: set chat_template", "messages");
  }
  return engine_->chat_template()->render(context_json);
}

Result<std::vector<TokenId>> LLM::encode_chat(const std::string& context_json) const {
  PM_ASSIGN(const std::string text, render_chat(context_json));
  return engine_->tokenizer()->encode(text, false);
}

std::vector<RequestOutput> LLM::generate(const std::vector<Prompt>& prompts,
                                         const SamplingParams& params,
                                         const OnProgress& on_progress) {
  return generate(prompts, std::vector(prompts.size(), params), on_progress);
}

std::vector<RequestOutput> LLM::generate(const std::vector<Prompt>& prompts,
                                         const std::vector<SamplingParams>& params,
                                         const OnProgress& on_progress) {
  const auto encode_prompt = [&](std::size_t index,
                                 RequestOutput& output) -> Result<std::vector<TokenId>> {
    if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompts[index])) return *ids;
    output.prompt = std::get<std::string>(prompts[index]);
    return encode(output.prompt);
  };
  return run(prompts.size(), encode_prompt, params, on_progress);
}

std::vector<RequestOutput> LLM::chat(const std::vector<Conversation>& conversations,
                                     const SamplingParams& params,
                                     const ChatOptions& options,
                                     const OnProgress& on_progress) {
  const auto encode_conversation = [&](std::size_t index,
                                       RequestOutput&) -> Result<std::vector<TokenId>> {
    PM_ASSIGN(const std::string context, chat_context(conversations[index], options));
    return encode_chat(context);
  };
  return run(conversations.size(),
             encode_conversation,
             std::vector(conversations.size(), params),
             on_progress);
}

// Tokenises and submits in order, waiting while the queue is full, then waits for all.
std::vector<RequestOutput> LLM::run(std::size_t num_prompts,
                                    const Encode& encode,
                                    const std::vector<SamplingParams>& params,
                                    const OnProgress& on_progress) {
  const auto batch = std::make_shared<Batch>(num_prompts);
  const AbortGuard guard(*engine_, *batch);
  Reporter report(*batch, on_progress);
  const auto submit = [&](std::size_t index) {
    while (!report.stopped() && !try_submit(*engine_, batch, index, params[index])) {
      batch->wait(kRetry);
      report();
    }
    if (report.stopped()) batch->fail(index, stopped_early());
  };
  for (std::size_t index = 0; index < num_prompts; ++index) {
    if (params.size() != num_prompts) {
      batch->fail(
          index,
          invalid_argument(fmt::format("params: expected one for each of {} prompts, got {}",
                                       num_prompts,
                                       params.size()),
                           "params"));
      continue;
    }
    if (report.stopped()) {
      batch->fail(index, stopped_early());
      continue;
    }
    auto ids = encode(index, batch->output(index));
    if (!ids.ok()) {
      batch->fail(index, std::move(ids).error());
      continue;
    }
    batch->output(index).prompt_token_ids = std::move(ids).value();
    submit(index);
    report.if_due();
  }
  for (bool aborted = false; !batch->done();) {
    if (report.stopped() && !std::exchange(aborted, true)) guard.abort();
    batch->wait(kReport);
    while (const auto refused = batch->next_refused()) submit(*refused);
    if (!batch->done()) report();
  }
  report();
  return batch->release();
}

}  // namespace pagemill
