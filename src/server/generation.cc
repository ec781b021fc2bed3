#include "server/generation.h"

#include <algorithm>
#include <chrono>

#include "server/error_response.h"

namespace pagemill {
namespace {

using Clock = std::chrono::steady_clock;

double between(double from, double to) { return from > 0 && to >= from ? to - from : -1; }

// What is measured of one prompt; used on the engine's output thread.
struct Meter {
  std::int32_t n = 1, max_tokens = 0;
  std::vector<std::int32_t> tokens_per_choice;
  std::vector<Clock::time_point> last_token;  // per choice; the epoch before the first
  FinishReason reason = FinishReason::kNone;

  void observe(ServingMetrics& metrics, const RequestDelta& delta) {
    const Clock::time_point now = Clock::now();
    for (const CompletionDelta& completion : delta.completions) {
      const auto index = static_cast<std::size_t>(completion.index);
      if (index >= last_token.size()) continue;
      if (completion.finish_reason != FinishReason::kNone) reason = completion.finish_reason;
      if (completion.token_ids.empty()) continue;
      tokens_per_choice[index] += static_cast<std::int32_t>(completion.token_ids.size());
      if (last_token[index] != Clock::time_point()) {
        metrics.observe_inter_token(std::chrono::duration<double>(now - last_token[index]).count());
      }
      last_token[index] = now;
    }
    if (delta.finished) finish(metrics, delta);
  }

  void finish(ServingMetrics& metrics, const RequestDelta& delta) {
    FinishedRequest request;
    if (delta.error) reason = FinishReason::kError;
    if (reason == FinishReason::kNone) reason = FinishReason::kAbort;
    const RequestTimes& t = delta.times;
    request.finished_reason = to_string(reason);
    request.e2e_s = between(t.arrival, t.finished);
    request.ttft_s = between(t.arrival, t.first_token);
    request.queue_s = between(t.arrival, t.first_scheduled);
    request.prefill_s = between(t.first_scheduled, t.first_token);
    request.decode_s = between(t.first_token, t.finished);
    request.inference_s = between(t.first_scheduled, t.finished);
    request.prompt_tokens = delta.usage.prompt_tokens;
    request.cached_tokens = delta.usage.cached_tokens;
    request.generation_tokens = delta.usage.completion_tokens;
    request.max_generation_tokens =
        *std::max_element(tokens_per_choice.begin(), tokens_per_choice.end());
    request.n = n;
    request.max_tokens = max_tokens;
    metrics.observe_finished(request);
  }
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(ServerContextPtr context,
             ResponseWriterPtr writer,
             std::unique_ptr<AnswerFormat> format,
             const std::vector<Request>& requests)
      : context_(std::move(context)),
        writer_(std::move(writer)),
        format_(std::move(format)),
        results_(requests.size()),
        meters_(requests.size()),
        unfinished_(requests.size()) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto n = static_cast<std::size_t>(std::max(1, requests[i].params.n));
      results_[i].choices.resize(n);
      meters_[i].n = requests[i].params.n;
      meters_[i].max_tokens = requests[i].params.max_tokens;
      meters_[i].tokens_per_choice.resize(n);
      meters_[i].last_token.resize(n);
    }
  }

  void start(std::vector<Request> requests) {
    const auto on_disconnect = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->give_up();
    };
    writer_->set_on_disconnect(on_disconnect);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (given_up()) return;
      const auto on_delta = [self = shared_from_this(), i](const RequestDelta& delta) {
        self->receive(i, delta);
      };
      ++context_->live_generations;
      auto id = context_->engine.submit(std::move(requests[i]), on_delta);
      if (!id.ok()) {
        --context_->live_generations;
        refuse(id.error());
        return;
      }
      remember(*id);
    }
  }

 private:
  // Engine's output thread.
  void receive(std::size_t prompt, const RequestDelta& delta) {
    meters_[prompt].observe(*context_->metrics, delta);
    bool schedule = false;
    {
      const std::lock_guard lock(mutex_);
      if (!given_up_) {
        queue_.emplace_back(prompt, delta);
        schedule = !std::exchange(drain_posted_, true);
      }
    }
    if (schedule) writer_->post([self = shared_from_this()] { self->drain(); });
    if (delta.finished) --context_->live_generations;
  }

  // The connection's strand.
  void drain() {
    std::vector<std::pair<std::size_t, RequestDelta>> batch;
    {
      const std::lock_guard lock(mutex_);
      drain_posted_ = false;
      batch.swap(queue_);
    }
    std::string out;
    for (auto& [prompt, delta] : batch) {
      if (delta.error) {
        fail(*delta.error, out);
        return;
      }
      if (delta.finished) --unfinished_;
      if (format_->streams()) {
        format_->stream(out, prompt, delta);
      } else {
        gather(results_[prompt], std::move(delta));
      }
    }
    const bool ended = unfinished_ == 0;
    if (format_->streams()) {
      if (ended) format_->stream_end(out);
      begin_stream();
      if (!out.empty() && !writer_->write(out)) give_up();
      if (ended) writer_->end_stream();
    } else if (ended) {
      context_->post_worker([self = shared_from_this()] { self->send_whole(); });
    }
  }

  static void gather(PromptResult& result, RequestDelta delta) {
    if (!delta.prompt_logprobs.empty()) result.prompt_logprobs = std::move(delta.prompt_logprobs);
    result.usage = delta.usage;
    for (CompletionDelta& part : delta.completions) {
      const auto index = static_cast<std::size_t>(part.index);
      if (index >= result.choices.size()) continue;
      ChoiceResult& choice = result.choices[index];
      choice.text += part.text;
      choice.token_ids.insert(choice.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
      std::move(part.logprobs.begin(), part.logprobs.end(), std::back_inserter(choice.logprobs));
      if (part.finish_reason == FinishReason::kNone) continue;
      choice.finish_reason = part.finish_reason;
      choice.stop_string = std::move(part.stop_string);
      choice.stop_token = part.stop_token;
      choice.beam_score = part.beam_score;
    }
  }

  void send_whole() {
    HttpResponse response;
    response.body = format_->whole(results_);
    writer_->send(std::move(response));
  }

  // With the first delta and no sooner: until then the engine may still refuse the request, and the
  // status must say so.
  void begin_stream() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stream_begun_, true)) return;
    HttpResponse head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers.emplace_back("Cache-Control", "no-cache");
    head.headers.emplace_back("X-Accel-Buffering", "no");
    writer_->begin_stream(std::move(head));
  }

  // The engine failed one prompt after it was accepted: the request as a whole failed.
  void fail(const Error& error, std::string& out) {
    bool begun = false;
    {
      const std::lock_guard lock(mutex_);
      begun = stream_begun_;
    }
    if (begun) {
      out += "data: " + error_json(http_status(error), error) + "\n\ndata: [DONE]\n\n";
      writer_->write(out);
      writer_->end_stream();
    } else {
      writer_->send(error_response(error));
    }
    abort_all();
  }

  void refuse(const Error& error) {
    writer_->send(error_response(error));
    abort_all();
  }

  void give_up() {
    abort_all();
    writer_->abandon();
  }

  bool given_up() {
    const std::lock_guard lock(mutex_);
    return given_up_;
  }

  void remember(RequestId id) {
    bool late = false;
    {
      const std::lock_guard lock(mutex_);
      ids_.push_back(id);
      late = given_up_;
    }
    if (late) context_->engine.abort(id);
  }

  void abort_all() {
    std::vector<RequestId> ids;
    {
      const std::lock_guard lock(mutex_);
      given_up_ = true;
      queue_.clear();
      ids = ids_;
    }
    for (const RequestId id : ids) context_->engine.abort(id);
  }

  const ServerContextPtr context_;
  const ResponseWriterPtr writer_;
  const std::unique_ptr<AnswerFormat> format_;  // strand; then the worker that sends the whole
  std::vector<PromptResult> results_;           // as format_
  std::vector<Meter> meters_;                   // engine's output thread
  std::size_t unfinished_;                      // strand

  std::mutex mutex_;
  std::vector<RequestId> ids_;
  std::vector<std::pair<std::size_t, RequestDelta>> queue_;
  bool drain_posted_ = false, given_up_ = false, stream_begun_ = false;
};

}  // namespace

void start_generation(const ServerContextPtr& context,
                      const ResponseWriterPtr& writer,
                      std::unique_ptr<AnswerFormat> format,
                      std::vector<Request> requests) {
  const auto generation =
      std::make_shared<Generation>(context, writer, std::move(format), requests);
  generation->start(std::move(requests));
}

}  // namespace pagemill
