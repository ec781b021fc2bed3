#include "simulate/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace pagemill {
namespace {

struct Preset {
  const char* name;
  Roofline roofline;
  std::int64_t kv_slots;
  std::int32_t max_model_len;
};

constexpr Preset kPresets[] = {
    // Kwon et al., SOSP 2023, table 1: 26 GB of weights, room for 15.7K tokens of 40 layers x 5120
    // x keys and values x 2 bytes. NVIDIA A100 40 GB SXM: 1,555 GB/s, 312 TFLOP/s of fp16.
    {"opt-13b@a100-40gb", {26e9, 1555e9, 312e12, 819200, 4.0 * 40 * 5120, 0}, 15700, 2048},
    // 8.03 G weights of 2 bytes, 32 layers, 8 KV heads of 128, 32 heads; 90 % of 80 GB less the
    // weights for keys and values. NVIDIA H100 SXM: 3,350 GB/s, 989 TFLOP/s of bf16.
    {"llama-3.1-8b@h100-80gb",
     {16.06e9, 3350e9, 989e12, 131072, 4.0 * 32 * 4096, 0},
     426'000,
     131072},
};

double roofline_seconds(const Roofline& r, const StepLoad& load) {
  const double bytes = r.weights_bytes + r.kv_bytes_per_token * static_cast<double>(load.kv_tokens);
  const double flops = r.weights_bytes * static_cast<double>(load.num_tokens) +
                       r.flops_per_pair * static_cast<double>(load.attention_pairs);
  return r.overhead_s + std::max(bytes / r.bytes_per_s, flops / r.flops_per_s);
}

using Row = std::array<double, 3>;

// Least squares over the columns in `used` (bits); false if they depend on each other.
bool solve(std::span<const CostSample> samples, unsigned used, Row& x) {
  double a[3][4] = {};
  for (const CostSample& s : samples) {
    const Row row = {s.steps / s.seconds, s.tokens / s.seconds, s.pairs / s.seconds};
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) a[i][j] += row[i] * row[j];
      a[i][3] += row[i];
    }
  }
  Row scale{};
  for (int i = 0; i < 3; ++i) scale[i] = a[i][i];
  for (int k = 0; k < 3; ++k) {
    if ((used >> k & 1) == 0) continue;
    if (!(a[k][k] > 1e-9 * scale[k])) return false;
    for (int i = 0; i < 3; ++i) {
      if (i == k || (used >> i & 1) == 0) continue;
      const double factor = a[i][k] / a[k][k];
      for (int j = 0; j < 4; ++j) a[i][j] -= factor * a[k][j];
    }
  }
  for (int k = 0; k < 3; ++k) x[k] = (used >> k & 1) != 0 ? a[k][3] / a[k][k] : 0;
  return true;
}

}  // namespace

double step_seconds(const CostModel& cost, const StepLoad& load) {
  if (const auto* roofline = std::get_if<Roofline>(&cost)) return roofline_seconds(*roofline, load);
  const auto& linear = std::get<LinearCost>(cost);
  return linear.step_s + linear.token_s * static_cast<double>(load.num_tokens) +
         linear.pair_s * static_cast<double>(load.attention_pairs);
}

std::string describe(const CostModel& cost) {
  if (const auto* r = std::get_if<Roofline>(&cost)) {
    return fmt::format(
        "roofline: max(bytes / {:.4g} GB/s, operations / {:.4g} TFLOP/s){}; {:.4g} GB of weights, "
        "{:.4g} KB of keys and values a token",
        r->bytes_per_s / 1e9,
        r->flops_per_s / 1e12,
        r->overhead_s > 0 ? fmt::format(" + {:.4g} ms", 1e3 * r->overhead_s) : "",
        r->weights_bytes / 1e9,
        r->kv_bytes_per_token / 1e3);
  }
  const auto& linear = std::get<LinearCost>(cost);
  return fmt::format("measured: {:.4g} ms + {:.4g} us a token + {:.4g} ns a pair of tokens",
                     1e3 * linear.step_s,
                     1e6 * linear.token_s,
                     1e9 * linear.pair_s);
}

Result<LinearCost> fit_cost(std::span<const CostSample> samples) {
  // With three coefficients, trying every subset of them is the exact non-negative least squares.
  double best = INFINITY;
  LinearCost fit;
  for (unsigned used = 1; used < 8; ++used) {
    Row x{};
    if (!solve(samples, used, x)) {
      if (used == 7)
        return invalid_argument("the samples do not tell steps, tokens and pairs apart");
      continue;
    }
    if (*std::min_element(x.begin(), x.end()) < 0) continue;
    const LinearCost cost{x[0], x[1], x[2]};
    double error = 0;
    for (const CostSample& s : samples) error += std::pow(s.predicted(cost) / s.seconds - 1, 2);
    if (error < best) best = error, fit = cost;
  }
  return fit;
}

Result<Machine> find_machine(const std::string& name) {
  std::string names;
  for (const Preset& preset : kPresets) {
    if (name == preset.name) {
      return Machine{name, preset.roofline, preset.kv_slots, preset.max_model_len};
    }
    names += fmt::format("{}{}", names.empty() ? "" : ", ", preset.name);
  }
  return invalid_argument(fmt::format("--machine: expected one of {}, got '{}'", names, name),
                          "machine");
}

}  // namespace pagemill
