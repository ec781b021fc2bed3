// Mixtral: Mistral with a mixture of experts for its MLP.
//
// Source: arXiv 2401.04088.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> mixtral_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {}));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  add_rms_norms(eps, &spec);
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  PM_TRY(read_window(reader, &spec));
  const std::string experts = "block_sparse_moe.experts.{}.";
  MoeSpec moe;
  moe.router = "block_sparse_moe.gate";
  moe.expert = {experts + "w1", experts + "w3", experts + "w2", spec.intermediate_size};
  PM_TRY(read_experts(reader, "num_local_experts", &moe));
  spec.moe = std::move(moe);
  spec.moe_layers.assign(spec.num_layers, true);
  return spec;
}

}  // namespace pagemill
