// StableLM 3B and 2: LayerNorms, a quarter of every head turned; StableLM 2 12B runs attention and
// MLP side by side and norms every head of Q and K by weights of its own.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> stablelm_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = reader.flag("use_qkv_bias", false)}));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_eps", &eps));
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("input_layernorm", eps);
  spec.parallel = reader.flag("use_parallel_residual", false);
  if (!spec.parallel) layer.mlp_norm = layer_norm("post_attention_layernorm", eps);
  spec.final_norm = layer_norm("model.norm", eps);
  if (reader.flag("qk_layernorm", false)) {
    layer.q_norm = layer_norm("self_attn.q_layernorm.norms.{}", eps, false);
    layer.q_norm->groups = spec.num_heads;
    layer.k_norm = layer_norm("self_attn.k_layernorm.norms.{}", eps, false);
    layer.k_norm->groups = spec.num_kv_heads;
    layer.q_norm->shares_weight = layer.k_norm->shares_weight = false;
  }
  PM_ASSIGN(const std::int32_t rotary_dim,
            read_rotary_dim(reader, "partial_rotary_factor", 0.25, spec.head_size));
  PM_TRY(add_rope(reader, rotary_dim, &spec));
  return spec;
}

}  // namespace pagemill
