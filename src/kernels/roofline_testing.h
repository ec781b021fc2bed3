// What a kernel reached, beside what this machine could have: counters of a google-benchmark.
#pragma once

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "kernels/limits.h"

namespace pagemill {

// The limits of a number of threads, measured when they are first asked for.
inline const MachineLimits& machine_limits(int threads) {
  static std::map<int, MachineLimits> known;
  const auto it = known.find(threads);
  if (it != known.end()) return it->second;
  auto limits = measure_limits(threads, {.repeats = 3});
  if (!limits.ok()) {
    std::fprintf(stderr, "%s\n", limits.error().message.c_str());
    std::exit(1);
  }
  return known.emplace(threads, std::move(limits).value()).first->second;
}

// Measures and prints the limits that the benchmarks are held against.
inline void print_machine_limits(int threads) {
  const MachineLimits& limits = machine_limits(threads);
  fmt::print(stderr, "limits, {} threads: {:.1f} GB/s", threads, limits.gb_per_s());
  for (const ComputeLimit& limit : limits.compute) {
    fmt::print(
        stderr, "; {} {} {:.0f} GFLOP/s", to_string(limit.isa), limit.instruction, limit.gflops);
  }
  fmt::print(stderr, "\n");
}

// GFLOP/s and GB/s of one iteration of `flops` and `bytes`, and `of_limit`: the share of
// min(compute limit, intensity x bandwidth limit), where that of the instruction was measured.
inline void set_roofline_counters(benchmark::State& state,
                                  double flops,
                                  double bytes,
                                  double limit_gflops,
                                  double limit_gb_per_s) {
  const auto per_second = [](double value) {
    return benchmark::Counter(value, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = per_second(flops * 1e-9);
  state.counters["GB/s"] = per_second(bytes * 1e-9);
  if (limit_gflops == 0) return;
  // Seconds that the machine would need, for each second that was.
  state.counters["of_limit"] =
      per_second(1e-9 * std::max(flops / limit_gflops, bytes / limit_gb_per_s));
}

}  // namespace pagemill
