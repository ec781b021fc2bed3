#include "simulate/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace pagemill {
namespace {

// One batcher and its clock.
class Replica {
 public:
  Replica(std::unique_ptr<Batcher> batcher, const ReplayConfig& config, Replay& replay)
      : batcher_(std::move(batcher)), config_(config), replay_(replay) {}

  // Ends and starts steps until one goes on at `until` or nothing is left to do. What arrives at
  // `until` is in time for a step that starts then.
  void advance(double until, std::vector<StepSample>& samples) {
    for (;;) {
      if (in_step_) {
        if (step_end_s_ >= until) return;
        finish_step();
      }
      if (now_s_ >= until || !start_step(samples)) return;
    }
  }

  void add(std::int32_t index) {
    if (!in_step_) now_s_ = std::max(now_s_, replay_.requests[index].arrival_s);
    if (const Status status = batcher_->add(index); !status.ok()) {
      if (replay_.num_refused++ == 0) replay_.first_refusal = status.error().message;
      return;
    }
    ++num_unfinished_;
  }

  std::int32_t num_unfinished() const { return num_unfinished_; }
  BatchCounters counters() const { return batcher_->counters(); }

 private:
  bool start_step(std::vector<StepSample>& samples) {
    StepLoad load;
    if (!batcher_->plan(load)) return false;
    const double seconds = step_seconds(config_.cost, load);
    samples.push_back(
        {now_s_, seconds, batcher_->num_running(), batcher_->num_waiting(), batcher_->memory()});
    if (config_.check_every_step) batcher_->check_invariants();
    in_step_ = true;
    step_end_s_ = now_s_ + seconds;
    return true;
  }

  void finish_step() {
    in_step_ = false;
    const double seconds = step_end_s_ - now_s_;
    now_s_ = step_end_s_;
    events_.clear();
    batcher_->commit(seconds, events_);
    for (const TokenEvent& event : events_) {
      RequestTimes& times = replay_.requests[event.request];
      if (times.first_token_s < 0) {
        times.first_token_s = now_s_;
      } else {
        replay_.token_gaps_s.push_back(static_cast<float>(now_s_ - times.end_s));
      }
      times.end_s = now_s_;
      if (event.finished) --num_unfinished_;
    }
  }

  std::unique_ptr<Batcher> batcher_;
  const ReplayConfig& config_;
  Replay& replay_;
  double now_s_ = 0, step_end_s_ = 0;
  bool in_step_ = false;
  std::int32_t num_unfinished_ = 0;
  std::vector<TokenEvent> events_;
};

std::size_t pick_replica(const std::vector<Replica>& replicas, ReplicaSplit split, std::size_t i) {
  if (split == ReplicaSplit::kRoundRobin) return i % replicas.size();
  const auto least =
      std::min_element(replicas.begin(), replicas.end(), [](const Replica& a, const Replica& b) {
        return a.num_unfinished() < b.num_unfinished();
      });
  return static_cast<std::size_t>(least - replicas.begin());
}

template <typename T>
double quantile(std::vector<T>& values, double q) {
  if (values.empty()) return 0;
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<std::ptrdiff_t>(at);
  std::nth_element(values.begin(), below, values.end());
  const double low = *below;
  if (below + 1 == values.end()) return low;
  return low + (at - std::floor(at)) * (*std::min_element(below + 1, values.end()) - low);
}

template <typename T>
Percentiles percentiles(std::vector<T> values) {
  return {quantile(values, 0.5), quantile(values, 0.9), quantile(values, 0.99)};
}

void add_step(ReplaySummary::Shares& shares, const StepSample& step) {
  const double weight = step.seconds / static_cast<double>(step.memory.total);
  const auto add = [&](double& sum, std::int64_t slots) {
    sum += weight * static_cast<double>(slots);
  };
  shares.seconds += step.seconds;
  shares.mean_batch += step.seconds * step.num_running;
  add(shares.tokens, step.memory.tokens);
  add(shares.reserved, step.memory.reserved);
  add(shares.internal, step.memory.internal);
  add(shares.rounding, step.memory.rounding);
  add(shares.cached, step.memory.cached);
  add(shares.free, step.memory.free());
}

void divide(ReplaySummary::Shares& shares) {
  if (shares.seconds <= 0) return;
  for (double* sum : {&shares.tokens,
                      &shares.reserved,
                      &shares.internal,
                      &shares.rounding,
                      &shares.cached,
                      &shares.free,
                      &shares.mean_batch}) {
    *sum /= shares.seconds;
  }
}

void summarize_steps(const Replay& replay, ReplaySummary& summary) {
  for (const auto& steps : replay.steps) {
    for (const StepSample& step : steps) {
      summary.max_batch = std::max(summary.max_batch, step.num_running);
      add_step(summary.busy, step);
      if (step.num_waiting > 0) add_step(summary.queued, step);
      if (step.memory.held() * 10 >= step.memory.total * 9) add_step(summary.full, step);
    }
  }
  divide(summary.busy);
  divide(summary.queued);
  divide(summary.full);
}

}  // namespace

Result<ReplicaSplit> parse_replica_split(const std::string& name) {
  if (name == "round-robin") return ReplicaSplit::kRoundRobin;
  if (name == "least-loaded") return ReplicaSplit::kLeastLoaded;
  return invalid_argument(
      fmt::format("--split: expected round-robin or least-loaded, got '{}'", name), "split");
}

Result<Replay> replay(const Trace& trace, const ReplayConfig& config) {
  Replay out;
  for (const TraceRequest& request : trace.requests) {
    out.requests.push_back({request.arrival_s, -1, -1});
  }
  out.steps.resize(config.num_replicas);
  std::vector<Replica> replicas;
  for (std::int32_t i = 0; i < config.num_replicas; ++i) {
    PM_ASSIGN(auto batcher, make_batcher(config.policy, config.batcher, trace));
    replicas.emplace_back(std::move(batcher), config, out);
  }
  const auto advance_all = [&](double until) {
    for (std::size_t i = 0; i < replicas.size(); ++i) replicas[i].advance(until, out.steps[i]);
  };
  for (std::size_t i = 0; i < trace.requests.size(); ++i) {
    advance_all(trace.requests[i].arrival_s);
    replicas[pick_replica(replicas, config.split, i)].add(static_cast<std::int32_t>(i));
  }
  advance_all(std::numeric_limits<double>::infinity());
  for (const Replica& replica : replicas) {
    const BatchCounters counters = replica.counters();
    out.counters.preemptions += counters.preemptions;
    out.counters.prompt_tokens += counters.prompt_tokens;
    out.counters.prompt_tokens_cached += counters.prompt_tokens_cached;
  }
  return out;
}

double ReplaySummary::Shares::waste() const {
  const double held = tokens + reserved + internal + rounding;
  return held > 0 ? 1 - tokens / held : 0;
}

ReplaySummary summarize(const Trace& trace, const Replay& replay) {
  ReplaySummary summary;
  std::vector<double> ttft, e2e;
  double normalized = 0, output_tokens = 0, end = 0;
  for (std::size_t i = 0; i < replay.requests.size(); ++i) {
    const RequestTimes& times = replay.requests[i];
    if (times.first_token_s < 0) continue;
    ttft.push_back(times.seconds_to_first());
    e2e.push_back(times.seconds());
    normalized += times.seconds() / trace.requests[i].output_tokens;
    output_tokens += trace.requests[i].output_tokens;
    end = std::max(end, times.end_s);
  }
  summary.num_requests = static_cast<std::int32_t>(e2e.size());
  summary.num_refused = replay.num_refused;
  if (e2e.empty()) return summary;
  summary.seconds = end - replay.requests.front().arrival_s;
  summary.normalized_latency_s = normalized / summary.num_requests;
  summary.ttft_s = percentiles(std::move(ttft));
  summary.e2e_s = percentiles(std::move(e2e));
  summary.itl_s = percentiles(replay.token_gaps_s);
  if (summary.seconds > 0) summary.output_tokens_per_s = output_tokens / summary.seconds;
  summarize_steps(replay, summary);
  summary.mean_batch = summary.busy.mean_batch;
  summary.preemptions = replay.counters.preemptions;
  if (replay.counters.prompt_tokens > 0) {
    summary.prefix_hit_rate = static_cast<double>(replay.counters.prompt_tokens_cached) /
                              static_cast<double>(replay.counters.prompt_tokens);
  }
  return summary;
}

double sustained_rate(const std::vector<double>& rates,
                      const std::vector<double>& latencies_s,
                      double limit_s) {
  for (std::size_t i = 0; i < rates.size(); ++i) {
    if (latencies_s[i] <= limit_s) continue;
    if (i == 0) return 0;
    const double part = (limit_s - latencies_s[i - 1]) / (latencies_s[i] - latencies_s[i - 1]);
    return rates[i - 1] + part * (rates[i] - rates[i - 1]);
  }
  return rates.empty() ? 0 : rates.back();
}

}  // namespace pagemill
