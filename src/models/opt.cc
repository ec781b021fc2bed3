// OPT: learned positions, LayerNorms, ReLU. Not OPT-350M, which norms after the residual.
//
// Source: Zhang et al., "OPT" (arXiv 2205.01068).
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> opt_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_TRY(reader.require_flag("do_layer_norm_before", true));
  PM_TRY(reader.require_flag("_remove_final_layer_norm", false));
  PM_TRY(reader.require_flag("layer_norm_elementwise_affine", true));
  PM_ASSIGN(
      DecoderSpec spec,
      read_sizes(reader, {.intermediate = "ffn_dim", .kv_heads = nullptr, .head_size = nullptr}));
  std::int32_t embedding_size = spec.hidden_size;
  PM_TRY(reader.read_optional_int("word_embed_proj_dim", kMaxDimension, &embedding_size));
  if (embedding_size != spec.hidden_size) {
    return reader.not_supported("word_embed_proj_dim", "only the hidden size is supported");
  }
  PM_ASSIGN(spec.activation, reader.activation("activation_function", "relu"));
  const bool bias = reader.flag("enable_bias", true);
  constexpr float kEps = 1e-5f;
  constexpr std::int64_t kOffset = 2;
  if (spec.max_positions == 0) spec.max_positions = 2048;
  const std::string prefix =
      prefix_of(checkpoint, "model.", "decoder.embed_tokens.weight") + "decoder.";
  spec.embedding = prefix + "embed_tokens";
  spec.positions = PositionTable{
      .name = prefix + "embed_positions", .rows = spec.max_positions + kOffset, .offset = kOffset};
  spec.layer_prefix = prefix + "layers.";
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("self_attn_layer_norm", kEps);
  layer.mlp_norm = layer_norm("final_layer_norm", kEps);
  layer.qkv = {{"self_attn.q_proj", spec.q_size(), bias},
               {"self_attn.k_proj", spec.q_size(), bias},
               {"self_attn.v_proj", spec.q_size(), bias}};
  layer.output = {"self_attn.out_proj", spec.hidden_size, bias};
  layer.up = {{"fc1", spec.intermediate_size, bias}};
  layer.down = {"fc2", spec.hidden_size, bias};
  spec.final_norm = layer_norm(prefix + "final_layer_norm", kEps);
  set_head(reader, "lm_head", true, &spec);
  return spec;
}

}  // namespace pagemill
