// BLOOM: positions by ALiBi, a LayerNorm behind the embedding.
//
// Source: arXiv 2211.05100.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> bloom_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_TRY(reader.require_flag("apply_residual_connection_post_layernorm", false));
  PM_ASSIGN(DecoderSpec spec,
            read_sizes(reader,
                       {.hidden = reader.first_of({"hidden_size", "n_embed"}),
                        .intermediate = nullptr,
                        .layers = reader.first_of({"n_layer", "num_hidden_layers"}),
                        .heads = reader.first_of({"n_head", "num_attention_heads"}),
                        .kv_heads = nullptr,
                        .head_size = nullptr,
                        .positions = "seq_length"}));
  if (spec.max_positions == 0) spec.max_positions = 2048;
  spec.activation = Activation::kGeluTanh;
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_epsilon", &eps));
  const std::string prefix = prefix_of(checkpoint, "transformer.", "word_embeddings.weight");
  spec.embedding = prefix + "word_embeddings";
  spec.embedding_norm = layer_norm(prefix + "word_embeddings_layernorm", eps);
  spec.layer_prefix = prefix + "h.";
  spec.alibi_slopes = alibi_slopes(spec.num_heads);
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("input_layernorm", eps);
  layer.mlp_norm = layer_norm("post_attention_layernorm", eps);
  layer.qkv = grouped_qkv(spec, "self_attention.query_key_value", true);
  layer.output = {"self_attention.dense", spec.hidden_size, true};
  layer.up = {{"mlp.dense_h_to_4h", spec.intermediate_size, true}};
  layer.down = {"mlp.dense_4h_to_h", spec.hidden_size, true};
  spec.final_norm = layer_norm(prefix + "ln_f", eps);
  set_head(reader, "lm_head", true, &spec);
  return spec;
}

}  // namespace pagemill
