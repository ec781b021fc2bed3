// GPT-NeoX and Pythia: attention and MLP side by side, each with a LayerNorm, a part of every head
// turned.
//
// Source: Black et al., "GPT-NeoX-20B" (arXiv 2204.06745).
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> gpt_neox_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, read_sizes(reader, {.kv_heads = nullptr, .head_size = nullptr}));
  PM_ASSIGN(spec.activation, reader.activation("hidden_act", "gelu"));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_eps", &eps));
  const bool bias = reader.flag("attention_bias", true);
  const std::string prefix = prefix_of(checkpoint, "gpt_neox.", "embed_in.weight");
  spec.embedding = prefix + "embed_in";
  spec.layer_prefix = prefix + "layers.";
  spec.parallel = reader.flag("use_parallel_residual", true);
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("input_layernorm", eps);
  layer.mlp_norm = layer_norm("post_attention_layernorm", eps);
  layer.qkv = grouped_qkv(spec, "attention.query_key_value", bias);
  layer.output = {"attention.dense", spec.hidden_size, bias};
  layer.up = {{"mlp.dense_h_to_4h", spec.intermediate_size, true}};
  layer.down = {"mlp.dense_4h_to_h", spec.hidden_size, true};
  spec.final_norm = layer_norm(prefix + "final_layer_norm", eps);
  // Transformers 5 has renamed it.
  set_head(reader, checkpoint.find("lm_head.weight") ? "lm_head" : "embed_out", false, &spec);
  PM_ASSIGN(
      const std::int32_t rotary_dim,
      read_rotary_dim(
          reader, reader.first_of({"partial_rotary_factor", "rotary_pct"}), 0.25, spec.head_size));
  PM_TRY(add_rope(reader, rotary_dim, &spec));
  return spec;
}

}  // namespace pagemill
