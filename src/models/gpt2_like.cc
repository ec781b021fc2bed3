#include "models/gpt2_like.h"

namespace pagemill {

Result<DecoderSpec> gpt2_like(const ConfigReader& reader, const std::string& activation) {
  PM_ASSIGN(DecoderSpec spec,
            read_sizes(reader,
                       {.hidden = "n_embd",
                        .intermediate = "n_inner",
                        .layers = "n_layer",
                        .heads = "n_head",
                        .kv_heads = nullptr,
                        .head_size = nullptr,
                        .positions = "n_positions"}));
  PM_ASSIGN(spec.activation, reader.activation("activation_function", activation));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_epsilon", &eps));
  if (spec.max_positions == 0) spec.max_positions = 1024;
  if (!reader.flag("scale_attn_weights", true)) spec.attention_scale = 1;
  const std::string prefix = prefix_of(reader.checkpoint(), "transformer.", "wte.weight");
  spec.embedding = prefix + "wte";
  spec.positions = PositionTable{.name = prefix + "wpe", .rows = spec.max_positions};
  spec.layer_prefix = prefix + "h.";
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("ln_1", eps);
  layer.mlp_norm = layer_norm("ln_2", eps);
  layer.output = {"attn.c_proj", spec.hidden_size, true};
  layer.up = {{"mlp.c_fc", spec.intermediate_size, true}};
  layer.down = {"mlp.c_proj", spec.hidden_size, true};
  spec.final_norm = layer_norm(prefix + "ln_f", eps);
  set_head(reader, "lm_head", true, &spec);
  return spec;
}

}  // namespace pagemill
