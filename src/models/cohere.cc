// Command R (Cohere) and Command R7B (Cohere2): parallel blocks that share a LayerNorm without
// bias, rotations of neighbouring elements, scaled logits. Cohere2's layers without a window turn
// nothing.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {
namespace {

// Every `sliding_window_pattern`-th layer sees everything.
Status read_cohere2_windows(const ConfigReader& reader, DecoderSpec* spec) {
  std::int32_t window = 4096, period = 4;
  PM_TRY(reader.read_optional_int("sliding_window", INT32_MAX, &window));
  PM_TRY(reader.read_optional_int("sliding_window_pattern", kMaxLayers, &period));
  std::vector<std::int32_t> windows(spec->num_layers, window);
  for (std::int32_t i = period - 1; i < spec->num_layers; i += period) windows[i] = 0;
  PM_TRY(read_layer_types(reader, window, windows, spec));
  for (std::int32_t i = 0; i < spec->num_layers; ++i) {
    if (spec->window[i] == 0) spec->rope_of_layer[i] = -1;
  }
  return ok_status();
}

}  // namespace

Result<DecoderSpec> cohere_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool bias = reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = bias, .output = bias}));
  set_head(reader, "lm_head", true, &spec);
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_eps", &eps));
  spec.parallel = true;
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("input_layernorm", eps, false);
  spec.final_norm = layer_norm("model.norm", eps, false);
  layer.qkv[0].order.rotary_heads = spec.num_heads;
  layer.qkv[1].order.rotary_heads = spec.num_kv_heads;
  if (reader.flag("use_qk_norm", false)) {
    layer.q_norm = layer_norm("self_attn.q_norm", eps, false);
    layer.q_norm->groups = spec.num_heads;
    layer.k_norm = layer_norm("self_attn.k_norm", eps, false);
    layer.k_norm->groups = spec.num_kv_heads;
    layer.q_norm->shares_weight = layer.k_norm->shares_weight = false;
  }
  spec.logits_scale = 0.0625f;
  PM_TRY(reader.read_float("logit_scale", &spec.logits_scale));
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  if (spec.architecture == "Cohere2ForCausalLM") PM_TRY(read_cohere2_windows(reader, &spec));
  return spec;
}

}  // namespace pagemill
