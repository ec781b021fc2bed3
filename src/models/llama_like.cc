#include "models/llama_like.h"

#include <fmt/format.h>

namespace pagemill {

NormSpec rms_norm(const std::string& name, float eps) {
  return {.name = name, .kind = NormKind::kRms, .eps = eps};
}

NormSpec layer_norm(const std::string& name, float eps, bool bias) {
  return {.name = name, .kind = NormKind::kLayer, .eps = eps, .bias = bias};
}

void set_head(const ConfigReader& reader,
              const std::string& name,
              bool tied_by_default,
              DecoderSpec* spec) {
  // A GGUF file says so by leaving the tensor out.
  const bool tied = reader.flag("tie_word_embeddings", tied_by_default) ||
                    (reader.checkpoint().format() == CheckpointFormat::kGguf &&
                     reader.checkpoint().find(name + ".weight") == nullptr);
  spec->lm_head = {.name = tied ? spec->embedding : name, .out_features = spec->vocab_size};
}

Result<DecoderSpec> llama_like(const ConfigReader& reader, const LlamaBiases& biases) {
  PM_ASSIGN(DecoderSpec spec, read_sizes(reader, {}));
  PM_ASSIGN(spec.activation, reader.activation("hidden_act", "silu"));
  spec.embedding = "model.embed_tokens";
  spec.layer_prefix = "model.layers.";
  DecoderLayerSpec& layer = spec.layer;
  layer.qkv = {{"self_attn.q_proj", spec.q_size(), biases.qkv},
               {"self_attn.k_proj", spec.kv_size(), biases.qkv},
               {"self_attn.v_proj", spec.kv_size(), biases.qkv}};
  layer.output = {"self_attn.o_proj", spec.hidden_size, biases.output};
  layer.up = {{"mlp.gate_proj", spec.intermediate_size, biases.mlp},
              {"mlp.up_proj", spec.intermediate_size, biases.mlp}};
  layer.down = {"mlp.down_proj", spec.hidden_size, biases.mlp};
  set_head(reader, "lm_head", false, &spec);
  return spec;
}

Result<std::int32_t> whole_rotary_dim(const ConfigReader& reader, const DecoderSpec& spec) {
  constexpr const char* kKey = "partial_rotary_factor";
  PM_ASSIGN(const std::int32_t rotary_dim, read_rotary_dim(reader, kKey, 1, spec.head_size));
  if (rotary_dim == spec.head_size || reader.checkpoint().format() == CheckpointFormat::kGguf) {
    return rotary_dim;
  }
  if (reader.has("rope_scaling")) {
    return reader.not_supported(
        kKey,
        fmt::format("{} has no meaning for it together with rope_scaling", spec.architecture));
  }
  return spec.head_size;
}

void add_rms_norms(float eps, DecoderSpec* spec) {
  spec->layer.attention_norm = rms_norm("input_layernorm", eps);
  spec->layer.mlp_norm = rms_norm("post_attention_layernorm", eps);
  spec->final_norm = rms_norm("model.norm", eps);
}

Status read_experts(const ConfigReader& reader, const char* key, MoeSpec* moe) {
  PM_TRY(reader.read_int(key, kMaxDimension, &moe->num_experts));
  return reader.read_int("num_experts_per_tok", moe->num_experts, &moe->experts_per_token);
}

Status read_window(const ConfigReader& reader, DecoderSpec* spec) {
  std::int32_t window = 0;
  PM_TRY(reader.read_optional_int("sliding_window", INT32_MAX, &window));
  spec->window.assign(spec->num_layers, window);
  return ok_status();
}

}  // namespace pagemill
