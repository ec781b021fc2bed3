// Synthetic workloads and arrivals.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "simulate/random.h"
#include "simulate/trace.h"

namespace pagemill {

// Log-normal lengths clipped to [1, max_tokens], scaled to the mean.
struct LengthDistribution {
  const char* name;
  double mean_input, mean_output;
  double sigma_input, sigma_output;  // of the logarithm
  std::int32_t max_tokens;
  std::string describe() const;
};

// "sharegpt" (means 161 in, 338 out) or "alpaca" (19 in, 58 out): the means of Kwon et al., SOSP
// 2023, section 6.1. kInvalidArgument otherwise.
Result<LengthDistribution> find_distribution(const std::string& name);

Trace synthetic_trace(const LengthDistribution& lengths, std::int32_t count, std::uint64_t seed);

// What Poisson arrivals are made of: for a seed the same in a trace and in `pagemill bench`.
Random arrival_random(std::uint64_t seed);
// Replaces the arrivals by a Poisson process of `rate` requests a second; 0: all at once.
void set_poisson_arrivals(Trace& trace, double rate, std::uint64_t seed);

// Leaves out the last requests, or repeats the first, until there are `count`; arrivals are to be
// set anew. Only for traces without ids: a copy would find its original in the prefix cache.
void resize_trace(Trace& trace, std::int32_t count);

}  // namespace pagemill
