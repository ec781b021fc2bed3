// Rotary position embedding with the scalings that Hugging Face configs use.
//
// Sources: Su et al., "RoFormer" (arXiv 2104.09864); YaRN, Peng et al. (arXiv 2309.00071); the
// formulas and the defaults of missing keys are those of Transformers' modeling_rope_utils.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/result.h"

namespace pagemill {

class RotaryEmbedding {
 public:
  // Reads rope_theta, rope_scaling, max_position_embeddings and original_max_position_embeddings of
  // an HF config. `rotary_dim`: how much of a head turns, an even number. `freq_factors`: GGUF's
  // rope_freqs.weight [rotary_dim/2] or empty; it divides the frequencies and replaces rope_scaling
  // llama3.
  static Result<RotaryEmbedding> create(const nlohmann::json& config,
                                        std::int32_t rotary_dim,
                                        std::span<const float> freq_factors);

  std::int32_t rotary_dim() const { return rotary_dim_; }
  // Positions that the scaling was made for: max_position_embeddings, stretched by the factor.
  std::int32_t max_positions() const { return max_positions_; }
  // Whether a key's rotation depends on its prompt's length (dynamic NTK, longrope): then a block
  // computed for one prompt does not serve another, and prefix caching must be off.
  bool depends_on_length() const { return kind_ != Kind::kStatic; }

  // cos, sin: [rotary_dim/2] for a token at `position` of a sequence whose prompt has `prompt_len`
  // tokens. Dynamic NTK and longrope rotate all of a prompt by its length, and each later token by
  // the length so far, as Transformers' generate() does; so neither chunking nor preemption changes
  // a token's rotation.
  void cos_sin(std::int32_t position, std::int32_t prompt_len, float* cos, float* sin) const;

 private:
  enum class Kind { kStatic, kDynamic, kLong };

  Status init_scaling(const nlohmann::json& scaling, const nlohmann::json& config);
  void init_llama3(const nlohmann::json& scaling);
  Status init_longrope(const nlohmann::json& scaling, const nlohmann::json& config);
  void init_yarn(const nlohmann::json& scaling, const nlohmann::json& config);

  Kind kind_ = Kind::kStatic;
  std::int32_t rotary_dim_ = 0;
  std::int32_t max_positions_ = 0;
  std::int32_t original_max_positions_ = 0;
  double theta_ = 10000.0;
  double factor_ = 1.0;
  float attention_factor_ = 1.0f;
  std::vector<float> inv_freq_;       // [rotary_dim/2]
  std::vector<float> long_inv_freq_;  // of lengths above the original one (longrope)
};

}  // namespace pagemill
