// Qwen2 and 2.5 (biases of Q, K and V); Qwen3 (norms of every head of Q and K instead).
//
// Sources: arXiv 2407.10671, arXiv 2505.09388.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> qwen_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool is_qwen3 = reader.architecture().starts_with("Qwen3");
  const bool bias = is_qwen3 && reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = !is_qwen3 || bias, .output = bias}));
  float eps = 1e-6f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  add_rms_norms(eps, &spec);
  if (is_qwen3) {
    spec.layer.q_norm = rms_norm("self_attn.q_norm", eps);
    spec.layer.q_norm->groups = spec.num_heads;
    spec.layer.k_norm = rms_norm("self_attn.k_norm", eps);
    spec.layer.k_norm->groups = spec.num_kv_heads;
  }
  PM_ASSIGN(const std::int32_t rotary_dim, whole_rotary_dim(reader, spec));
  PM_TRY(add_rope(reader, rotary_dim, &spec));

  std::int32_t window = 0, first = 0;
  PM_TRY(reader.read_optional_int("sliding_window", INT32_MAX, &window));
  if (window == 0 || !reader.flag("use_sliding_window", false)) return spec;
  if (reader.has("max_window_layers") && reader.json()["max_window_layers"] != 0) {
    PM_TRY(reader.read_int("max_window_layers", kMaxLayers, &first));
  }
  std::vector<std::int32_t> windows(spec.num_layers, 0);
  for (std::int32_t i = first; i < spec.num_layers; ++i) windows[i] = window;
  PM_TRY(read_layer_types(reader, window, windows, &spec));
  return spec;
}

}  // namespace pagemill
