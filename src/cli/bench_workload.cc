#include "cli/bench_workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "base/clock.h"
#include "simulate/workload.h"

namespace pagemill::cli {
namespace {

class Recorder {
 public:
  explicit Recorder(std::size_t count) : last_(count), begin_(count), remaining_(count) {}

  void arrived(std::size_t index) { begin_[index] = last_[index] = monotonic_seconds(); }

  void take(std::size_t index, const RequestDelta& delta) {
    // The engine's clock, not this thread's: it may be woken late, for several steps at once.
    const double now = delta.times.committed;
    const std::lock_guard lock(mutex_);
    bool has_tokens = false;
    for (const CompletionDelta& completion : delta.completions)
      has_tokens |= !completion.token_ids.empty();
    if (has_tokens) {
      (last_[index] == begin_[index] ? measure_.ttft_s : measure_.itl_s)
          .push_back(now - last_[index]);
      last_[index] = now;
    }
    if (!delta.finished) return;
    if (delta.error && delta.error->code == ErrorCode::kResourceExhausted) {
      put_off_.push_back(index);
      changed_.notify_all();
      return;
    }
    if (!delta.error) {
      measure_.e2e_s.push_back(now - begin_[index]);
      measure_.normalized_s.push_back((now - begin_[index]) / delta.usage.completion_tokens);
      measure_.input_tokens += delta.usage.prompt_tokens;
      measure_.output_tokens += delta.usage.completion_tokens;
    }
    end(delta.error ? &*delta.error : nullptr);
  }

  void failed(const Error& error) {
    const std::lock_guard lock(mutex_);
    end(&error);
  }

  // Returns when a request has ended since `seen` had, or after a while: others may hold the queue.
  void wait_for_room(std::size_t seen) {
    std::unique_lock lock(mutex_);
    ++measure_.num_put_off;
    changed_.wait_for(lock, kRetry, [&] { return remaining_ != seen; });
  }
  std::size_t remaining() {
    const std::lock_guard lock(mutex_);
    return remaining_;
  }

  // A request that was refused after it was accepted; none once all have ended.
  std::optional<std::size_t> next_put_off() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return remaining_ == 0 || !put_off_.empty(); });
    if (put_off_.empty()) return std::nullopt;
    const std::size_t index = put_off_.back();
    put_off_.pop_back();
    ++measure_.num_put_off;
    return index;
  }

  RunMeasure result(double begin) {
    const std::lock_guard lock(mutex_);
    measure_.wall_s = monotonic_seconds() - begin;
    return std::move(measure_);
  }

 private:
  static constexpr auto kRetry = std::chrono::milliseconds(100);

  void end(const Error* error) {
    if (error != nullptr) {
      ++measure_.num_failed;
      if (measure_.first_failure.empty()) measure_.first_failure = error->message;
    }
    --remaining_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  RunMeasure measure_;
  std::vector<double> last_, begin_;
  std::vector<std::size_t> put_off_;
  std::size_t remaining_;
};

}  // namespace

std::vector<WorkloadItem> mixed_workload(std::int32_t count,
                                         double mean_input,
                                         double mean_output,
                                         std::int32_t vocab_size,
                                         std::uint64_t seed) {
  Random random(seed);
  const std::vector<std::int32_t> inputs =
      lognormal_lengths(random, count, mean_input, 1.0, 4, 1024);
  const std::vector<std::int32_t> outputs =
      lognormal_lengths(random, count, mean_output, 0.9, 4, 512);
  std::vector<WorkloadItem> items(count);
  for (std::int32_t i = 0; i < count; ++i) {
    items[i].output_len = outputs[i];
    for (std::int32_t t = 0; t < inputs[i]; ++t) {
      items[i].prompt_token_ids.push_back(static_cast<TokenId>(random.next() % vocab_size));
    }
  }
  return items;
}

Result<std::vector<WorkloadItem>> read_workload(const std::string& path) {
  std::ifstream file(path);
  if (!file) return not_found(fmt::format("--workload: cannot open '{}'", path));
  std::vector<WorkloadItem> items;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    try {
      items.push_back({object.at("prompt_token_ids").get<std::vector<TokenId>>(),
                       object.at("output_len").get<std::int32_t>()});
    } catch (const nlohmann::json::exception&) {
      return corrupt(fmt::format(
          "{}:{}: expected an object with prompt_token_ids and output_len", path, number));
    }
  }
  return items;
}

PoissonArrivals::PoissonArrivals(double rate)
    : rate_(rate), begin_(monotonic_seconds()), random_(arrival_random(1)) {}

double PoissonArrivals::next() {
  if (rate_ > 0) next_ += random_.exponential(rate_);
  return next_;
}

void PoissonArrivals::wait() {
  if (rate_ <= 0) return;
  const double left = begin_ + next() - monotonic_seconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(left));
}

RunMeasure run_workload(EngineClient& engine,
                        const std::vector<WorkloadItem>& items,
                        const SamplingParams& params,
                        double rate) {
  Recorder recorder(items.size());
  const auto submit = [&](std::size_t i) {
    Request request;
    request.prompt_token_ids = items[i].prompt_token_ids;
    request.params = params;
    request.params.max_tokens = items[i].output_len;
    request.params.ignore_eos = true;
    for (;;) {
      const std::size_t seen = recorder.remaining();
      const auto submitted = engine.submit(
          request, [&recorder, i](const RequestDelta& delta) { recorder.take(i, delta); });
      if (submitted.ok()) return;
      if (submitted.error().code != ErrorCode::kResourceExhausted) {
        return recorder.failed(submitted.error());
      }
      recorder.wait_for_room(seen);
    }
  };
  const double begin = monotonic_seconds();
  PoissonArrivals arrivals(rate);
  for (std::size_t i = 0; i < items.size(); ++i) {
    arrivals.wait();
    recorder.arrived(i);
    submit(i);
  }
  while (const auto put_off = recorder.next_put_off()) submit(*put_off);
  return recorder.result(begin);
}

std::vector<WorkloadItem> repeated(const std::vector<WorkloadItem>& items, std::int32_t times) {
  std::vector<WorkloadItem> out;
  out.reserve(items.size() * static_cast<std::size_t>(times));
  for (const WorkloadItem& item : items) out.insert(out.end(), times, item);
  return out;
}

double mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace pagemill::cli
