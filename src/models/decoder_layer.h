// A decoder layer's weights.
#pragma once

#include <cstdint>
#include <optional>

#include "layers/linear.h"
#include "layers/moe.h"
#include "layers/norm.h"
#include "models/decoder_spec.h"

namespace pagemill {

struct DecoderLayer {
  std::optional<Norm> attention_norm, mlp_norm, attention_post_norm, mlp_post_norm;
  std::optional<Norm> q_norm, k_norm;
  LinearGroup qkv, output, up, down;  // the last two empty where there are experts
  std::optional<MixtureOfExperts> experts;
  std::int32_t kv_group = 0;

  std::size_t bytes() const;
  // The dtype that most of its weights are computed in.
  DType dtype() const;

  static Result<DecoderLayer> load(const LoadContext& context,
                                   const DecoderSpec& spec,
                                   std::int32_t index);
};

// The norm, or none where the spec has none.
Result<std::optional<Norm>> load_norm(const LoadContext& context,
                                      const std::optional<NormSpec>& spec,
                                      const std::string& prefix,
                                      std::int64_t size);

}  // namespace pagemill
