// What `pagemill simulate` shows: tables, JSON and plots.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "simulate/replay.h"
#include "simulate/svg_plot.h"

namespace pagemill::cli {

// One replay of a sweep.
struct SimulatedRun {
  std::string policy;
  double rate = -1;  // requests a second; < 0: the trace's own arrivals
  ReplaySummary summary;
};

// A policy over the rates of a sweep.
struct SimulatedCurve {
  std::string policy;
  std::vector<double> rates, latencies_s;
  double sustained_rate = 0;
};

nlohmann::json to_json(const SimulatedRun& run);
nlohmann::json to_json(const SimulatedCurve& curve);
void print_runs(const std::vector<SimulatedRun>& runs);

// One curve for each policy, where there are several rates.
std::vector<SimulatedCurve> curves_of(const std::vector<SimulatedRun>& runs, double limit_s);

// JSON lines with label, rate and normalized_latency_s: a curve for each label, its rates in order.
Result<std::vector<PlotSeries>> read_measured(const std::string& path);

// Normalized latency against request rate, up to a little over limit_s.
Plot plot_latency(const std::vector<SimulatedCurve>& curves, double limit_s);
// KV memory of a replica by state, in percent, averaged over equal spans of the replay.
Plot plot_memory(const std::string& title, const std::vector<StepSample>& steps);
// A replica's running requests over time, likewise.
PlotSeries batch_series(const std::string& label, const std::vector<StepSample>& steps);

}  // namespace pagemill::cli
