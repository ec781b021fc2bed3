#include "cli/simulate_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <map>

namespace pagemill::cli {
namespace {

using nlohmann::json;

json percentiles_ms(const Percentiles& seconds) {
  return {{"p50", 1e3 * seconds.p50}, {"p90", 1e3 * seconds.p90}, {"p99", 1e3 * seconds.p99}};
}

json shares_json(const ReplaySummary::Shares& shares) {
  if (shares.seconds <= 0) return nullptr;
  return {{"seconds", shares.seconds},
          {"tokens", shares.tokens},
          {"reserved", shares.reserved},
          {"internal", shares.internal},
          {"rounding", shares.rounding},
          {"cached", shares.cached},
          {"free", shares.free},
          {"waste", shares.waste()},
          {"mean_batch", shares.mean_batch}};
}

std::string percent(const ReplaySummary::Shares& shares, double share) {
  return shares.seconds > 0 ? fmt::format("{:.1f}", 100 * share) : "-";
}

std::string rate_text(double rate) {
  if (rate < 0) return "trace";
  return rate == 0 ? "at once" : fmt::format("{:.3g}", rate);
}

// A figure of the steps over time: averages over at most this many equal spans.
constexpr std::size_t kNumSpans = 240;

struct OverTime {
  std::vector<double> x, y;
};

OverTime over_time(const std::vector<StepSample>& steps,
                   const std::function<double(const StepSample&)>& figure) {
  OverTime out;
  if (steps.empty()) return out;
  const double begin = steps.front().begin_s;
  const double span = (steps.back().begin_s + steps.back().seconds - begin) / kNumSpans;
  std::vector<double> sums(kNumSpans, 0);
  for (const StepSample& step : steps) {
    // A step may be longer than a span. Between steps the figure is 0: nothing runs.
    const double end = step.begin_s + step.seconds;
    for (double at = step.begin_s; at < end;) {
      const auto i = std::min(kNumSpans - 1, static_cast<std::size_t>((at - begin) / span));
      const double until =
          i + 1 == kNumSpans ? end : std::min(end, begin + span * static_cast<double>(i + 1));
      sums[i] += figure(step) * (until - at);
      at = std::max(until, std::nextafter(at, end));
    }
  }
  for (std::size_t i = 0; i < kNumSpans; ++i) {
    out.x.push_back(span * (static_cast<double>(i) + 0.5));
    out.y.push_back(sums[i] / span);
  }
  return out;
}

}  // namespace

json to_json(const SimulatedRun& run) {
  const ReplaySummary& s = run.summary;
  json line = {{"policy", run.policy},
               {"requests", s.num_requests},
               {"requests_refused", s.num_refused},
               {"seconds", s.seconds},
               {"normalized_latency_s", s.normalized_latency_s},
               {"ttft_ms", percentiles_ms(s.ttft_s)},
               {"itl_ms", percentiles_ms(s.itl_s)},
               {"e2e_ms", percentiles_ms(s.e2e_s)},
               {"output_tokens_per_s", s.output_tokens_per_s},
               {"mean_batch", s.mean_batch},
               {"max_batch", s.max_batch},
               {"memory", shares_json(s.busy)},
               {"memory_while_queued", shares_json(s.queued)},
               {"memory_while_90_percent_held", shares_json(s.full)},
               {"preemptions", s.preemptions},
               {"prefix_hit_rate", s.prefix_hit_rate}};
  if (run.rate >= 0) line["rate"] = run.rate;
  return line;
}

json to_json(const SimulatedCurve& curve) {
  return {{"policy", curve.policy},
          {"rates", curve.rates},
          {"normalized_latency_s", curve.latencies_s},
          {"sustained_rate", curve.sustained_rate}};
}

void print_runs(const std::vector<SimulatedRun>& runs) {
  fmt::print("{:<12}{:>8}{:>9}{:>9}{:>10}{:>10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
             "policy",
             "rate/s",
             "requests",
             "s/token",
             "TTFT p99",
             "ITL p99",
             "tok/s",
             "batch",
             "token%",
             "reserv%",
             "intern%",
             "round%",
             "waste%",
             "preempt");
  for (const SimulatedRun& run : runs) {
    const ReplaySummary& s = run.summary;
    fmt::print(
        "{:<12}{:>8}{:>9}{:>9.4f}{:>9.2f}s{:>8.1f}ms{:>9.0f}{:>9.1f}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}"
        "\n",
        run.policy,
        rate_text(run.rate),
        s.num_requests,
        s.normalized_latency_s,
        s.ttft_s.p99,
        1e3 * s.itl_s.p99,
        s.output_tokens_per_s,
        s.mean_batch,
        percent(s.busy, s.busy.tokens),
        percent(s.busy, s.busy.reserved),
        percent(s.busy, s.busy.internal),
        percent(s.busy, s.busy.rounding),
        percent(s.busy, s.busy.waste()),
        s.preemptions);
  }
}

std::vector<SimulatedCurve> curves_of(const std::vector<SimulatedRun>& runs, double limit_s) {
  std::vector<SimulatedCurve> curves;
  for (const SimulatedRun& run : runs) {
    auto curve = std::find_if(
        curves.begin(), curves.end(), [&](const auto& c) { return c.policy == run.policy; });
    if (curve == curves.end()) curve = curves.insert(curves.end(), {run.policy, {}, {}, 0});
    curve->rates.push_back(run.rate);
    curve->latencies_s.push_back(run.summary.normalized_latency_s);
  }
  for (SimulatedCurve& curve : curves) {
    curve.sustained_rate = sustained_rate(curve.rates, curve.latencies_s, limit_s);
  }
  return curves;
}

Result<std::vector<PlotSeries>> read_measured(const std::string& path) {
  std::ifstream file(path);
  if (!file) return not_found(fmt::format("--measured: cannot open '{}'", path));
  std::map<std::string, std::map<double, double>> curves;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto object = json::parse(line, nullptr, false);
    try {
      curves[object.at("label")][object.at("rate")] = object.at("normalized_latency_s");
    } catch (const json::exception&) {
      return corrupt(fmt::format(
          "{}:{}: expected an object with label, rate and normalized_latency_s", path, number));
    }
  }
  std::vector<PlotSeries> all;
  for (const auto& [label, points] : curves) {
    PlotSeries& series = all.emplace_back();
    series.label = label;
    for (const auto& [rate, latency_s] : points) {
      series.x.push_back(rate);
      series.y.push_back(latency_s);
    }
  }
  return all;
}

Plot plot_latency(const std::vector<SimulatedCurve>& curves, double limit_s) {
  Plot plot{"Normalized latency against request rate",
            "requests a second",
            "mean latency / output tokens (s)",
            {},
            false,
            1.6 * limit_s};
  std::vector<double> all_rates;
  for (const SimulatedCurve& curve : curves) {
    const bool below = curve.sustained_rate == 0;
    plot.series.push_back({fmt::format("{}: {}{:.3g}/s",
                                       curve.policy,
                                       below ? "under " : "",
                                       below ? curve.rates.front() : curve.sustained_rate),
                           curve.rates,
                           curve.latencies_s,
                           below ? -1 : curve.sustained_rate});
    if (curve.rates.size() > all_rates.size()) all_rates = curve.rates;
  }
  plot.series.push_back({fmt::format("limit: {:.3g} s", limit_s),
                         all_rates,
                         std::vector<double>(all_rates.size(), limit_s)});
  return plot;
}

Plot plot_memory(const std::string& title, const std::vector<StepSample>& steps) {
  Plot plot{title, "seconds", "% of KV slots", {}, true, 100};
  const auto add = [&](const char* label, std::int64_t MemoryUse::*slots) {
    OverTime line = over_time(steps, [&](const StepSample& step) {
      return 100 * static_cast<double>(step.memory.*slots) / static_cast<double>(step.memory.total);
    });
    const bool empty = std::all_of(line.y.begin(), line.y.end(), [](double y) { return y == 0; });
    if (!empty) plot.series.push_back({label, std::move(line.x), std::move(line.y)});
  };
  add("token states", &MemoryUse::tokens);
  add("reserved, used later", &MemoryUse::reserved);
  add("held, never used", &MemoryUse::internal);
  add("rounded to a power of 2", &MemoryUse::rounding);
  add("cached", &MemoryUse::cached);
  return plot;
}

PlotSeries batch_series(const std::string& label, const std::vector<StepSample>& steps) {
  OverTime line = over_time(steps, [](const StepSample& step) { return step.num_running; });
  return {label, std::move(line.x), std::move(line.y)};
}

}  // namespace pagemill::cli
