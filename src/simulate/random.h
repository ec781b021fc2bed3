// Random numbers that are the same on every platform, unlike the standard library's distributions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace pagemill {

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  double uniform() { return (static_cast<double>(next() >> 11) + 0.5) * 0x1p-53; }  // (0, 1)
  double normal() {  // Box and Muller
    return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform());
  }
  // Between two arrivals of a Poisson process of `rate` a second.
  double exponential(double rate) { return -std::log(uniform()) / rate; }

 private:
  std::uint64_t state_;
};

// `count` log-normal lengths clipped to [low, high] whose mean is `mean`: the location by bisection
// over the same normals, so that the sample, not only the distribution, has that mean.
inline std::vector<std::int32_t> lognormal_lengths(
    Random& random, std::int32_t count, double mean, double sigma, double low, double high) {
  std::vector<double> normals(count);
  for (double& z : normals) z = random.normal();
  const auto sample = [&](double mu) {
    std::vector<std::int32_t> values;
    values.reserve(normals.size());
    for (double z : normals) {
      values.push_back(
          static_cast<std::int32_t>(std::clamp(std::round(std::exp(mu + sigma * z)), low, high)));
    }
    return values;
  };
  double lower = 0, upper = std::log(high) + 1;
  for (int i = 0; i < 60; ++i) {
    const double mu = (lower + upper) / 2;
    double total = 0;
    for (std::int32_t value : sample(mu)) total += value;
    (total / count < mean ? lower : upper) = mu;
  }
  return sample((lower + upper) / 2);
}

}  // namespace pagemill
