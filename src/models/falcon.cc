// Falcon 7B (one KV head, one LayerNorm for attention and MLP side by side), 40B and 180B (groups
// of queries, a LayerNorm for each), 11B (groups, one LayerNorm).
//
// Source: arXiv 2311.16867.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {
namespace {

void add_norms(const ConfigReader& reader, bool is_new, float eps, DecoderSpec* spec) {
  DecoderLayerSpec& layer = spec->layer;
  std::int32_t num_norms = is_new ? 2 : 1;
  if (reader.has("num_ln_in_parallel_attn") && reader.json()["num_ln_in_parallel_attn"] == 1) {
    num_norms = 1;
  }
  const bool has_two = is_new && num_norms == 2;
  spec->parallel = is_new || reader.flag("parallel_attn", true);
  layer.attention_norm = layer_norm(has_two ? "ln_attn" : "input_layernorm", eps);
  if (has_two) layer.mlp_norm = layer_norm("ln_mlp", eps);
  if (!spec->parallel) layer.mlp_norm = layer_norm("post_attention_layernorm", eps);
}

}  // namespace

Result<DecoderSpec> falcon_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_TRY(reader.require_flag("alibi", false));
  const bool is_new = reader.flag("new_decoder_architecture", false);
  PM_ASSIGN(
      DecoderSpec spec,
      read_sizes(reader,
                 {.intermediate = "ffn_hidden_size",
                  .layers = reader.first_of({"num_hidden_layers", "n_layer"}),
                  .heads = reader.first_of({"num_attention_heads", "n_head"}),
                  .kv_heads = is_new ? reader.first_of({"num_kv_heads", "n_head_kv"}) : nullptr,
                  .head_size = nullptr}));
  PM_ASSIGN(spec.activation, reader.activation("activation", "gelu"));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_epsilon", &eps));
  const bool bias = reader.flag("bias", false);
  const bool multi_query = !is_new && reader.flag("multi_query", true);
  if (multi_query) spec.num_kv_heads = 1;
  const std::string prefix = prefix_of(checkpoint, "transformer.", "word_embeddings.weight");
  spec.embedding = prefix + "word_embeddings";
  spec.layer_prefix = prefix + "h.";
  constexpr const char* kQkv = "self_attention.query_key_value";
  spec.layer.qkv = multi_query ? stacked_qkv(spec, kQkv, bias) : grouped_qkv(spec, kQkv, bias);
  spec.layer.output = {"self_attention.dense", spec.hidden_size, bias};
  spec.layer.up = {{"mlp.dense_h_to_4h", spec.intermediate_size, bias}};
  spec.layer.down = {"mlp.dense_4h_to_h", spec.hidden_size, bias};
  add_norms(reader, is_new, eps, &spec);
  spec.final_norm = layer_norm(prefix + "ln_f", eps);
  set_head(reader, "lm_head", true, &spec);
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  return spec;
}

}  // namespace pagemill
