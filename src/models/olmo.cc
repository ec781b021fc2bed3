// OLMo 1 (LayerNorms without weights, Q, K and V clipped) and OLMo 2 (norms of what branches add,
// and of all of Q and K).
//
// Sources: arXiv 2402.00838, arXiv 2501.00656.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> olmo_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool bias = reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = bias, .output = bias}));
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  DecoderLayerSpec& layer = spec.layer;
  if (spec.architecture == "OlmoForCausalLM") {
    constexpr float kEps = 1e-5f;
    layer.attention_norm = layer.mlp_norm = layer_norm("", kEps, false);
    spec.final_norm = layer_norm("", kEps, false);
    PM_TRY(reader.read_float("clip_qkv", &spec.clip_qkv));
    return spec;
  }
  float eps = 1e-5f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  layer.attention_post_norm = rms_norm("post_attention_layernorm", eps);
  layer.mlp_post_norm = rms_norm("post_feedforward_layernorm", eps);
  layer.q_norm = rms_norm("self_attn.q_norm", eps);
  layer.k_norm = rms_norm("self_attn.k_norm", eps);
  spec.final_norm = rms_norm("model.norm", eps);
  return spec;
}

}  // namespace pagemill
