#include "layers/rotary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pagemill {
namespace {

using nlohmann::json;

double number(const json& object, const char* key, double fallback) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : fallback;
}

std::vector<float> plain_frequencies(double theta, std::int32_t dim) {
  std::vector<float> inv_freq(dim / 2);
  for (std::int32_t i = 0; i < dim / 2; ++i) {
    // In f32 as Transformers computes it: the exponent first, then the power, then the reciprocal.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    inv_freq[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
  }
  return inv_freq;
}

}  // namespace

Result<RotaryEmbedding> RotaryEmbedding::create(const json& config,
                                                std::int32_t rotary_dim,
                                                std::span<const float> freq_factors) {
  RotaryEmbedding rope;
  rope.rotary_dim_ = rotary_dim;
  rope.theta_ = number(config, "rope_theta", 10000.0);
  if (!(rope.theta_ > 0)) {
    return invalid_argument(fmt::format("config: rope_theta: expected > 0, got {}", rope.theta_));
  }
  rope.max_positions_ = static_cast<std::int32_t>(number(config, "max_position_embeddings", 2048));
  rope.original_max_positions_ = rope.max_positions_;
  rope.inv_freq_ = plain_frequencies(rope.theta_, rope.rotary_dim_);

  if (!freq_factors.empty()) {
    if (freq_factors.size() != rope.inv_freq_.size()) {
      return corrupt(fmt::format("rope_freqs.weight: expected {} factors, got {}",
                                 rope.inv_freq_.size(),
                                 freq_factors.size()));
    }
    for (std::size_t i = 0; i < freq_factors.size(); ++i) rope.inv_freq_[i] /= freq_factors[i];
    return rope;
  }
  const auto scaling = config.find("rope_scaling");
  if (scaling != config.end() && scaling->is_object()) {
    PM_TRY(rope.init_scaling(*scaling, config));
  }
  return rope;
}

Status RotaryEmbedding::init_scaling(const json& scaling, const json& config) {
  std::string type = "default";
  for (const char* key : {"type", "rope_type"}) {
    const auto it = scaling.find(key);
    if (it != scaling.end() && it->is_string()) type = it->get<std::string>();
  }
  if (type == "default") return ok_status();

  factor_ = number(scaling, "factor", 1.0);
  if (!(factor_ >= 1.0)) {
    return invalid_argument(
        fmt::format("config: rope_scaling.factor: expected >= 1, got {}", factor_));
  }
  const double original = number(scaling,
                                 "original_max_position_embeddings",
                                 number(config, "original_max_position_embeddings", 0));
  if (original > 0) original_max_positions_ = static_cast<std::int32_t>(original);

  if (type == "linear") {
    for (float& f : inv_freq_) f /= static_cast<float>(factor_);
  } else if (type == "dynamic") {
    kind_ = Kind::kDynamic;
  } else if (type == "llama3") {
    init_llama3(scaling);
    return ok_status();  // max_position_embeddings already is the stretched length
  } else if (type == "longrope") {
    return init_longrope(scaling, config);  // likewise
  } else if (type == "yarn") {
    init_yarn(scaling, config);
  } else {
    return unsupported(
        fmt::format("config: rope_scaling.rope_type '{}' is not supported; known: default, linear, "
                    "dynamic, llama3, longrope, yarn",
                    type));
  }
  const double stretched = (original > 0 ? original : max_positions_) * factor_;
  max_positions_ = std::max(max_positions_, static_cast<std::int32_t>(std::min(stretched, 1e9)));
  return ok_status();
}

void RotaryEmbedding::init_llama3(const json& scaling) {
  const double low_factor = number(scaling, "low_freq_factor", 1.0);
  const double high_factor = number(scaling, "high_freq_factor", 4.0);
  const double low_wavelen = original_max_positions_ / low_factor;
  const double high_wavelen = original_max_positions_ / high_factor;
  for (float& f : inv_freq_) {
    const double wavelen = 2 * std::numbers::pi / f;
    if (wavelen > low_wavelen) {
      f = static_cast<float>(f / factor_);
    } else if (wavelen >= high_wavelen) {
      const double smooth =
          (original_max_positions_ / wavelen - low_factor) / (high_factor - low_factor);
      f = static_cast<float>((1 - smooth) * f / factor_ + smooth * f);
    }
  }
}

// LongRoPE (Ding et al., arXiv 2402.13753): frequencies divided by factors found by search, others
// for lengths above the original one.
Status RotaryEmbedding::init_longrope(const json& scaling, const json& config) {
  kind_ = Kind::kLong;
  const double original = original_max_positions_;
  if (scaling.find("factor") == scaling.end()) {
    factor_ = number(config, "max_position_embeddings", original) / original;
  }
  const double fallback = factor_ <= 1 ? 1 : std::sqrt(1 + std::log(factor_) / std::log(original));
  attention_factor_ = static_cast<float>(number(scaling, "attention_factor", fallback));
  long_inv_freq_ = inv_freq_;
  const auto divide = [&](const char* key, std::vector<float>& inv_freq) -> Status {
    const auto factors = scaling.find(key);
    if (factors == scaling.end() || !factors->is_array() || factors->size() != inv_freq.size()) {
      return corrupt(fmt::format(
          "config: rope_scaling.{}: expected a list of {} numbers", key, inv_freq.size()));
    }
    for (std::size_t i = 0; i < inv_freq.size(); ++i) {
      const json& factor = (*factors)[i];
      if (!factor.is_number() || !(factor.get<double>() > 0)) {
        return corrupt(fmt::format(
            "config: rope_scaling.{}: expected numbers > 0, got {}", key, factor.dump()));
      }
      inv_freq[i] /= factor.get<float>();
    }
    return ok_status();
  };
  PM_TRY(divide("short_factor", inv_freq_));
  return divide("long_factor", long_inv_freq_);
}

void RotaryEmbedding::init_yarn(const json& scaling, const json& config) {
  // Transformers takes the factor from the lengths where the original one is given.
  const double original = number(scaling, "original_max_position_embeddings", 0);
  if (original > 0 && scaling.find("factor") == scaling.end()) {
    factor_ = number(config, "max_position_embeddings", original) / original;
  }
  const auto mscale_of = [](double scale, double mscale) {
    return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
  };
  const double mscale = number(scaling, "mscale", 0);
  const double mscale_all_dim = number(scaling, "mscale_all_dim", 0);
  const double fallback = mscale != 0 && mscale_all_dim != 0
                              ? mscale_of(factor_, mscale) / mscale_of(factor_, mscale_all_dim)
                              : mscale_of(factor_, 1);
  attention_factor_ = static_cast<float>(number(scaling, "attention_factor", fallback));

  const double beta_fast = number(scaling, "beta_fast", 32);
  const double beta_slow = number(scaling, "beta_slow", 1);
  const auto truncate = scaling.find("truncate");
  const bool rounds = truncate == scaling.end() || !truncate->is_boolean() || truncate->get<bool>();
  const auto correction_dim = [&](double rotations) {
    return rotary_dim_ * std::log(original_max_positions_ / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(theta_));
  };
  double low = correction_dim(beta_fast);
  double high = correction_dim(beta_slow);
  if (rounds) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotary_dim_ - 1));
  if (low == high) high += 0.001;  // as the reference: avoids a division by zero
  for (std::size_t i = 0; i < inv_freq_.size(); ++i) {
    const float ramp =
        std::clamp(static_cast<float>((static_cast<double>(i) - low) / (high - low)), 0.0f, 1.0f);
    const float interpolated = inv_freq_[i] / static_cast<float>(factor_);
    inv_freq_[i] = interpolated * ramp + inv_freq_[i] * (1 - ramp);
  }
}

void RotaryEmbedding::cos_sin(std::int32_t position,
                              std::int32_t prompt_len,
                              float* cos,
                              float* sin) const {
  const std::int32_t length = std::max(prompt_len, position + 1);
  const bool is_long = length > original_max_positions_;
  const bool stretched = kind_ == Kind::kDynamic && is_long;
  const std::vector<float>& inv_freq = kind_ == Kind::kLong && is_long ? long_inv_freq_ : inv_freq_;
  double theta = theta_;
  if (stretched) {
    theta *= std::pow((factor_ * length / original_max_positions_) - (factor_ - 1),
                      rotary_dim_ / (rotary_dim_ - 2.0));
  }
  for (std::int32_t i = 0; i < rotary_dim_ / 2; ++i) {
    float frequency = inv_freq[i];
    if (stretched) {
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary_dim_);
      frequency = 1.0f / std::pow(static_cast<float>(theta), exponent);
    }
    const float angle = static_cast<float>(position) * frequency;
    cos[i] = std::cos(angle) * attention_factor_;
    sin[i] = std::sin(angle) * attention_factor_;
  }
}

}  // namespace pagemill
