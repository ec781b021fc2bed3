#include "cli/bench_http.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/clock.h"

namespace pagemill::cli {
namespace {

using nlohmann::json;

json request_body(const std::string& model,
                  const WorkloadItem& item,
                  const SamplingParams& params) {
  json body = {{"model", model},
               {"prompt", item.prompt_token_ids},
               {"max_tokens", item.output_len},
               {"temperature", params.temperature},
               {"ignore_eos", true},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}}};
  if (params.temperature == 0) return body;
  body["top_p"] = params.top_p;
  body["top_k"] = params.top_k;
  body["presence_penalty"] = params.presence_penalty;
  body["frequency_penalty"] = params.frequency_penalty;
  body["repetition_penalty"] = params.repetition_penalty;
  body["stop"] = params.stop;
  if (params.seed) body["seed"] = *params.seed;
  return body;
}

// The times and tokens of one streamed answer.
class Timeline {
 public:
  Timeline() : begin_(monotonic_seconds()), last_(begin_) {}

  void event(std::string_view data) {
    if (data == "[DONE]") return;
    const json chunk = json::parse(data, nullptr, false);
    if (!chunk.is_object())
      return fail(fmt::format("an event is no JSON object: {}", data.substr(0, 200)));
    if (const auto error = chunk.find("error"); error != chunk.end()) return fail(error->dump());
    if (const auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
      input_tokens_ = usage->value("prompt_tokens", std::int64_t{0});
      output_tokens_ = usage->value("completion_tokens", std::int64_t{0});
    }
    const auto choices = chunk.find("choices");
    if (choices == chunk.end() || !choices->is_array() || choices->empty()) return;
    // A chunk without text is a token that is no whole character yet, unless it only says the end.
    const json& choice = choices->front();
    const bool ends = choice.contains("finish_reason") && !choice["finish_reason"].is_null();
    if (ends && choice.value("text", std::string()).empty()) return;
    const double now = monotonic_seconds();
    (ttft_s_ ? itl_s_.emplace_back() : ttft_s_.emplace()) = now - last_;
    last_ = now;
  }

  void fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
  }

  void add_to(RunMeasure& measure) {
    if (error_.empty() && output_tokens_ == 0) {
      fail("the answer has no usage: the server doesn't know stream_options.include_usage");
    }
    if (!error_.empty()) {
      ++measure.num_failed;
      if (measure.first_failure.empty()) measure.first_failure = error_;
      return;
    }
    if (ttft_s_) measure.ttft_s.push_back(*ttft_s_);
    measure.itl_s.insert(measure.itl_s.end(), itl_s_.begin(), itl_s_.end());
    const double seconds = monotonic_seconds() - begin_;
    measure.e2e_s.push_back(seconds);
    measure.normalized_s.push_back(seconds / static_cast<double>(output_tokens_));
    measure.input_tokens += input_tokens_;
    measure.output_tokens += output_tokens_;
  }

 private:
  double begin_, last_;
  std::optional<double> ttft_s_;
  std::vector<double> itl_s_;
  std::int64_t input_tokens_ = 0, output_tokens_ = 0;
  std::string error_;
};

Timeline complete(const HttpBenchOptions& options, const std::string& body) {
  Timeline timeline;
  EventStream events;
  const auto on_event = [&](std::string_view data) {
    try {
      timeline.event(data);
    } catch (const json::exception& error) {
      timeline.fail(fmt::format("an event has a field of another type: {}", error.what()));
    }
  };
  const auto answer = post_json(options.url,
                                "/v1/completions",
                                options.api_key,
                                body,
                                options.timeout_s,
                                [&](std::string_view bytes) { events.take(bytes, on_event); });
  if (!answer.ok()) {
    timeline.fail(answer.error().message);
  } else if (answer->status != 200) {
    timeline.fail(fmt::format("status {}: {}", answer->status, answer->body.substr(0, 500)));
  }
  return timeline;
}

// How many requests are under way.
class Gate {
 public:
  explicit Gate(int limit) : limit_(limit) {}

  void enter() {
    std::unique_lock lock(mutex_);
    left_.wait(lock, [this] { return limit_ <= 0 || inside_ < limit_; });
    ++inside_;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    --inside_;
    left_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  int limit_, inside_ = 0;
};

}  // namespace

RunMeasure run_http_workload(const HttpBenchOptions& options,
                             const std::vector<WorkloadItem>& items,
                             const SamplingParams& params) {
  std::vector<std::string> bodies;
  bodies.reserve(items.size());
  for (const WorkloadItem& item : items) {
    bodies.push_back(request_body(options.model, item, params).dump());
  }
  RunMeasure measure;
  std::mutex mutex;
  Gate gate(options.max_concurrency);
  std::vector<std::thread> threads;
  threads.reserve(items.size());
  const double begin = monotonic_seconds();
  PoissonArrivals arrivals(options.rate);
  for (const std::string& body : bodies) {
    arrivals.wait();
    gate.enter();
    threads.emplace_back([&] {
      Timeline timeline = complete(options, body);
      gate.leave();
      const std::lock_guard lock(mutex);
      timeline.add_to(measure);
    });
  }
  for (std::thread& thread : threads) thread.join();
  measure.wall_s = monotonic_seconds() - begin;
  return measure;
}

}  // namespace pagemill::cli
