// Phi-1.5 and Phi-2: parallel blocks that share a LayerNorm, biases everywhere, a part of every
// head turned.
//
// Source: arXiv 2309.05463.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> phi_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = true}));
  PM_ASSIGN(spec.activation, reader.activation("hidden_act", "gelu_new"));
  DecoderLayerSpec& layer = spec.layer;
  layer.output = {"self_attn.dense", spec.hidden_size, true};
  layer.up = {{"mlp.fc1", spec.intermediate_size, true}};
  layer.down = {"mlp.fc2", spec.hidden_size, true};
  spec.lm_head.bias = true;
  spec.parallel = true;
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_eps", &eps));
  layer.attention_norm = layer_norm("input_layernorm", eps);
  spec.final_norm = layer_norm("model.final_layernorm", eps);
  if (reader.flag("qk_layernorm", false)) {
    layer.q_norm = layer_norm("self_attn.q_layernorm", eps);
    layer.q_norm->groups = spec.num_heads;
    layer.k_norm = layer_norm("self_attn.k_layernorm", eps);
    layer.k_norm->groups = spec.num_kv_heads;
  }
  PM_ASSIGN(const std::int32_t rotary_dim,
            read_rotary_dim(reader, "partial_rotary_factor", 0.5, spec.head_size));
  PM_TRY(add_rope(reader, rotary_dim, &spec));
  return spec;
}

}  // namespace pagemill
