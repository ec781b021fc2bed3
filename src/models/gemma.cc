// Gemma 1, 2 and 3: embeddings scaled by the square root of their size, norms whose weights are
// stored less 1. Gemma 2 norms what branches add as well, caps scores and logits softly, and lets
// every other layer see a window; Gemma 3 norms Q and K instead of capping, and turns the layers
// with a window by another base.
//
// Sources: arXiv 2403.08295, arXiv 2408.00118, arXiv 2503.19786.
#include <cmath>

#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {
namespace {

NormSpec gemma_norm(const std::string& name, float eps) {
  NormSpec norm = rms_norm(name, eps);
  norm.weight_offset = 1;
  return norm;
}

// Every `period`-th layer sees everything, the others a window.
Status read_gemma_windows(const ConfigReader& reader, std::int32_t period, DecoderSpec* spec) {
  std::int32_t window = 4096;
  PM_TRY(reader.read_optional_int("sliding_window", INT32_MAX, &window));
  PM_TRY(reader.read_optional_int("sliding_window_pattern", kMaxLayers, &period));
  std::vector<std::int32_t> windows(spec->num_layers, window);
  for (std::int32_t i = period - 1; i < spec->num_layers; i += period) windows[i] = 0;
  return read_layer_types(reader, window, windows, spec);
}

// The layers with a window turn by rope_local_base_freq, without scaling.
Status add_local_rope(const ConfigReader& reader, DecoderSpec* spec) {
  float theta = 10000;
  PM_TRY(reader.read_float("rope_local_base_freq", &theta));
  const nlohmann::json local = {{"rope_theta", theta}};
  PM_ASSIGN(RotaryEmbedding rope, RotaryEmbedding::create(local, spec->head_size, {}));
  spec->ropes.push_back(std::move(rope));
  for (std::int32_t i = 0; i < spec->num_layers; ++i) {
    spec->rope_of_layer[i] = spec->window[i] > 0 ? 1 : 0;
  }
  return ok_status();
}

}  // namespace

Result<DecoderSpec> gemma_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool is_first = reader.architecture() == "GemmaForCausalLM";
  const bool is_third = reader.architecture() == "Gemma3ForCausalLM";
  const bool bias = reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = bias, .output = bias}));
  set_head(reader, "lm_head", true, &spec);
  PM_TRY(reader.refuse("use_bidirectional_attention"));
  // Gemma 1's first configs say gelu in hidden_act and mean gelu_pytorch_tanh.
  PM_ASSIGN(spec.activation, reader.activation("hidden_activation", "gelu_pytorch_tanh"));
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden_size));
  float eps = 1e-6f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = gemma_norm("input_layernorm", eps);
  layer.mlp_norm =
      gemma_norm(is_first ? "post_attention_layernorm" : "pre_feedforward_layernorm", eps);
  spec.final_norm = gemma_norm("model.norm", eps);
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  if (is_first) return spec;

  layer.attention_post_norm = gemma_norm("post_attention_layernorm", eps);
  layer.mlp_post_norm = gemma_norm("post_feedforward_layernorm", eps);
  float scalar = 256;
  PM_TRY(reader.read_float("query_pre_attn_scalar", &scalar));
  if (scalar == 0) return reader.fail("query_pre_attn_scalar", "expected a number > 0, got 0");
  spec.attention_scale = 1.0f / std::sqrt(scalar);
  if (!is_third) spec.attention_softcap = 50, spec.logits_softcap = 30;
  PM_TRY(reader.read_float("attn_logit_softcapping", &spec.attention_softcap));
  PM_TRY(reader.read_float("final_logit_softcapping", &spec.logits_softcap));
  PM_TRY(read_gemma_windows(reader, is_third ? 6 : 2, &spec));
  if (!is_third) return spec;
  layer.q_norm = gemma_norm("self_attn.q_norm", eps);
  layer.q_norm->groups = spec.num_heads;
  layer.k_norm = gemma_norm("self_attn.k_norm", eps);
  layer.k_norm->groups = spec.num_kv_heads;
  PM_TRY(add_local_rope(reader, &spec));
  return spec;
}

}  // namespace pagemill
