#include "simulate/workload.h"

#include <fmt/format.h>

#include "base/check.h"

namespace pagemill {
namespace {

// The spreads are those of the mixed workload of `pagemill bench`, the same for both.
constexpr LengthDistribution kDistributions[] = {
    {"sharegpt", 161, 338, 1.0, 0.9, 1024},
    {"alpaca", 19, 58, 1.0, 0.9, 1024},
};

}  // namespace

std::string LengthDistribution::describe() const {
  return fmt::format(
      "{}-like: log-normal lengths, input mean {} (sigma {}), output mean {} (sigma {}), each "
      "clipped to 1..{}",
      name,
      mean_input,
      sigma_input,
      mean_output,
      sigma_output,
      max_tokens);
}

Result<LengthDistribution> find_distribution(const std::string& name) {
  for (const LengthDistribution& distribution : kDistributions) {
    if (name == distribution.name) return distribution;
  }
  return invalid_argument(fmt::format("--synthetic: expected sharegpt or alpaca, got '{}'", name),
                          "synthetic");
}

Trace synthetic_trace(const LengthDistribution& lengths, std::int32_t count, std::uint64_t seed) {
  Random random(seed);
  const auto inputs = lognormal_lengths(
      random, count, lengths.mean_input, lengths.sigma_input, 1, lengths.max_tokens);
  const auto outputs = lognormal_lengths(
      random, count, lengths.mean_output, lengths.sigma_output, 1, lengths.max_tokens);
  Trace trace;
  trace.name = lengths.name;
  for (std::int32_t i = 0; i < count; ++i) trace.requests.push_back({0, inputs[i], outputs[i], {}});
  return trace;
}

Random arrival_random(std::uint64_t seed) {
  return Random(seed ^ 0x5bd1e995);  // not the numbers that made the lengths
}

void set_poisson_arrivals(Trace& trace, double rate, std::uint64_t seed) {
  Random random = arrival_random(seed);
  double now = 0;
  for (TraceRequest& request : trace.requests) {
    if (rate > 0) now += random.exponential(rate);
    request.arrival_s = now;
  }
  trace.has_arrivals = true;
}

void resize_trace(Trace& trace, std::int32_t count) {
  PM_CHECK(trace.hash_block_tokens == 0, "{}: a trace with ids", trace.name);
  const std::size_t period = trace.requests.size();
  while (trace.requests.size() < static_cast<std::size_t>(count)) {
    trace.requests.push_back(trace.requests[trace.requests.size() - period]);
  }
  trace.requests.resize(count);
}

}  // namespace pagemill
